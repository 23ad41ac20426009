"""The phantom data set: CT-like abdomens with eight organs, made on the spot, in Synapse's layout.

Every volume is drawn in a body frame: X from the patient's right (-1) to the left (1) and Y from
front (-1) to back (1), both in half widths of the body, Z from the lowest slice (0) to the highest
(1). Shapes are ellipsoids and tubes in that frame after a smooth random deformation; intensities
are HU of a portal venous scan. Labels are BTCV's numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from nibabel import orientations
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.core.console import steps
from pipeline.datasets import synapse
from pipeline.imaging import volumes
from pipeline.imaging.geometry import CANONICAL, Geometry, from_slices

Array = NDArray[np.floating]
# Through-plane samples that are averaged into one thick slice.
SUBSLICES = 3
# How each file stores its axes: BTCV's LAS mostly, others to try the readers.
ORIENTATIONS = ("LAS", "LAS", "RAS", "LAS", "LPS", "LAS", "PIR", "LAS")
LABELS = {organ: raws[0] for organ, raws in synapse.ORGANS.items()}
ESOPHAGUS, VENA_CAVA = 5, 9


Bounds = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
EVERYWHERE: Bounds = ((-9, 9), (-9, 9), (-9, 9))


@dataclass(frozen=True)
class Frame:
    """Sample points in the body frame (see the module) and the body's size.

    Attributes:
        x, y, z: (slices, rows, columns) float32.
        half_mm: half width, half depth and height of the body in mm.
        blur_mm: width of an edge, about one voxel.
    """

    x: Array
    y: Array
    z: Array
    half_mm: tuple[float, float, float]
    blur_mm: float

    @cached_property
    def extents(self) -> list[tuple[Array, Array]]:
        """For z, y, x: the lowest and highest value in each slice, row, column."""
        pairs = []
        for axis, values in enumerate((self.z, self.y, self.x)):
            others = tuple(other for other in range(3) if other != axis)
            pairs.append((values.min(others), values.max(others)))
        return pairs

    @cached_property
    def outline(self) -> Array:
        """1 on the skin, 0 in the middle: a rounded box."""
        return (np.abs(self.x) ** 2.4 + np.abs(self.y) ** 2.4) ** (1 / 2.4)

    def box(self, bounds: Bounds) -> tuple[slice, ...]:
        """The smallest block of samples that holds every one within `bounds`."""
        block = []
        for (lowest, highest), (low, high) in zip(self.extents, bounds[::-1], strict=True):
            places = np.flatnonzero((highest >= low) & (lowest <= high))
            block.append(slice(places[0], places[-1] + 1) if places.size else slice(0, 0))
        return tuple(block)

    def part(self, block: tuple[slice, ...]) -> "Frame":
        """The samples of a block."""
        return Frame(self.x[block], self.y[block], self.z[block], self.half_mm, self.blur_mm)


@dataclass(frozen=True)
class Form:
    """A shape: `cover` gives the share of each sample that it fills, 0 outside `bounds`."""

    cover: Callable[[Frame], Array]
    bounds: Bounds = EVERYWHERE


@dataclass(frozen=True)
class Tissue:
    """A form filled with one intensity, and its label in BTCV's numbers."""

    hu: float
    form: Form
    label: int = 0


def run(out: Path, cases: int, seed: int, size: int = 128) -> None:
    """Write the volumes of cases 1 to `cases` below `out`; files already there are kept.

    Args:
        out: root of the data set: Training/img/imgNNNN.nii.gz, Training/label/labelNNNN.nii.gz.
        cases: how many; each depends on its number, `seed` and `size` alone.
        seed: of the anatomy and the noise.
        size: in-plane side in voxels.
    """
    with steps("phantom", cases) as progress:
        for number in range(1, cases + 1):
            image, label, affine = make_case(seed, number, size)
            case = synapse.case_id(number)
            volumes.write_nifti(synapse.image_path(Path(out), case), image, affine)
            volumes.write_nifti(synapse.label_path(Path(out), case), label, affine)
            progress.advance(case)


