"""train_office.py as it is called, in a process of its own, with images as small as the tests'.

``--backbone plain`` is a network without batch norm, whose numbers do not depend on which process
sees which images.
"""

import runpy
from pathlib import Path

import torch
from office import options
from office.data.images import Preprocessing
from office.models import backbones
from torch import nn

SCRIPT = Path(options.__file__).parents[1] / "train_office.py"
build_extractor = backbones.build_extractor


def small_images(_):
    """The preprocessing of every backbone, for small images."""
    return Preprocessing(resize=36, crop=32)


def build(backbone, *args):
    """The network that is asked for, or the plain one."""
    if backbone != "plain":
        return build_extractor(backbone, *args)
    layers = nn.Conv2d(3, 8, 5, 3), nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    return backbones.Extractor(nn.Sequential(*layers, nn.Linear(32, 16)), 16)


if __name__ == "__main__":
    torch.set_num_threads(1)
    backbones.preprocessing, backbones.build_extractor = small_images, build
    runpy.run_path(str(SCRIPT), run_name="__main__")
