"""Networks that turn images into features: torchvision's and timm's, without their last layer."""

import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from office import distributed, files
from office.console import UserError
from office.data.images import Preprocessing

TIMM = "timm:"
TWO_OUTPUTS = ("googlenet", "inception_v3")
IMAGENET = "IMAGENET1K_V1"
OFFLINE = "which is needed once; without a network, download it elsewhere and use --weights FILE"
# What torch.compile, FSDP and checkpointing insert into keys.
WRAPPERS = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
UNUSED = "num_batches_tracked"  # of batch norm; old files lack it


class Extractor(nn.Module):
    """From prepared images ``(N, 3, S, S)`` to features ``(N, F)``.

    Attributes:
        backbone: A network without its last layer.
        bottleneck: A linear layer with batch norm and ReLU, or empty.
        num_features: F.
    """

    def __init__(self, backbone: nn.Module, width: int, bottleneck: int | None = None) -> None:
        super().__init__()
        self.backbone, self.bottleneck = backbone, nn.Sequential()
        self.num_features = bottleneck or width
        if bottleneck:
            layers = nn.Linear(width, bottleneck), nn.BatchNorm1d(bottleneck), nn.ReLU()
            self.bottleneck = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of images."""
        features: Tensor = self.bottleneck(self.backbone(images))
        return features


def build_extractor(
    backbone: str,
    weights: str = "imagenet",
    bottleneck: int | None = None,
    frozen: int | None = None,
) -> Extractor:
    """Build a backbone, then an optional bottleneck.

    Args:
        backbone: Name of a torchvision classification network such as ``"resnet50"``, a timm one
            such as ``"timm:vit_tiny_patch16_224"``, or ``"resnet50_v1"``, see :func:`resnet50_v1`.
        weights: ``"imagenet"`` (torchvision's IMAGENET1K_V1, or those of timm's tag), ``"none"``
            (random), or a file: of tensors written by torch.save, perhaps within dictionaries
            (``{"state_dict": ...}``) and with a prefix to their keys (``module.``), or, for a timm
            network, any that timm reads.
        bottleneck: Size of the bottleneck.
        frozen: Width of the backbone's features, if the input is features instead of images: the
            backbone is then omitted, and its weights are not read.
    """
    if frozen:
        return Extractor(nn.Identity(), frozen, bottleneck)
    if backbone.startswith(TIMM):
        return Extractor(*_of_timm(backbone.removeprefix(TIMM), weights), bottleneck)
    return Extractor(*_of_torchvision(backbone, weights), bottleneck)


def preprocessing(backbone: str) -> Preprocessing:
    """Return a network's preprocessing: the paper's, or timm's for its own networks."""
    if not backbone.startswith(TIMM):
        return Preprocessing()
    name = backbone.removeprefix(TIMM)
    timm = _timm(name)
    config = timm.data.resolve_data_config(
        pretrained_cfg=timm.models.get_pretrained_cfg(name).to_dict()
    )
    size, mode = config["input_size"], config["crop_mode"]
    if size[0] != 3 or size[1] != size[2] or mode not in ("center", "squash"):
        raise UserError(
            f"backbone {backbone} needs images of shape {size} with crop mode {mode}; only square "
            "RGB images with center or squash are supported: choose another network"
        )
    return Preprocessing(
        resize=math.floor(size[1] / config["crop_pct"]),
        crop=size[1],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        squash=mode == "squash",
    )


def resnet50_v1() -> nn.Module:
    """Build the ResNet-50 of He et al. (2016), for weights from Keras, Caffe or TensorFlow.

    Each stage has its stride in the first 1x1 convolution; torchvision's ``resnet50`` has it in the
    3x3 after it. The weights have the same layout: either network silently loads the other's.
    """
    from torchvision import models

    network: nn.Module = models.resnet50(weights=None)
    for stage in ("layer2", "layer3", "layer4"):
        block: Any = network.get_submodule(f"{stage}.0")
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return network


def _of_torchvision(backbone: str, weights: str) -> tuple[nn.Module, int]:
    """Return a network of torchvision, without its last layer, and the width of its features."""
    from torchvision import models

    misfit = (
        f"backbone {backbone} must end in a linear layer, which is removed, and have no other "
        "output"
    )
    if backbone in TWO_OUTPUTS:
        raise UserError(misfit)
    if backbone == "resnet50_v1":
        network, known = resnet50_v1(), {}
    elif backbone in (names := models.list_models(module=models)):
        network = models.get_model(backbone, weights=None)
        known = models.get_model_weights(backbone).__members__
    else:
        names = ", ".join(["resnet50_v1", *names])
        raise UserError(f"unknown backbone {backbone}; choose one of {names}")
    name, last = [*network.named_modules()][-1]
    if not isinstance(last, nn.Linear):
        raise UserError(misfit)
    if weights == "imagenet":
        if IMAGENET not in known:
            raise UserError(
                f"torchvision has no {IMAGENET} weights for {backbone}, only "
                f"{', '.join(known) or 'none'}; use --weights FILE or --weights none"
            )
        try:
            network = models.get_model(backbone, weights=known[IMAGENET])
        except (OSError, RuntimeError) as error:
            raise UserError(f"cannot download {known[IMAGENET].url} ({error}), {OFFLINE}") from None
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    if weights not in ("imagenet", "none"):
        _load(network, backbone, Path(weights), removed=name)
    return network, last.in_features


