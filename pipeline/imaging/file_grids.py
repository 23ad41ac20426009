"""The grid that a volume's file describes, and a warning for whatever of it had to be guessed.

Every function gives the affine, voxel index (x, y, z, 1) to RAS+ mm, and warnings, one sentence
each, without the file's name.
"""

from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel import orientations
from numpy.typing import ArrayLike, NDArray

from pipeline.core.errors import UserError
from pipeline.imaging.geometry import LPS_TO_RAS, Geometry
from pipeline.imaging.grids import grid_difference

Grid = tuple[NDArray[np.float64], list[str]]

# of the left-atrium challenge's volumes, taken where an HDF5 file doesn't say
HDF5_SPACING_MM = 0.625
# attributes of an HDF5 file or of a data set in it
SPACING, AFFINE = "spacing", "affine"
NIFTI_UNITS = {"meter": 1000.0, "mm": 1.0, "micron": 0.001}  # in mm
NRRD_UNITS = {"m": 1000.0, "cm": 10.0, "mm": 1.0, "um": 0.001, "µm": 0.001}
# voxel sides beyond these, mm, are rather in another unit
LIKELY_MM = (0.02, 50.0)
STRAIGHT = 0.01  # cosine of two axes up to which a grid is not called sheared
SIDES = 1e-3  # share by which two records of a voxel's sides may differ
HEADER_BYTES = 100_000  # read of a text header


def of_nifti(header: nib.Nifti1Header, stored: nib.Nifti1Header) -> Grid:
    """The grid of a NIfTI file: its sform, else its qform, else its voxel sides alone.

    Args:
        header: with nibabel's repairs.
        stored: the same as it is in the file.
    """
    warnings = []
    affine = header.get_best_affine()
    if header["sform_code"] == 0:
        if (stored["pixdim"][1:4] == 0).any():
            warnings.append("the header's voxel sides (pixdim) hold 0; 1 mm was taken there.")
        if (stored["pixdim"][1:4] < 0).any():
            warnings.append(
                "the header's voxel sides (pixdim) hold negative numbers; their sign was ignored."
            )
        if header["qform_code"] == 0:
            axes = "".join(orientations.aff2axcodes(affine))
            warnings.append(
                f"qform and sform codes are 0: orientation and place are a guess ({axes}); left "
                "and right, or front and back, may be swapped."
            )
    elif difference := _of_the_other_forms(header, stored, affine):
        warnings.append(
            f"{difference}; the sform was taken, and programs that take the other see another grid."
        )
    try:
        unit = header.get_xyzt_units()[0]
    except KeyError:
        unit = "unknown"
        warnings.append(
            f"the unit of length has code {int(header['xyzt_units']) % 8}, none of NIfTI's; "
            "millimetres were taken."
        )
    scale = NIFTI_UNITS.get(unit, 1.0)
    if unit not in ("mm", "unknown"):
        warnings.append(f"the unit of length is {unit}; voxel sides were converted to mm.")
    return _scaled(affine, scale), warnings


def _of_the_other_forms(
    header: nib.Nifti1Header, stored: nib.Nifti1Header, sform: NDArray[np.float64]
) -> str | None:
    """How a NIfTI file's qform, or without one its voxel sides, differ from its sform, in words."""
    sizes = [int(side) for side in header.get_data_shape()]
    if len(sizes) < 3 or not is_usable(sform):
        return None  # refused later, by what is wrong
    shape = sizes[0], sizes[1], sizes[2]
    sides = np.abs(stored["pixdim"][1:4].astype(np.float64))
    expected = Geometry(shape, sform)
    if header["qform_code"] == 0:
        same = np.allclose(sides, expected.spacing, rtol=SIDES)
        shown = [" x ".join(f"{side:.4g}" for side in each) for each in (sides, expected.spacing)]
        return None if same else f"voxel sides of {shown[0]} (pixdim) and of {shown[1]} (sform)"
    try:
        qform = header.get_qform()
    except (ValueError, nib.spatialimages.HeaderDataError) as error:
        return f"the qform can't be read ({error})"
    if not is_usable(qform):
        return "the qform is no grid"
    difference = grid_difference(expected, Geometry(shape, qform))
    return None if difference is None else f"qform and sform disagree, the qform has {difference}"


def of_hdf5(path: Path, file: h5py.File, key: str) -> Grid:
    """The grid of an HDF5 file: its attribute `affine`, else `spacing`, else the left atrium's.

    `affine` is (4, 4), voxel index to RAS+ mm; `spacing` holds the sides along x, y and z in mm.
    Either belongs to the data set or to the file as a whole.

    Raises:
        UserError: an attribute that is neither.
    """
    attributes = {**file.attrs, **file[key].attrs}
    if AFFINE in attributes:
        affine = _numbers(attributes[AFFINE], (4, 4))
        if affine is None or not np.array_equal(affine[3], (0, 0, 0, 1)):
            raise UserError(
                f"{path}: attribute {AFFINE}: expected 4 x 4 numbers, voxel index to RAS+ mm, "
                f"found {_short(attributes[AFFINE])}."
            )
        return affine, []
    guess = "its axes were taken as growing to the patient's left, back and head"
    if SPACING not in attributes:
        side = HDF5_SPACING_MM
        return _lps((side, side, side)), [
            f"an HDF5 file without geometry: {side} mm along each axis is a guess, and {guess}; "
            f"attributes {SPACING} (mm along x, y, z) or {AFFINE} (4 x 4, to RAS+ mm) say it."
        ]
    spacing = _numbers(attributes[SPACING], (3,))
    if spacing is None or (spacing <= 0).any():
        raise UserError(
            f"{path}: attribute {SPACING}: expected 3 numbers above 0, mm along x, y and z, found "
            f"{_short(attributes[SPACING])}."
        )
    return _lps(spacing), [
        f"an HDF5 file without orientation: {guess}; attribute {AFFINE} (4 x 4, to RAS+ mm) says "
        "another."
    ]