def make_case(
    seed: int, number: int, size: int
) -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float64]]:
    """Make one phantom, a synthetic abdominal CT volume with its label volume.

    Returns:
        Image (x, y, z) int16 in HU, label (x, y, z) uint8 in BTCV's numbers, affine (4, 4) to RAS
        mm. Axes are stored in one of `ORIENTATIONS`.
    """
    rng = np.random.Generator(np.random.Philox(key=[seed, number]))
    slices, thickness = int(rng.integers(18, 29)), float(rng.uniform(4, 6))
    half_width = rng.uniform(135, 165)
    half_depth = half_width * rng.uniform(0.66, 0.76)
    pixel = 2 * half_width * rng.uniform(1.12, 1.25) / size
    half = (half_width, half_depth, slices * thickness)
    tissues = list(_anatomy(rng, half, gallbladder=number % 8 != 2))
    frame = _frame((slices, size, size), half, pixel, rng)

    image = np.zeros((slices, size, size), np.float32)
    label = np.zeros(image.shape, np.uint8)
    for sample in range(SUBSLICES):
        offset = ((sample + 0.5) / SUBSLICES - 0.5) / slices
        painted, classes = _paint(replace(frame, z=frame.z + np.float32(offset)), tissues)
        image += painted / SUBSLICES
        # the label is that of the slice's middle
        label = classes if sample == SUBSLICES // 2 else label
    scanned = _scan(image, rng)

    spacing = (thickness, pixel, pixel)
    geometry = _geometry(image.shape, spacing, ORIENTATIONS[(number - 1) % len(ORIENTATIONS)], rng)
    return (
        from_slices(scanned, geometry, CANONICAL),
        from_slices(label, geometry, CANONICAL),
        geometry.affine,
    )


def _anatomy(
    rng: Generator, half: tuple[float, float, float], *, gallbladder: bool
) -> Iterator[Tissue]:
    """One patient's tissues in the order of painting: later ones cover earlier ones."""

    def near(value: float, spread: float = 0.03) -> float:
        return float(value + np.clip(rng.normal(0, spread), -2 * spread, 2 * spread))

    def scaled(*radii: float) -> tuple[float, ...]:
        size = np.clip(rng.normal(1, 0.09), 0.84, 1.2)
        return tuple(float(radius * size * rng.uniform(0.93, 1.07)) for radius in radii)

    def ellipsoid(center: tuple[float, ...], radii: tuple[float, ...], tilt: float = 0) -> Form:
        return _ellipsoid(center, radii, half, tilt)

    def tube(points: list[tuple[float, float, float]], radius: float) -> Form:
        return _tube(points, radius, half)

    contrast = rng.uniform(0.88, 1.12)
    wall = rng.uniform(0.82, 0.90)
    yield Tissue(-105, _cylinder(1.0))
    yield Tissue(55, _cylinder(wall))
    yield Tissue(-95, _cylinder(wall - 0.09))
    yield Tissue(430, _ribs(wall - 0.045, rng.uniform(0, 6)))
    for _ in range(16):
        place = (rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.1), rng.uniform(-0.1, 0.42))
        loop = ellipsoid(place, tuple(rng.uniform(0.08, 0.18, 3)), rng.uniform(-1, 1))
        yield Tissue(float(rng.uniform(10, 60)), loop)
        if rng.random() < 0.3:
            yield Tissue(-600, _gas(loop, place[1] - 0.04))
    yield Tissue(-830, _lung(wall - 0.11))

    # back: muscles, spine with a denser rim, spinal canal
    for side in (-1, 1):
        yield Tissue(60, ellipsoid((side * 0.27, 0.66, 0.5), (0.19, 0.18, 9)))
        yield Tissue(58, ellipsoid((side * 0.24, 0.42, 0.1), (0.10, 0.13, 0.5)))
    yield Tissue(480, ellipsoid((0, 0.50, 0.5), (0.155, 0.185, 9)))
    yield Tissue(230, ellipsoid((0, 0.50, 0.5), (0.125, 0.15, 9)))
    yield Tissue(420, ellipsoid((0, 0.80, 0.5), (0.05, 0.16, 9)))
    yield Tissue(30, ellipsoid((0, 0.71, 0.5), (0.065, 0.06, 9)))

    tilt = near(0, 0.12)
    right_lobe = ellipsoid(
        (near(-0.42, 0.02), near(-0.02), near(0.66)), scaled(0.38, 0.56, 0.42), tilt
    )
    left_lobe = ellipsoid((near(-0.08), near(-0.40), near(0.76)), scaled(0.44, 0.26, 0.24), tilt)
    yield Tissue(108 * contrast, _union(right_lobe, left_lobe), LABELS["liver"])
    spleen = ellipsoid((near(0.60), near(0.26), near(0.68)), scaled(0.16, 0.32, 0.26), -0.3)
    yield Tissue(125 * contrast, spleen, LABELS["spleen"])

    place = (near(0.36), near(-0.28), near(0.70))
    stomach = ellipsoid(place, scaled(0.25, 0.30, 0.25), 0.3)
    yield Tissue(near(38, 6), stomach, LABELS["stomach"])
    yield Tissue(-700, _gas(stomach, place[1] - near(0.18, 0.03)), LABELS["stomach"])

    height = near(0.46)
    pancreas = [
        (-0.16, near(-0.02), height - 0.08),
        (0.10, near(-0.16), height),
        (0.46, near(0.06), height + 0.10),
    ]
    yield Tissue(92 * contrast, tube(pancreas, near(0.105, 0.006)), LABELS["pancreas"])
    for name, side, level in (("right kidney", -1, 0.30), ("left kidney", 1, 0.36)):
        x, y, z = side * near(0.37), near(0.36), near(level)
        kidney = ellipsoid((x, y, z), scaled(0.15, 0.18, 0.26))
        yield Tissue(182 * contrast, kidney, LABELS[name])
        # the sinus: fat that enters from the middle
        yield Tissue(-60, ellipsoid((x - side * 0.13, y, z), (0.09, 0.05, 0.08)))
    if gallbladder:
        place = (near(-0.26), near(-0.44), near(0.42))
        yield Tissue(near(12, 4), ellipsoid(place, scaled(0.11, 0.16, 0.17)), LABELS["gallbladder"])

    x = near(0.08, 0.01)
    aorta = [(x, 0.24, -0.2), (x - 0.02, 0.22, 0.5), (x + 0.01, 0.26, 1.2)]
    yield Tissue(205 * contrast, tube(aorta, near(0.085, 0.004)), LABELS["aorta"])
    cava = [(-0.12, 0.24, -0.2), (-0.13, 0.20, 0.5), (-0.14, 0.12, 1.2)]
    yield Tissue(135 * contrast, tube(cava, near(0.08, 0.005)), VENA_CAVA)
    yield Tissue(48, tube([(0.14, -0.06, 0.86), (0.10, 0.02, 1.2)], 0.06), ESOPHAGUS)


