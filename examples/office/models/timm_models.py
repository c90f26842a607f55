"""timm networks without their classifier, for ``--backbone timm:NAME``; timm is optional."""

import difflib
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from office.console import UserError
from office.data.images import Preprocessing
from office.models.weights_files import say_once


def build(name: str, weights: str) -> tuple[nn.Module, int]:
    """Build a network and return it with the width of its features.

    Args:
        name: A name for ``timm.create_model``, such as ``"resnet50.tv_in1k"``.
        weights: ``"imagenet"``, those of the tag after the dot, ``"none"`` (random), or the path
            of a file that timm's own loader reads.

    Raises:
        UserError: If timm or the network is missing, or the weights do not fit.
    """
    timm = _timm(name)
    if weights == "imagenet":
        network = _pretrained(timm, name)
    else:
        network = timm.create_model(name, num_classes=0)
        if weights != "none":
            _load(timm, network, name, Path(weights))
    side, was_training = preprocessing(name).crop, network.training
    # Not .num_features: several networks widen their pooled features.
    with torch.no_grad():
        shape = network.eval()(torch.zeros(1, 3, side, side)).shape
    network.train(was_training)
    if len(shape) != 2:
        raise UserError(
            f"backbone timm:{name} must return one vector per image, got shape {tuple(shape)}; "
            "choose another"
        )
    return network, shape[1]


def preprocessing(name: str) -> Preprocessing:
    """Return the preprocessing that a network was trained with, from timm.

    Raises:
        UserError: If timm or the network is missing, or the network needs other image shapes.
    """
    timm = _timm(name)
    config = timm.data.resolve_data_config(
        pretrained_cfg=timm.models.get_pretrained_cfg(name).to_dict()
    )
    size, mode = config["input_size"], config["crop_mode"]
    if size[0] != 3 or size[1] != size[2] or mode not in ("center", "squash"):
        raise UserError(
            f"backbone timm:{name} needs images of shape {size} with crop mode {mode}; only square "
            "RGB images with center or squash are supported: choose another"
        )
    return Preprocessing(
        resize=math.floor(size[1] / config["crop_pct"]),
        crop=size[1],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        squash=mode == "squash",
    )


def _timm(name: str) -> Any:
    """Return timm, if it is installed and knows the network."""
    try:
        import timm
    except ImportError:
        raise UserError(f"--backbone timm:{name} needs timm: pip install timm") from None
    network = name.partition(".")[0]
    if not timm.is_model(network):
        close = difflib.get_close_matches(network, timm.list_models(), 3)
        hint = f"; similar: {', '.join(close)}" if close else ""
        raise UserError(f"unknown backbone timm:{name}: timm has no such network{hint}")
    try:
        timm.models.get_pretrained_cfg(name)
    except RuntimeError:
        raise UserError(f"unknown backbone timm:{name}; {_tags(timm, network)}") from None
    return timm


def _tags(timm: Any, network: str) -> str:
    tags = [f"timm:{known}" for known in timm.list_pretrained(f"{network}.*")]
    return f"{network} has the weights {', '.join(tags)}" if tags else f"{network} has no weights"


def _pretrained(timm: Any, name: str) -> nn.Module:
    network = name.partition(".")[0]
    if name not in timm.list_pretrained(f"{network}.*"):
        raise UserError(
            f"--backbone timm:{name} does not say which weights timm should load: give the full "
            "tag (the paper's network is timm:resnet50.tv_in1k), --weights FILE or --weights none; "
            f"{_tags(timm, network)}"
        )
    try:
        return timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # from the network, the disk, or a hub
        why = str(error).strip().partition("\n")[0]
        raise UserError(
            f"cannot download the weights timm:{name} ({type(error).__name__}: {why}); download "
            "them elsewhere and use --weights FILE"
        ) from None


def _load(timm: Any, network: nn.Module, name: str, path: Path) -> None:
    """Load a file with timm's loader; all weights except the classifier's must be present."""
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    # Published files of some networks use other key names, which timm's module translates.
    module = sys.modules[timm.models.model_entrypoint(name).__module__]
    translate = getattr(module, "checkpoint_filter_fn", None)
    try:
        keys = timm.models.load_checkpoint(
            network, str(path), strict=False, filter_fn=translate, weights_only=True
        )
    except Exception as error:  # truncated and foreign files raise nearly anything
        lines = [*filter(None, map(str.strip, str(error).splitlines())), "no details"]
        why = next((line for line in lines if "size mismatch" in line), lines[0])
        raise UserError(
            f"timm cannot load the weights {path} into timm:{name}: {type(error).__name__}: {why}"
        ) from None
    if keys is not None:  # for NumPy files, the network itself checks them
        last = network.pretrained_cfg.get("classifier") or ()
        last = {key.partition(".")[0] for key in ([last] if isinstance(last, str) else last)}
        faults = [
            f"{len(found)} keys {what}, the first {found[0]}"
            for what, found in (
                ("missing", [k for k in keys[0] if not k.endswith("num_batches_tracked")]),
                ("unknown", [k for k in keys[1] if k.partition(".")[0] not in last]),
            )
            if found
        ]
        if faults:
            raise UserError(f"the weights {path} do not fit timm:{name}: {'; '.join(faults)}")
    tag = network.pretrained_cfg["tag"]
    if "." not in name and tag:
        say_once(
            f"weights {path}: images are preprocessed as for timm:{name}.{tag}; if these weights "
            "need something else, give their tag"
        )
