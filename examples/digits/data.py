"""The two domains: digits printed in Matplotlib's fonts, and scikit-learn's handwritten ones.

Both are 8x8 images, each pixel the number of on-pixels, 0 to 16, in a 4x4 block of a 32x32 bitmap.
"""

import math
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits
from torch import Tensor

FONTS = [
    f"{family}{style}.ttf"
    for family, styles in (
        ("DejaVuSans", ("", "-Bold", "-Oblique", "-BoldOblique")),
        ("DejaVuSansMono", ("", "-Bold", "-Oblique", "-BoldOblique")),
        ("DejaVuSerif", ("", "-Bold", "-Italic", "-BoldItalic")),
        ("STIXGeneral", ("", "Bol", "Italic", "BolIta")),
    )
    for style in styles
]
STROKES = (0, 1, 2, 3)  # added around a glyph of 64 pixels


class Digits(NamedTuple):
    """Images ``(N, 1, 8, 8)`` in [0, 1] and their digits ``(N,)``."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Digits":
        """Return them on a device."""
        return Digits(self.images.to(device), self.labels.to(device))


def render_digits(count: int, seed: int) -> Digits:
    """Render printed digits, equally many of each, in random fonts, strokes and poses."""
    rng = np.random.default_rng(seed)
    glyphs = {
        (digit, font, stroke): draw_glyph(digit, font, stroke)
        for digit in range(10)
        for font in FONTS
        for stroke in STROKES
    }
    digits = [i % 10 for i in range(count)]
    bitmaps = np.stack(
        [warp(glyphs[digit, rng.choice(FONTS), rng.choice(STROKES)], rng) for digit in digits]
    )
    on_pixels = (bitmaps >= 128).reshape(count, 8, 4, 8, 4).sum((2, 4))
    return to_digits(on_pixels, np.array(digits))


def draw_glyph(digit: int, font: str, stroke: int) -> Image.Image:
    """Draw a digit of 64 pixels, white on black, cropped to its ink."""
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", font)
    face = ImageFont.truetype(str(path), 64)
    left, top, right, bottom = face.getbbox(str(digit), stroke_width=stroke)
    glyph = Image.new("L", (math.ceil(right - left), math.ceil(bottom - top)))
    ImageDraw.Draw(glyph).text((-left, -top), str(digit), 255, face, stroke_width=stroke)
    return glyph


def warp(glyph: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Place a glyph in 32x32 pixels with random size, shift, rotation and shear."""
    height = rng.uniform(26, 33)
    width = height * glyph.width / glyph.height * rng.uniform(0.75, 1.2)
    angle, shear = math.radians(rng.uniform(-15, 15)), rng.uniform(-0.3, 0.3)
    cos, sin = math.cos(angle), math.sin(angle)
    forward = np.array([[cos, cos * shear - sin], [sin, sin * shear + cos]])
    forward = forward * [width / glyph.width, height / glyph.height]
    inverse = np.linalg.inv(forward)  # Pillow asks where each output pixel comes from
    centre = 16 + rng.uniform(-2, 2, size=2)
    offset = np.array(glyph.size) / 2 - inverse @ centre
    coefficients = np.column_stack([inverse, offset]).ravel().tolist()
    return np.asarray(
        glyph.transform((32, 32), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    )


def load_handwritten() -> Digits:
    """Load scikit-learn's handwritten digits."""
    return to_digits(*load_digits(return_X_y=True))


def to_digits(on_pixels: np.ndarray, labels: np.ndarray) -> Digits:
    """Convert counts of on-pixels, 0 to 16, and labels to tensors."""
    images = torch.from_numpy(on_pixels / 16).float().view(-1, 1, 8, 8)
    return Digits(images, torch.from_numpy(labels).long())