def _ellipsoid(
    center: tuple[float, ...], radii: tuple[float, ...], half: tuple[float, ...], tilt: float = 0.0
) -> Form:
    """Body frame; `tilt` in radians turns it about the body's long axis."""
    # turned in mm, so that the angle is a real one
    r = [radius * side for radius, side in zip(radii, half, strict=True)]
    cos, sin = np.cos(tilt), np.sin(tilt)
    reach = (np.hypot(r[0] * cos, r[1] * sin), np.hypot(r[0] * sin, r[1] * cos), r[2])

    def cover(frame: Frame) -> Array:
        across = (frame.x - center[0]) * half[0]
        deep = (frame.y - center[1]) * half[1]
        u = (cos * across + sin * deep) / r[0]
        v = (cos * deep - sin * across) / r[1]
        w = (frame.z - center[2]) * (half[2] / r[2])
        return _edge((1 - np.sqrt(u * u + v * v + w * w)) * min(r), frame)

    return Form(cover, _around(center, [side / h for side, h in zip(reach, half, strict=True)]))


def _tube(points: list[tuple[float, float, float]], radius: float, half: tuple[float, ...]) -> Form:
    """Around the straight pieces between `points`; `radius` in half widths of the body."""
    r = radius * half[0]

    def cover(frame: Frame) -> Array:
        here = (frame.x * half[0], frame.y * half[1], frame.z * half[2])
        squares = []
        for start, end in zip(points[:-1], points[1:], strict=True):
            first = [p * h for p, h in zip(start, half, strict=True)]
            step = [(q - p) * h for p, q, h in zip(start, end, half, strict=True)]
            along = sum((c - p) * s for c, p, s in zip(here, first, step, strict=True))
            along = np.clip(along / sum(s * s for s in step), 0, 1)
            gaps = (c - p - along * s for c, p, s in zip(here, first, step, strict=True))
            x, y, z = (gap * gap for gap in gaps)
            squares.append(x + y + z)
        return _edge(r - np.sqrt(np.minimum.reduce(squares)), frame)

    reach = [r / side for side in half]
    return Form(cover, _hull(*(_around(point, reach) for point in points)))


def _cylinder(radius: float) -> Form:
    """The body's outline, shrunk to `radius`; the same in every slice."""
    return Form(lambda frame: _edge((radius - frame.outline) * frame.half_mm[1], frame))


def _ribs(radius: float, phase: float) -> Form:
    """Bone within the wall, in places that move along the wall from slice to slice."""

    def cover(frame: Frame) -> Array:
        angle = np.arctan2(frame.y, frame.x)
        beside = np.cos(7 * angle + phase + 14 * frame.z * np.sign(frame.x))
        in_wall = 4.5 - np.abs(frame.outline - radius) * frame.half_mm[1]
        return _edge(np.minimum(in_wall, (beside - 0.6) * 12), frame)

    return Form(cover)


def _lung(radius: float) -> Form:
    """Above the diaphragm, which is high in the middle and low at the wall."""

    def cover(frame: Frame) -> Array:
        outline = frame.outline
        above = (frame.z - 1.06 + 0.42 * (outline / radius) ** 2) * frame.half_mm[2]
        return _edge(np.minimum(above, (radius - outline) * frame.half_mm[1]), frame)

    return Form(cover, ((-9, 9), (-9, 9), (0.6, 9)))