def _of_timm(name: str, weights: str) -> tuple[nn.Module, int]:
    """Return a network of timm, without its classifier, and the width of its features."""
    timm = _timm(name)
    if weights == "imagenet":
        network = _pretrained(timm, name)
    else:
        network = timm.create_model(name, num_classes=0)
        if weights != "none":
            _load_into_timm(timm, network, name, Path(weights))
    side = preprocessing(f"{TIMM}{name}").crop
    # Not .num_features: several networks widen their pooled features.
    with torch.no_grad():
        shape = network.eval()(torch.zeros(1, 3, side, side)).shape
    if len(shape) != 2:
        raise UserError(
            f"backbone timm:{name} must return one vector per image, got shape {tuple(shape)}; "
            "choose another network"
        )
    return network.train(), shape[1]


def _timm(name: str) -> ModuleType:
    """Return timm, if it is installed and knows the network."""
    try:
        import timm
    except ImportError:
        raise UserError(f"--backbone timm:{name} needs timm: pip install timm") from None
    try:
        timm.models.get_pretrained_cfg(name)
        timm.models.model_entrypoint(name)
    except (LookupError, RuntimeError):
        why = "timm has no such network, or no such weights of it"
        raise UserError(f"unknown backbone timm:{name}: {why}") from None
    return timm


def _pretrained(timm: ModuleType, name: str) -> nn.Module:
    tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
    if name not in tags:
        has = ", ".join(f"timm:{tag}" for tag in tags) or "none"
        raise UserError(
            f"--backbone timm:{name} does not say which weights timm should load: give the full "
            f"tag (timm has {has}), --weights FILE or --weights none"
        )
    try:
        pretrained: nn.Module = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # from the network, the disk, or a hub
        why = f"{type(error).__name__}: {_in_one_line(error)}"
        raise UserError(f"cannot download the weights timm:{name} ({why}), {OFFLINE}") from None
    return pretrained


def _load_into_timm(timm: ModuleType, network: nn.Module, name: str, path: Path) -> None:
    """Load a file with timm's loader; all weights except the classifier's must be present."""
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    # Published files of some networks use other key names, which timm's module translates.
    module = sys.modules[timm.models.model_entrypoint(name).__module__]
    translate = getattr(module, "checkpoint_filter_fn", None)
    misfit = f"the weights {path} do not fit timm:{name}"
    try:
        keys = timm.models.load_checkpoint(
            network, str(path), strict=False, filter_fn=translate, weights_only=True
        )
    except Exception as error:  # truncated and foreign files raise nearly anything
        raise UserError(f"{misfit}: {type(error).__name__}: {_in_one_line(error)}") from None
    config = timm.models.get_pretrained_cfg(name)
    if keys is not None:  # for NumPy files, the network itself checks them
        last = config.classifier or ()
        _check(keys, [last] if isinstance(last, str) else last, misfit)
    if "." not in name and config.tag:
        distributed.say_once(
            f"weights {path}: images are preprocessed as for timm:{name}.{config.tag}; if these "
            "weights need something else, give their tag"
        )


def _load(network: nn.Module, backbone: str, path: Path, removed: str) -> None:
    """Load the weights in a file, inside any dictionaries and with any prefix to their keys.

    They are below the prefix that has most of the network's keys. It must have all, and no others
    but the removed layer's.
    """
    state = dict(_flat(files.load(path)))
    expected = [key for key in network.state_dict() if not key.endswith(UNUSED)]
    ends = expected[0], expected[-1]  # either may be missing
    prefixes = {key.removesuffix(end) for key in state for end in ends if key.endswith(end)}
    fits = Counter({p: sum(p + key in state for key in expected) for p in prefixes}).most_common(2)
    misfit = f"the weights {path} do not fit {backbone}"
    if not fits:
        raise UserError(f"{misfit}: none of its keys ends in {expected[0]}")
    prefix, count = fits[0]
    if len(fits) == 2 and fits[1][1] == count:
        both = " and ".join(sorted(prefix for prefix, _ in fits))
        raise UserError(
            f"{path} contains several sets of weights for {backbone}, {both}; save only one"
        )
    if prefix:
        misfit += f", which have the prefix {prefix}"
        distributed.say_once(f"weights {path}: loaded without the prefix {prefix}")
    state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    try:
        keys = network.load_state_dict(state, strict=False)
    except RuntimeError as error:  # shapes differ
        raise UserError(f"{misfit}: {_in_one_line(error)}") from None
    _check(keys, [removed], misfit)


def _flat(content: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested dictionaries, with their keys joined by dots."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, Tensor):
            yield WRAPPERS.sub("", f"{prefix}{key}"), value


def _check(keys: Any, removed: Iterable[str], misfit: str) -> None:
    """Raise :class:`UserError` if keys are missing, or unknown and of no removed layer."""
    layers = tuple(f"{layer}." for layer in removed)
    missing = [key for key in keys.missing_keys if not key.endswith(UNUSED)]
    unknown = [key for key in keys.unexpected_keys if not key.startswith(layers)]
    for names, what in ((missing, "missing"), (unknown, "unknown")):
        if names:
            raise UserError(f"{misfit}: {what} keys: {len(names)} (first: {names[0]})")


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
