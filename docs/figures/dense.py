"""Draw ``dense.png`` beside this script, light and dark: predictions of the segmentation recipe.

    python docs/figures/dense.py

It trains source only and the last of the recipe's methods, with seed 0.
"""

import io
import sys
from pathlib import Path

import matplotlib.style
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "examples"))

from recipes import dense_prediction as recipe  # noqa: E402

SCENES = 6  # of the test, the first ones
WIDTH = 1200
# None is a domain's or a method's in other figures; the last is that of outlines.
COLOURS = ["#3b4252", "#e8c547", "#17becf", "#8c564b", "#f4a6c0", "#ffffff"]


def predictions(steps: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return scenes, and their categories by each method."""
    source, x_target, (images, labels) = recipe.domains(seed=0)
    images, labels = images[:SCENES], labels[:SCENES]
    rows = {"truth": labels}
    objectives = recipe.methods(recipe.class_weights(recipe.shares_of(source[1])))
    for name in ("source only", [*objectives][-1]):
        torch.manual_seed(0)
        network = recipe.Network()
        recipe.train(network, objectives[name], source, x_target, steps)
        if name == "source only":
            rows[name] = recipe.predict(network, images)
        recipe.take_statistics(network, x_target)
        rows[f"{name},\ntarget statistics".replace(", ", ",\n")] = recipe.predict(network, images)
    return images, rows


def draw(images: torch.Tensor, rows: dict[str, torch.Tensor]) -> Figure:
    """Return a grid: a column for each scene, a row for each method."""
    figure = Figure(figsize=(8, 6.1), layout="constrained")
    axes = figure.subplots(1 + len(rows), len(images), squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axis, image in zip(axes[0], images, strict=True):
        axis.imshow(image.movedim(0, -1).clamp(0, 1).numpy())
    for line, categories in zip(axes[1:], rows.values(), strict=True):
        for axis, one in zip(line, categories, strict=True):
            one = one.masked_fill(one == recipe.VOID, recipe.K)
            axis.imshow(one.numpy(), cmap=ListedColormap(COLOURS), vmin=0, vmax=recipe.K)
    for axis, name in zip(axes[:, 0], ["scene", *rows], strict=True):
        axis.set_ylabel(name, rotation=0, ha="right", va="center", labelpad=8)
    names = [*recipe.NAMES, "no label"]
    patches = [Patch(facecolor=c, edgecolor="gray") for c in COLOURS]
    figure.legend(patches, names, loc="outside lower center", ncols=len(names), frameon=False)
    return figure


def main(out: Path = HERE, steps: int = 300) -> None:
    """Draw both pictures."""
    images, rows = predictions(steps)
    for ending, styles in (("", []), ("_dark", [HERE / "dark.mplstyle"])):
        with matplotlib.style.context(styles):
            figure = draw(images, rows)
            drawn = io.BytesIO()
            figure.savefig(drawn, dpi=WIDTH / figure.get_figwidth())
        image = Image.open(drawn).convert("RGB")
        few = image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
        few.save(out / f"dense{ending}.png", optimize=True)


if __name__ == "__main__":
    main()