def of_itk(path: Path, image: sitk.Image) -> Grid:
    """The grid of a three-dimensional NRRD or MetaImage file."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    fields = text_header(path)
    if path.suffix.lower() == ".nrrd":
        scale, warnings = _nrrd_scale(fields)
    else:
        scale, warnings = 1.0, _metaimage_gaps(fields)
    return LPS_TO_RAS @ _scaled(affine, scale), warnings


def text_header(path: Path) -> dict[str, str]:
    """Fields of the header of an NRRD or MetaImage file, names in lower case."""
    with open(path, "rb") as file:
        text = file.read(HEADER_BYTES)
    fields = {}
    for line in text.splitlines():
        if not line.strip():
            break
        name, found, value = line.decode("utf-8", "replace").replace(":=", "=").partition("=")
        if not found:
            name, _, value = name.partition(":")
        fields[name.strip().lower()] = value.strip()
        if name.strip().lower() == "elementdatafile":
            break
    return fields


def of_any(affine: NDArray[np.float64]) -> list[str]:
    """Warnings about a grid whatever its format: unlikely voxel sides, shear."""
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    warnings = []
    if sides.min() < LIKELY_MM[0] or sides.max() > LIKELY_MM[1]:
        shown = " x ".join(f"{side:.4g}" for side in sides)
        warnings.append(f"voxels of {shown} mm are unlike a patient's scan: is the unit right?")
    axes = affine[:3, :3] / sides
    cosine = np.abs(axes.T @ axes - np.eye(3)).max()
    if cosine > STRAIGHT:
        angle = np.degrees(np.arcsin(min(cosine, 1.0)))
        warnings.append(
            f"the grid is sheared (tilted gantry?): two axes are {angle:.1f} degrees from a right "
            "angle; distances and slices are taken as if they were straight."
        )
    return warnings


def is_usable(affine: NDArray[np.float64]) -> bool:
    """Whether the affine is finite and can be inverted."""
    if not np.isfinite(affine).all():
        return False
    volume = np.prod(np.linalg.norm(affine[:3, :3], axis=0))
    # with an axis of no length, or two parallel ones, there is no canonical order
    return bool(abs(np.linalg.det(affine[:3, :3])) > 1e-6 * volume > 0)


def _nrrd_scale(fields: dict[str, str]) -> tuple[float, list[str]]:
    """Millimetres in the unit of an NRRD file, and what its header leaves open."""
    warnings = []
    if "space" not in fields and "space dimension" not in fields:
        sides = "" if "spacings" in fields else " and voxel sides of 1 mm"
        warnings.append(
            f"an NRRD file without orientation: axes to the patient's left, back and head{sides} "
            "are a guess."
        )
    elif "space" not in fields or fields["space"].lower().startswith("scanner"):
        warnings.append(
            "an NRRD file that doesn't name its space: left-posterior-superior was taken."
        )
    units = {unit.strip('"') for unit in fields.get("space units", "").split()} - {"", "mm"}
    if not units:
        return 1.0, warnings
    shown = ", ".join(sorted(units))
    if shown in NRRD_UNITS:
        warnings.append(f"the unit of length is {shown}; voxel sides were converted to mm.")
        return NRRD_UNITS[shown], warnings
    warnings.append(f"the unit of length is {shown}, which is not known; millimetres were taken.")
    return 1.0, warnings


def _metaimage_gaps(fields: dict[str, str]) -> list[str]:
    """What the header of a MetaImage file leaves open."""
    warnings = []
    if not fields.keys() & {"elementspacing", "elementsize"}:
        warnings.append("a MetaImage file without ElementSpacing: voxel sides of 1 mm are a guess.")
    if not fields.keys() & {"transformmatrix", "orientation", "rotation"}:
        warnings.append(
            "a MetaImage file without TransformMatrix: axes to the patient's left, back and head "
            "are a guess."
        )
    return warnings


def _lps(spacing: ArrayLike) -> NDArray[np.float64]:
    return LPS_TO_RAS @ np.diag([*np.asarray(spacing, np.float64), 1.0])


def _scaled(affine: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    return np.diag([scale, scale, scale, 1.0]) @ affine


def _numbers(value: Any, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """An attribute as finite numbers of a shape, a flat list of as many taken too; else None."""
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return None
    if array.size != np.prod(shape) or not np.isfinite(array).all():
        return None
    return array.reshape(shape)


def _short(value: Any) -> str:
    """An attribute's value on one short line."""
    return " ".join(str(value).split())[:80]
