"""Pixels of DICOM images, rescaled by slope and intercept (CT: HU).

All pixels go through one decoder, GDCM's. A frame of a multi-frame image is written to a temporary
single-frame image first, so that it is decoded with its own slope and intercept.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, generate_uid

from pipeline.core.errors import UserError

if TYPE_CHECKING:
    from highdicom.io import ImageFileReader

# tags that describe how pixels are stored
FORM = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
RESCALING = ("RescaleSlope", "RescaleIntercept", "RescaleType")


class PixelReader:
    """Reads images one by one, as a context manager; it keeps the last multi-frame file open."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._file: ImageFileReader | None = None

    def __enter__(self) -> "PixelReader":
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def read(self, path: Path, header: Dataset, frame: int | None = None) -> NDArray[Any]:
        """Pixels (rows, columns) of a single-frame file, or of one frame of a multi-frame file.

        Args:
            path: the file.
            header: of the frame, from `frames.frame_headers`; unused for a single-frame file.
            frame: index from 0; None for a single-frame file.

        Raises:
            UserError: the pixels are damaged or truncated.
        """
        try:
            if frame is None:
                _check_length(pydicom.dcmread(path))
                return _decode(path)
            return self._frame(path, header, frame)
        except Exception:  # decoders and pydicom raise errors of many types
            where = f"{path}" if frame is None else f"{path}: frame {frame + 1}"
            raise UserError(
                f"{where}: its voxels can't be read, they are damaged or truncated; get it again."
            ) from None

    def _frame(self, path: Path, header: Dataset, frame: int) -> NDArray[Any]:
        """One frame, decoded by way of a temporary single-frame file."""
        source = self._open(path)
        single = Dataset()
        single.SOPClassUID, single.SOPInstanceUID = CTImageStorage, generate_uid()
        for keyword in FORM:
            setattr(single, keyword, source.metadata.get(keyword))
        for keyword in RESCALING:
            if keyword in header:
                setattr(single, keyword, header.get(keyword))
        single.file_meta = FileMetaDataset()
        single.file_meta.TransferSyntaxUID = source.transfer_syntax_uid
        content = source.read_frame_raw(frame)
        if source.transfer_syntax_uid.is_encapsulated:
            single.PixelData = encapsulate([content])
            single["PixelData"].VR = "OB"
        else:
            single.PixelData = content
            single["PixelData"].VR = "OW"
            _check_length(single)
        with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
            single.save_as(file.name, enforce_file_format=True)
            return _decode(Path(file.name))

    def _open(self, path: Path) -> "ImageFileReader":
        """The multi-frame file, opened unless it is open already."""
        if self._file is None or self._path != path:
            from highdicom.io import ImageFileReader

            self._close()
            file = ImageFileReader(path)
            file.open()
            self._path, self._file = path, file
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._path = self._file = None


def _decode(path: Path) -> NDArray[Any]:
    """(rows, columns), rescaled, of a single-frame file."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO"))[0]


def _check_length(image: Dataset) -> None:
    """ValueError where uncompressed pixels are cut short, which the decoder would fill up."""
    if image.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    needed = image.Rows * image.Columns * image.BitsAllocated // 8
    if len(image.PixelData) < needed:
        raise ValueError(f"expected {needed} bytes of voxels, found {len(image.PixelData)}")
