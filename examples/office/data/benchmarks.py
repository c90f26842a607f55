"""The published facts of the benchmarks."""

import itertools
from dataclasses import dataclass, field, replace
from typing import NamedTuple


class Part(NamedTuple):
    """One domain of a benchmark: its name, published number of images, and folder names in use."""

    name: str
    images: int
    folders: tuple[str, ...]


@dataclass(frozen=True)
class Benchmark:
    """Published facts of a benchmark; ``domains`` and ``tasks`` use the field's abbreviations.

    Attributes:
        kept: The source's categories that a target keeps in partial adaptation; all if empty.
        kept_images: How many images of these each domain has.
    """

    domains: dict[str, Part]
    tasks: list[str]
    categories: int
    reference: str
    kept: tuple[str, ...] = ()
    kept_images: dict[str, int] = field(default_factory=dict)


DATASETS = {
    "office31": Benchmark(
        domains={
            "A": Part("amazon", 2817, ("amazon",)),
            "W": Part("webcam", 795, ("webcam",)),
            "D": Part("dslr", 498, ("dslr",)),
        },
        tasks=["A2W", "D2W", "W2D", "A2D", "D2A", "W2A"],
        categories=31,
        reference="Saenko et al., ECCV 2010, https://faculty.cc.gatech.edu/~judy/domainadapt/",
    ),
    "imageclef-da": Benchmark(
        domains={
            "I": Part("i", 600, ("i", "imagenet", "ilsvrc2012")),
            "P": Part("p", 600, ("p", "pascal", "voc2012", "pascalvoc2012")),
            "C": Part("c", 600, ("c", "caltech", "caltech256")),
        },
        tasks=["I2P", "P2I", "I2C", "C2I", "C2P", "P2C"],
        categories=12,
        reference="ImageCLEF 2014, https://www.imageclef.org/2014/adaptation",
    ),
    "office-home": Benchmark(
        domains={
            "Ar": Part("Art", 2427, ("art",)),
            "Cl": Part("Clipart", 4365, ("clipart",)),
            "Pr": Part("Product", 4439, ("product",)),
            "Rw": Part("Real World", 4357, ("realworld",)),
        },
        tasks=[f"{s}2{t}" for s, t in itertools.permutations(("Ar", "Cl", "Pr", "Rw"), 2)],
        categories=65,
        reference="Venkateswara et al., CVPR 2017, https://www.hemanthdv.org/officeHomeDataset.html",
    ),
    "office-caltech10": Benchmark(
        domains={
            "A": Part("amazon", 958, ("amazon",)),
            "C": Part("caltech10", 1123, ("caltech10", "caltech", "caltech256")),
            "D": Part("dslr", 157, ("dslr",)),
            "W": Part("webcam", 295, ("webcam",)),
        },
        tasks=[f"{s}2{t}" for s, t in itertools.permutations("ACDW", 2)],
        categories=10,
        reference="Gong et al., CVPR 2012",
    ),
}


# Its targets keep the ten categories that are also in Caltech-256.
DATASETS["office31-partial"] = replace(
    DATASETS["office31"],
    kept=(
        "back_pack",
        "bike",
        "calculator",
        "headphones",
        "keyboard",
        "laptop_computer",
        "monitor",
        "mouse",
        "mug",
        "projector",
    ),
    kept_images={"A": 958, "W": 295, "D": 157},
)
