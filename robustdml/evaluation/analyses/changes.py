"""Changes that nobody makes on purpose: the 15 common corruptions of Hendrycks & Dietterich 2019, and simple geometry.

Each takes an image and gives one of the same size; what is drawn at random comes from a generator that is handed in.
The strengths are the published ones of CIFAR-10-C (made for 32 pixels) below 85 pixels and of ImageNet-C (224) above,
with lengths scaled to the size of the image. Three are not the published procedure, but one like it: glass blur takes
the value of a random neighbour where the published code swaps one pixel after the other; fog is a sum of octaves of
value noise, each weaker by the published factor, where it was a diamond-square surface; frost, for which photographs
were used, is drawn of ridges of such noise. So the numbers are not those of ImageNet-C, and comparable among models
evaluated here.

Geometry is about as far as Engstrom et al. 2019 go at severity 5 (rotation by 30 degrees, shift by a tenth of the
side), evenly from nothing; what comes into view beyond an edge repeats the edge.

Images: ``(H, W, 3)`` float64 in [0, 1].
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from robustdml.registry import Registry

Floats = npt.NDArray[np.float64]
Random = np.random.Generator

#: The kinds of change, in the order of tables; all but the last are the common corruptions.
Family = Literal["noise", "blur", "weather", "digital", "geometry"]

#: The published sets by the side of their images, and at which side the larger one begins: the geometric mean of both.
_SIDES, _LARGE = (32, 224), 85


@dataclass(frozen=True)
class Change:
    """A change in several severities.

    Args:
        title: for tables.
        family: what kind it is.
        strengths: the parameters of each severity, the mildest first: for small images, and for large ones.
        apply: from an image, a generator, a scale (1 at the size that the strengths were made for) and the parameters
            to an image, which need not lie in [0, 1].
    """

    title: str
    family: Family
    strengths: tuple[tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]]
    apply: Callable[..., Floats]

    @property
    def severities(self) -> int:
        """How many there are; severities count from 1."""
        return len(self.strengths[0])

    def __call__(self, image: Floats, severity: int, random: Random) -> Floats:
        """The changed image, ``(H, W, 3)``, rounded to 8 bits, as a camera or a file would have it."""
        side = min(image.shape[:2])
        large = int(side >= _LARGE)
        # Lengths below those of 32 pixels would be fractions of a pixel, which change nothing.
        scale = max(side, _SIDES[0]) / _SIDES[large]
        changed = self.apply(image, random, scale, *self.strengths[large][severity - 1])
        rounded: Floats = np.round(255 * np.clip(changed, 0, 1)) / 255
        return rounded


def _gaussian_noise(image: Floats, random: Random, scale: float, sigma: float) -> Floats:
    return image + random.normal(0, sigma, image.shape)


def _shot_noise(image: Floats, random: Random, scale: float, photons: float) -> Floats:
    return random.poisson(image * photons) / photons


def _impulse_noise(image: Floats, random: Random, scale: float, share: float) -> Floats:
    salt = (random.random(image.shape) < 0.5).astype(np.float64)
    return np.where(random.random(image.shape) < share, salt, image)


def _blurred(image: Floats, sigma: float) -> Floats:
    soft: Floats = ndimage.gaussian_filter(image, (sigma, sigma, *(0,) * (image.ndim - 2)), mode="nearest")
    return soft


def _defocus_blur(image: Floats, random: Random, scale: float, radius: float, alias: float) -> Floats:
    radius *= scale
    reach = math.ceil(radius) + 2
    grid = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    disk = ndimage.gaussian_filter((grid <= radius).astype(np.float64), alias, radius=2)
    found: Floats = ndimage.convolve(image, (disk / disk.sum())[..., None], mode="mirror")
    return found


def _glass_blur(image: Floats, random: Random, scale: float, sigma: float, reach: float, times: float) -> Floats:
    found, far = _blurred(image, sigma * scale), max(1, round(reach * scale))
    places, last = np.indices(image.shape[:2]), np.array(image.shape[:2])[:, None, None] - 1
    for _ in range(int(times)):
        moved = np.clip(places + random.integers(-far, far + 1, places.shape), 0, last)
        found = found[moved[0], moved[1]]
    return _blurred(found, sigma * scale)


def _smeared(image: Floats, radius: float, sigma: float, degrees: float) -> Floats:
    """A trail behind each point: half a Gaussian along a direction."""
    steps = np.arange(2 * round(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    along = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    shifts = ((step * along[0], step * along[1], *(0,) * (image.ndim - 2)) for step in steps)
    parts = (ndimage.shift(image, shift, order=1, mode="nearest") for shift in shifts)
    total = sum(weight * part for weight, part in zip(weights, parts, strict=True))
    return np.asarray(total / weights.sum())


def _motion_blur(image: Floats, random: Random, scale: float, radius: float, sigma: float) -> Floats:
    return _smeared(image, radius * scale, sigma * scale, random.uniform(-45, 45))


def _zoomed(image: Floats, factor: float) -> Floats:
    middle = (np.array(image.shape[:2]) - 1) / 2
    return _mapped(image, np.eye(2) / factor, middle - middle / factor)


def _mapped(image: Floats, matrix: Floats, offset: Floats) -> Floats:
    """The image whose point y shows what was at ``matrix y + offset``."""
    full, start = np.eye(image.ndim), np.zeros(image.ndim)
    full[:2, :2], start[:2] = matrix, offset
    found: Floats = ndimage.affine_transform(image, full, start, order=1, mode="nearest")
    return found


def _zoom_blur(image: Floats, random: Random, scale: float, farthest: float, step: float) -> Floats:
    zooms = np.arange(1, farthest, step)
    total = image + sum(_zoomed(image, zoom) for zoom in zooms)
    return np.asarray(total / (len(zooms) + 1))


def _clouds(shape: tuple[int, ...], random: Random, decay: float) -> Floats:
    """Value noise ``(H, W)`` in [0, 1]; its octaves, from the whole image to a pixel, weaken by ``decay`` squared."""
    total, amplitude, cells = np.zeros(shape), 1.0, 1
    while True:
        knots = random.uniform(-1, 1, (cells + 1, cells + 1))
        places = np.meshgrid(*(np.linspace(0, cells, side) for side in shape), indexing="ij")
        total += amplitude * ndimage.map_coordinates(knots, places, order=1)
        if 2 * cells > max(shape):
            break
        cells, amplitude = 2 * cells, amplitude / decay**2
    lowest = total.min()
    return np.asarray((total - lowest) / max(total.max() - lowest, 1e-12))


def _snow(
    image: Floats, random: Random, scale: float, mean: float, spread: float, zoom: float, least: float, radius: float,
    sigma: float, kept: float,
) -> Floats:  # fmt: skip
    flakes = _zoomed(random.normal(mean, spread, image.shape[:2]), zoom)
    flakes = np.where(flakes < least, 0, flakes).clip(0, 1)
    flakes = _smeared(flakes, radius * scale, sigma * scale, random.uniform(-135, -45))[..., None]
    grey = image @ np.array([0.299, 0.587, 0.114])
    pale = np.maximum(image, 1.5 * grey[..., None] + 0.5)
    return np.asarray(kept * image + (1 - kept) * pale + flakes + flakes[::-1, ::-1])


def _frost(image: Floats, random: Random, scale: float, kept: float, ice: float) -> Floats:
    ridges = 1 - np.abs(2 * _clouds(image.shape[:2], random, 1.2) - 1)
    crystals = ridges[..., None] ** 1.5 * np.array([0.85, 0.95, 1.0])
    return np.asarray(kept * image + ice * crystals)


def _fog(image: Floats, random: Random, scale: float, strength: float, decay: float) -> Floats:
    brightest = max(float(image.max()), 1e-12)
    thick = image + strength * _clouds(image.shape[:2], random, decay)[..., None]
    return np.asarray(thick * brightest / (brightest + strength))


def _brightness(image: Floats, random: Random, scale: float, added: float) -> Floats:
    """The value of hue, saturation and value is raised."""
    value = image.max(2, keepdims=True)
    raised = np.minimum(value + added, 1)
    return np.asarray(np.where(value > 0, image * raised / np.maximum(value, 1e-12), raised))


def _contrast(image: Floats, random: Random, scale: float, kept: float) -> Floats:
    mean = image.mean((0, 1))
    return np.asarray((image - mean) * kept + mean)


def _elastic(image: Floats, random: Random, scale: float, strength: float, sigma: float, jitter: float) -> Floats:
    """Three points moved at random, then a smooth field of displacements; all lengths in sides of the image."""
    side = min(image.shape[:2])
    middle, third = np.array(image.shape[:2]) // 2, side // 3
    before = np.array([middle + third, [middle[0] + third, middle[1] - third], middle - third], np.float64)
    after = before + random.uniform(-jitter * side, jitter * side, before.shape)
    solved = np.linalg.lstsq(np.column_stack([after, np.ones(3)]), before, rcond=None)[0]
    turned = _mapped(image, solved[:2].T, solved[2])
    field = random.uniform(-1, 1, (2, *image.shape[:2]))
    soft = (
        [ndimage.gaussian_filter(part, sigma * side, mode="reflect", truncate=3) for part in field] if sigma else field
    )
    places = np.indices(image.shape[:2]) + strength * side * np.asarray(soft)
    parts = [ndimage.map_coordinates(turned[..., channel], places, order=1, mode="reflect") for channel in range(3)]
    return np.stack(parts, 2)


def _pixelate(image: Floats, random: Random, scale: float, kept: float) -> Floats:
    size = image.shape[1], image.shape[0]
    small = _picture(image).resize((max(1, int(size[0] * kept)), max(1, int(size[1] * kept))), Image.Resampling.BOX)
    return np.asarray(small.resize(size, Image.Resampling.BOX)) / 255


def _jpeg(image: Floats, random: Random, scale: float, quality: float) -> Floats:
    file = io.BytesIO()
    _picture(image).save(file, "JPEG", quality=int(quality))
    return np.asarray(Image.open(file)) / 255


def _picture(image: Floats) -> Image.Image:
    return Image.fromarray(np.round(255 * image).astype(np.uint8))


def _turned(image: Floats, random: Random, scale: float, degrees: float) -> Floats:
    angle = math.radians(degrees) * random.choice([-1, 1])
    matrix = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    middle = (np.array(image.shape[:2]) - 1) / 2
    return _mapped(image, matrix, middle - matrix @ middle)


def _moved(image: Floats, random: Random, scale: float, share: float) -> Floats:
    """Up or down and left or right, each by that share of the side."""
    return _mapped(image, np.eye(2), share * np.array(image.shape[:2]) * random.choice([-1, 1], 2))


def _resized(image: Floats, random: Random, scale: float, change: float) -> Floats:
    """Larger or smaller about the middle."""
    return _zoomed(image, (1 + change) ** int(random.choice([-1, 1])))


def _cropped(image: Floats, random: Random, scale: float, kept: float) -> Floats:
    """A part somewhere in the image, enlarged to its size."""
    sides = np.array(image.shape[:2]) - 1
    return _mapped(image, kept * np.eye(2), random.uniform(0, 1 - kept, 2) * sides)


def _flipped(image: Floats, random: Random, scale: float) -> Floats:
    return image[:, ::-1]


def _each(*values: float) -> tuple[tuple[float, ...], ...]:
    return tuple((value,) for value in values)


CHANGES: Registry[Change] = Registry("change")

_PUBLISHED: Mapping[str, Change] = {
    "gaussian-noise": Change(
        "Gaussian noise", "noise",
        (_each(0.04, 0.06, 0.08, 0.09, 0.10), _each(0.08, 0.12, 0.18, 0.26, 0.38)), _gaussian_noise,
    ),
    "shot-noise": Change("shot noise", "noise", (_each(500, 250, 100, 75, 50), _each(60, 25, 12, 5, 3)), _shot_noise),
    "impulse-noise": Change(
        "impulse noise", "noise",
        (_each(0.01, 0.02, 0.03, 0.05, 0.07), _each(0.03, 0.06, 0.09, 0.17, 0.27)), _impulse_noise,
    ),
    "defocus-blur": Change(
        "defocus blur", "blur",
        (((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
         ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))), _defocus_blur,
    ),
    "glass-blur": Change(
        "glass blur", "blur",
        (((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
         ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))), _glass_blur,
    ),
    "motion-blur": Change(
        "motion blur", "blur",
        (((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)), ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))), _motion_blur,
    ),
    "zoom-blur": Change(
        "zoom blur", "blur",
        (((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
         ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))), _zoom_blur,
    ),
    "snow": Change(
        "snow", "weather",
        (((0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
          (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8)),
         ((0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
          (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55))), _snow,
    ),
    "frost": Change(
        "frost", "weather",
        (((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
         ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))), _frost,
    ),
    "fog": Change(
        "fog", "weather",
        (((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)), ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
        _fog,
    ),
    "brightness": Change(
        "brightness", "weather", (_each(0.05, 0.1, 0.15, 0.2, 0.3), _each(0.1, 0.2, 0.3, 0.4, 0.5)), _brightness
    ),
    "contrast": Change(
        "contrast", "digital", (_each(0.75, 0.5, 0.4, 0.3, 0.15), _each(0.4, 0.3, 0.2, 0.1, 0.05)), _contrast
    ),
    "elastic": Change(
        "elastic transform", "digital",
        (((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
         ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))), _elastic,
    ),
    "pixelate": Change(
        "pixelate", "digital", (_each(0.95, 0.9, 0.85, 0.75, 0.65), _each(0.6, 0.5, 0.4, 0.3, 0.25)), _pixelate
    ),
    "jpeg": Change("JPEG", "digital", (_each(80, 65, 58, 50, 40), _each(25, 18, 15, 10, 7)), _jpeg),
}  # fmt: skip


def _geometry(title: str, apply: Callable[..., Floats], *strengths: tuple[float, ...]) -> Change:
    return Change(title, "geometry", (strengths, strengths), apply)


for _name, _change in {
    **_PUBLISHED,
    "rotation": _geometry("rotation", _turned, *_each(6, 12, 18, 24, 30)),
    "shift": _geometry("shift", _moved, *_each(0.02, 0.04, 0.06, 0.08, 0.1)),
    "scale": _geometry("scale", _resized, *_each(0.05, 0.1, 0.15, 0.2, 0.3)),
    "crop": _geometry("crop", _cropped, *_each(0.95, 0.9, 0.85, 0.8, 0.7)),
    "flip": _geometry("left and right swapped", _flipped, ()),
}.items():
    CHANGES.add(_name, _change)


def every_change() -> Iterator[tuple[str, Change, int]]:
    """Name, change and severity, of all."""
    for name, change in CHANGES.items():
        for severity in range(1, change.severities + 1):
            yield name, change, severity
