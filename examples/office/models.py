"""Torchvision's classification networks without their last linear layer."""

from collections import OrderedDict
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn

from office import files
from office.errors import UserError

TWO_OUTPUTS = ("googlenet", "inception_v3")


def build_extractor(
    backbone: str, weights: str = "imagenet", bottleneck: int | None = None
) -> nn.Sequential:
    """Build the feature extractor: a backbone, then a bottleneck if wanted.

    Args:
        backbone: Name of a torchvision classification network, such as ``"resnet50"``.
        weights: ``"imagenet"`` (torchvision's IMAGENET1K_V1), ``"none"`` (random), or the path of
            a state_dict.
        bottleneck: Size of a linear layer with batch norm and ReLU behind the backbone.

    Returns:
        A module with children ``backbone`` and ``bottleneck`` that maps images ``(N, 3, 224,
        224)`` to features ``(N, F)``; F is its attribute ``num_features``.

    Raises:
        UserError: If the network is unknown, has no last linear layer to take off, or the
            weights are not there or do not fit.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if backbone not in names:
        raise UserError(f"unknown backbone {backbone}; torchvision has {', '.join(names)}")
    if backbone in TWO_OUTPUTS:
        raise UserError(f"backbone {backbone} has auxiliary outputs in training; choose another")
    network = torchvision.models.get_model(backbone, weights=None)
    name, last = [*network.named_modules()][-1]
    if not isinstance(last, nn.Linear):
        raise UserError(
            f"backbone {backbone} does not end in a linear layer that could be taken off, "
            f"but in {type(last).__name__}"
        )
    if weights == "imagenet":
        network = _imagenet(backbone)
    elif weights != "none":
        _load(network, backbone, Path(weights), ignore=name)
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    extractor = nn.Sequential(OrderedDict(backbone=network, bottleneck=nn.Sequential()))
    extractor.num_features = last.in_features
    if bottleneck is not None:
        extractor.bottleneck = nn.Sequential(
            nn.Linear(last.in_features, bottleneck), nn.BatchNorm1d(bottleneck), nn.ReLU()
        )
        extractor.num_features = bottleneck
    return extractor


def _imagenet(backbone: str) -> nn.Module:
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
            f"cannot download {weights.url} ({error}); fetch it elsewhere and use --weights FILE"
        ) from None


def _load(network: nn.Module, backbone: str, path: Path, ignore: str) -> None:
    """Load a state_dict of any float dtype but for the layer that is taken off."""
    given: dict[str, Tensor] = {
        key: value.float() if torch.is_floating_point(value) else value
        for key, value in files.load(path).items()
        if isinstance(value, Tensor) and not key.startswith(f"{ignore}.")
    }
    wanted = {
        key: value
        for key, value in network.state_dict().items()
        if not key.startswith(f"{ignore}.")
    }
    missing = [k for k in wanted if k not in given and not k.endswith("num_batches_tracked")]
    unknown = [k for k in given if k not in wanted]
    shapes = [k for k in wanted if k in given and wanted[k].shape != given[k].shape]
    faults = [
        f"{len(keys)} keys {what}, the first {keys[0]}"
        for what, keys in (("missing", missing), ("unknown", unknown))
        if keys
    ]
    if shapes:
        key = shapes[0]
        faults.append(
            f"{len(shapes)} shapes differ, the first {key}: {tuple(given[key].shape)} in the "
            f"file, {tuple(wanted[key].shape)} in the network"
        )
    if faults:
        raise UserError(f"the weights {path} do not fit {backbone}: {'; '.join(faults)}")
    network.load_state_dict(given, strict=False)
