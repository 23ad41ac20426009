"""Pixels of DICOM images: stored values, and what they mean (CT: HU).

All stored values go through one decoder, GDCM's, by way of a temporary file that says nothing but
how they are stored: slope, table and the polarity of the display are applied here.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import apply_modality_lut
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    generate_uid,
)

from pipeline.core.errors import UserError

# tags that describe how pixels are stored
FORM = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
# markers of a frame header: those of JPEG without DHT, JPG and DAC, and that of JPEG-LS
FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
# modalities whose values are measurements, however they are to be displayed
MEASURED = ("CT", "PT", "NM")


class PixelReader:
    """Reads images one by one, as a context manager; it keeps the last file's header and bytes."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._file = Dataset()

    def __enter__(self) -> "PixelReader":
        return self

    def __exit__(self, *error: object) -> None:
        self._path, self._file = None, Dataset()

    def read(self, path: Path, header: Dataset, frame: int | None = None) -> NDArray[Any]:
        """Pixels (rows, columns) of a single-frame file, or of one frame of a multi-frame file.

        Args:
            path: the file.
            header: of the image, or of the frame from `frames.frame_headers`.
            frame: index from 0; None for a single-frame file.

        Returns:
            The values that slope and intercept or the modality table give. Images of a modality
            not in MEASURED for which `is_inverted` are inverted first, within the stored bits.

        Raises:
            UserError: the pixels are damaged or truncated, or the table can't be applied.
        """
        where = f"{path}" if frame is None else f"{path}: frame {frame + 1}"
        try:
            if self._path != path:
                self._path, self._file = path, pydicom.dcmread(path, force=True)
            _check_bits(where, self._file)
            stored = _decode(self._file, frame or 0)
        except UserError:
            raise
        except OSError as error:  # no room for the temporary file
            reason = error.strerror or type(error).__name__
            raise UserError(f"{where}: its voxels can't be read ({reason}).") from None
        except Exception:  # decoders and pydicom raise errors of many types
            raise UserError(
                f"{where}: its voxels can't be read, they are damaged or truncated; get it again."
            ) from None
        if is_inverted(header):
            stored = _inverted(stored, self._file)
        if not header.get("ModalityLUTSequence"):
            return _rescaled(stored, header)
        try:
            return _looked_up(stored, header, self._file)
        except Exception as error:
            raise UserError(
                f"{where}: its ModalityLUTSequence can't be applied ({error}); convert the series "
                "to NIfTI."
            ) from None


def is_inverted(header: Dataset) -> bool:
    """Whether the voxels have to be turned round for high values to be bright.

    MONOCHROME1 asks that low values be shown bright. Values of CT, PET and nuclear medicine are
    measurements, which that doesn't touch; others are pictures.
    """
    return (
        header.get("PhotometricInterpretation") == "MONOCHROME1"
        and header.get("Modality") not in MEASURED
    )


def _check_bits(where: str, file: Dataset) -> None:
    """UserError where voxels are fractions, or their bits don't begin at the lowest.

    GDCM looks at neither.
    """
    for keyword in ("FloatPixelData", "DoubleFloatPixelData"):
        if keyword in file:
            raise UserError(
                f"{where}: expected whole numbers as stored voxels, found {keyword} (a parametric "
                "map); convert the series to NIfTI."
            )
    lowest = file.HighBit - file.BitsStored + 1
    if lowest > 0:
        raise UserError(
            f"{where}: expected voxels in bits 0 to {file.BitsStored - 1}, found {lowest} to "
            f"{file.HighBit}; convert the series to NIfTI."
        )


def _decode(file: Dataset, frame: int) -> NDArray[Any]:
    """Stored values (rows, columns) of a frame, decoded by way of a temporary file."""
    single = Dataset()
    # a CT image without rescaling: GDCM gives the stored values as they are
    single.SOPClassUID, single.SOPInstanceUID = CTImageStorage, generate_uid()
    single.SamplesPerPixel, single.PhotometricInterpretation = 1, "MONOCHROME2"
    for keyword in FORM:
        setattr(single, keyword, file.get(keyword))
    single.file_meta = FileMetaDataset()
    if file["PixelData"].is_undefined_length:
        single.file_meta.TransferSyntaxUID = file.file_meta.TransferSyntaxUID
        single.PixelData = encapsulate([_packed(file, frame)])
        single["PixelData"].VR = "OB"
    else:
        single.file_meta.TransferSyntaxUID = _byte_order(file)
        single.PixelData = _plain(file, frame)
        single["PixelData"].VR = "OB" if file.BitsAllocated == 8 else "OW"
    with tempfile.NamedTemporaryFile(suffix=".dcm") as temporary:
        single.save_as(temporary.name, enforce_file_format=True)
        return sitk.GetArrayFromImage(sitk.ReadImage(temporary.name, imageIO="GDCMImageIO"))[0]


