"""Classification networks without their last linear layer, from torchvision and timm."""

from collections import OrderedDict
from pathlib import Path
from urllib.error import URLError

import torchvision
from torch import nn

from office.console import UserError
from office.data.images import Preprocessing
from office.models import timm_models, weights_files

TIMM = "timm:"
TWO_OUTPUTS = ("googlenet", "inception_v3")


def build_extractor(
    backbone: str,
    weights: str = "imagenet",
    bottleneck: int | None = None,
    frozen: int | None = None,
) -> nn.Sequential:
    """Build the feature extractor: a backbone, then an optional bottleneck.

    Args:
        backbone: Name of a torchvision classification network such as ``"resnet50"``, a timm one
            such as ``"timm:vit_tiny_patch16_224"``, or ``"resnet50_v1"``, see :func:`resnet50_v1`.
        weights: ``"imagenet"`` (torchvision's IMAGENET1K_V1, or those of timm's tag), ``"none"``
            (random), or the path of a state_dict, see :func:`weights_files.read` and
            :func:`timm_models.build`.
        bottleneck: Size of a linear layer with batch norm and ReLU after the backbone.
        frozen: Width of the backbone's features, if the input is features instead of images: the
            backbone is then omitted, and its weights are not read.

    Returns:
        A module with children ``backbone`` and ``bottleneck`` that maps images ``(N, 3, S, S)``,
        prepared by :func:`preprocessing`, to features ``(N, F)``; F is its attribute
        ``num_features``.

    Raises:
        UserError: If the network is unknown or has no last linear layer to remove, or the weights
            are missing or do not fit.
    """
    if frozen:
        network, width = nn.Identity(), frozen
    elif backbone.startswith(TIMM):
        network, width = timm_models.build(backbone.removeprefix(TIMM), weights)
    else:
        network, width = _of_torchvision(backbone, weights)
    extractor = nn.Sequential(OrderedDict(backbone=network, bottleneck=nn.Sequential()))
    extractor.num_features = width
    if bottleneck is not None:
        extractor.bottleneck = nn.Sequential(
            nn.Linear(width, bottleneck), nn.BatchNorm1d(bottleneck), nn.ReLU()
        )
        extractor.num_features = bottleneck
    return extractor


def preprocessing(backbone: str) -> Preprocessing:
    """Return a network's preprocessing: the paper's, or timm's for its own networks.

    Raises:
        UserError: If the network is timm's, and timm or the network is missing.
    """
    if backbone.startswith(TIMM):
        return timm_models.preprocessing(backbone.removeprefix(TIMM))
    return Preprocessing()


def _of_torchvision(backbone: str, weights: str) -> tuple[nn.Module, int]:
    network = _random(backbone)
    name, last = [*network.named_modules()][-1]
    if not isinstance(last, nn.Linear):
        raise UserError(
            f"backbone {backbone} must end in a linear layer, which is removed, but ends in "
            f"{type(last).__name__}"
        )
    if weights == "imagenet":
        network = _imagenet(backbone)
    elif weights != "none":
        state = weights_files.read(Path(weights), network, backbone, ignore=name)
        network.load_state_dict(state, strict=False)
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    return network, last.in_features


def resnet50_v1() -> nn.Module:
    """Build the ResNet-50 of He et al. (2016), for weights from Keras, Caffe or TensorFlow.

    Each stage has its stride in the first 1x1 convolution; torchvision's ``resnet50`` has it in the
    3x3 after it. The weights have the same layout: either network silently loads the other's.
    """
    network = torchvision.models.resnet50(weights=None)
    for stage in (network.layer2, network.layer3, network.layer4):
        one, three = stage[0].conv1, stage[0].conv2
        one.stride, three.stride = three.stride, one.stride
    return network


def _random(backbone: str) -> nn.Module:
    if backbone == "resnet50_v1":
        return resnet50_v1()
    names = torchvision.models.list_models(module=torchvision.models)
    if backbone not in names:
        names = ", ".join(["resnet50_v1", *names])
        raise UserError(f"unknown backbone {backbone}; choose one of {names}")
    if backbone in TWO_OUTPUTS:
        raise UserError(f"backbone {backbone} has auxiliary outputs in training; choose another")
    return torchvision.models.get_model(backbone, weights=None)


def _imagenet(backbone: str) -> nn.Module:
    if backbone == "resnet50_v1":
        raise UserError(
            "torchvision's weights are for resnet50, not for resnet50_v1, which has its strides "
            "elsewhere; use --backbone resnet50, or --weights FILE"
        )
    known = torchvision.models.get_model_weights(backbone).__members__
    if "IMAGENET1K_V1" not in known:
        raise UserError(
            f"torchvision has no IMAGENET1K_V1 weights for {backbone}, only "
            f"{', '.join(known) or 'none'}; use --weights FILE or --weights none"
        )
    weights = known["IMAGENET1K_V1"]
    try:
        return torchvision.models.get_model(backbone, weights=weights)
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"cannot download {weights.url} ({error}); download it elsewhere and use --weights FILE"
        ) from None