def _gas(organ: Form, level: float) -> Form:
    """The part of a hollow organ in front of `level` (Y): where gas is in a patient on the back."""

    def cover(frame: Frame) -> Array:
        return np.minimum(_edge((level - frame.y) * frame.half_mm[1], frame), organ.cover(frame))

    return Form(cover, organ.bounds)


def _union(*parts: Form) -> Form:
    return Form(
        lambda frame: np.maximum.reduce([part.cover(frame) for part in parts]),
        _hull(*(part.bounds for part in parts)),
    )


def _around(center: tuple[float, ...], reach: Sequence[float]) -> Bounds:
    # an edge is blurred outwards too
    x, y, z = ((c - r - 0.05, c + r + 0.05) for c, r in zip(center, reach, strict=True))
    return x, y, z


def _hull(*bounds: Bounds) -> Bounds:
    axes = zip(*bounds, strict=True)
    x, y, z = ((min(low for low, _ in axis), max(high for _, high in axis)) for axis in axes)
    return x, y, z


def _edge(depth_mm: Array, frame: Frame) -> Array:
    """Depth below a surface -> share of the voxel that is filled, 0 to 1."""
    return np.clip(depth_mm / frame.blur_mm + 0.5, 0, 1).astype(np.float32)


def _frame(
    shape: tuple[int, int, int],
    half: tuple[float, float, float],
    pixel: float,
    rng: Generator,
) -> Frame:
    """The middle of every voxel of a volume (slices, rows, columns), bent by a smooth field."""
    slices, rows, columns = shape
    center = rng.uniform(-0.04, 0.04, 2)
    x = (np.arange(columns) - (columns - 1) / 2) * pixel / half[0] - center[0]
    y = (np.arange(rows) - (rows - 1) / 2) * pixel / half[1] - center[1]
    z = (np.arange(slices) + 0.5) / slices
    # a few control points an axis, joined by cubic splines
    splines = [
        ndimage.zoom(np.eye(knots), (side / knots, 1), order=3, mode="nearest", grid_mode=True)
        for side, knots in zip(shape, (4, 5, 5), strict=True)
    ]
    knots = rng.normal(0, [[[[0.045]]], [[[0.045]]], [[[0.03]]]], (3, 4, 5, 5))
    bend = np.einsum("cijk,zi,yj,xk->czyx", knots, *splines, optimize=True)
    points = (x + bend[0], y[:, None] + bend[1], z[:, None, None] + bend[2])
    bent_x, bent_y, bent_z = (point.astype(np.float32) for point in points)
    return Frame(bent_x, bent_y, bent_z, half, pixel)


def _paint(frame: Frame, tissues: list[Tissue]) -> tuple[Array, NDArray[np.uint8]]:
    """HU and labels at the sample points; air where nothing is."""
    image = np.full(frame.x.shape, -1000, np.float32)
    label = np.zeros(frame.x.shape, np.uint8)
    for tissue in tissues:
        block = frame.box(tissue.form.bounds)
        cover = tissue.form.cover(frame.part(block))
        image[block] += cover * (tissue.hu - image[block])
        label[block][cover >= 0.5] = tissue.label
    return image, label


def _scan(image: Array, rng: Generator) -> NDArray[np.int16]:
    """What a scanner adds: in-plane blur, uneven tissue and noise of 10 to 15 HU."""
    image = ndimage.gaussian_filter(image, (0, 0.45, 0.45))
    tissue = ndimage.gaussian_filter(rng.normal(size=image.shape).astype(np.float32), (1, 3, 3))
    image += tissue * (6 / tissue.std())
    noise = ndimage.gaussian_filter(rng.normal(size=image.shape).astype(np.float32), (0, 0.4, 0.4))
    image += noise * (rng.uniform(10, 15) / noise.std())
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16)


def _geometry(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    codes: str,
    rng: Generator,
) -> Geometry:
    """The grid of a canonical volume (slice, row, column) stored along `codes`.

    The middle of the volume lies near the scanner's origin.
    """
    source = orientations.axcodes2ornt(tuple(codes))
    body = orientations.axcodes2ornt(CANONICAL)
    affine = np.eye(4)
    stored = []
    for axis, (direction, sign) in enumerate(source):
        canonical = int(np.flatnonzero(body[:, 0] == direction)[0])
        stored.append(shape[canonical])
        affine[:3, axis] = 0
        affine[int(direction), axis] = sign * spacing[canonical]
    middle = (np.array(stored) - 1) / 2
    affine[:3, 3] = rng.uniform(-30, 30, 3).round(2) - affine[:3, :3] @ middle
    return Geometry((stored[0], stored[1], stored[2]), affine)