def _packed(file: Dataset, frame: int) -> bytes:
    """Compressed bytes of a frame.

    Raises:
        ValueError: they say another size than the header, over which GDCM can crash.
    """
    offsets = None
    if "ExtendedOffsetTable" in file:
        offsets = (file.ExtendedOffsetTable, file.ExtendedOffsetTableLengths)
    number = int(file.get("NumberOfFrames") or 1)
    packed = get_frame(file.PixelData, frame, extended_offsets=offsets, number_of_frames=number)
    size = _jpeg_size(packed)
    if size not in (None, (file.Rows, file.Columns)):
        raise ValueError(f"expected {file.Rows} x {file.Columns} pixels, found {size}")
    return packed


def _jpeg_size(packed: bytes) -> tuple[int, int] | None:
    """Rows and columns by the frame header of JPEG or JPEG-LS; None where it is neither.

    Source: ITU-T T.81, B.1.1.3 (markers) and B.2.2 (frame header); T.87, C.1.1 (that of JPEG-LS).
    """
    if not packed.startswith(b"\xff\xd8"):
        return None
    place = 2
    while place + 9 <= len(packed) and packed[place] == 0xFF:
        marker, length = packed[place + 1], int.from_bytes(packed[place + 2 : place + 4])
        if marker in FRAME_HEADERS:
            rows, columns = packed[place + 5 : place + 7], packed[place + 7 : place + 9]
            return int.from_bytes(rows), int.from_bytes(columns)
        place += 2 + length
    raise ValueError("found no frame header")


def _plain(file: Dataset, frame: int) -> bytes:
    """Bytes of a frame that isn't compressed.

    Raises:
        ValueError: they are cut short, which GDCM would fill up.
    """
    content = file.PixelData
    if file.BitsAllocated == 8 and file["PixelData"].VR == "OW" and not file.original_encoding[1]:
        # two pixels of a word stand in the other order, across frames too
        content = np.frombuffer(content, ">u2").astype("<u2").tobytes()
    size = file.Rows * file.Columns * file.BitsAllocated // 8
    content = content[frame * size : (frame + 1) * size]
    if len(content) < size:
        raise ValueError(f"expected {size} bytes of voxels, found {len(content)}")
    return content


def _byte_order(file: Dataset) -> UID:
    """The uncompressed transfer syntax in the byte order of a file, which need not say it."""
    return ExplicitVRLittleEndian if file.original_encoding[1] else ExplicitVRBigEndian


def _inverted(stored: NDArray[Any], file: Dataset) -> NDArray[Any]:
    """The values turned round within the range of the stored bits."""
    highest = -1 if file.PixelRepresentation == 1 else 2**file.BitsStored - 1
    return highest - stored.astype(np.int64)


def _rescaled(stored: NDArray[Any], header: Dataset) -> NDArray[Any]:
    """slope x stored + intercept, as whole numbers where both are whole, else as float64."""
    slope = _number(header, "RescaleSlope", 1.0)
    intercept = _number(header, "RescaleIntercept", 0.0)
    values = stored * slope + intercept
    if slope.is_integer() and intercept.is_integer():
        for kind in (np.int16, np.int32):
            limits = np.iinfo(kind)
            if limits.min <= values.min() and values.max() <= limits.max:
                return values.astype(kind)
    return values


def _number(header: Dataset, keyword: str, absent: float) -> float:
    value = header.get(keyword)
    return absent if value is None else float(value)


def _looked_up(stored: NDArray[Any], header: Dataset, file: Dataset) -> NDArray[Any]:
    """The values that the modality table gives, uint8 or uint16."""
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    if slope not in (None, 1) or intercept not in (None, 0):
        raise ValueError(f"there is a slope of {slope} and an intercept of {intercept} as well")
    table = Dataset()
    table.ModalityLUTSequence, table.file_meta = header.ModalityLUTSequence, FileMetaDataset()
    table.file_meta.TransferSyntaxUID = _byte_order(file)
    # the differences to the table's first value don't fit into the stored type
    return apply_modality_lut(stored.astype(np.int64), table)
