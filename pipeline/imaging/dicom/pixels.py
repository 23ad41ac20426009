"""Pixels of DICOM images, in the units that their rescaling gives.

One decoder for all: a frame of a multi-frame image is handed to it as the single-frame image that
its header describes, so that each frame has its own slope and intercept.
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
    """Reads images one by one; a multi-frame file stays open between its frames.

    Use it as a context.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._file: ImageFileReader | None = None

    def __enter__(self) -> "PixelReader":
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def read(self, path: Path, header: Dataset, frame: int | None = None) -> NDArray[Any]:
        """(rows, columns) of a file, or of one of its frames.

        Args:
            path: the file.
            header: of the frame, from `dicom_frames.frame_headers`; unused without a frame.
            frame: its index from 0, None for a single-frame image.

        Raises:
            UserError: damaged or truncated.
        """
        try:
            if frame is None:
                _check_length(pydicom.dcmread(path))
                return _decode(path)
            return self._frame(path, header, frame)
        except Exception:  # the decoders' and pydicom's are of many kinds
            where = f"{path}" if frame is None else f"{path}: frame {frame + 1}"
            raise UserError(
                f"{where}: its voxels can't be read, they are damaged or truncated; get it again."
            ) from None

    def _frame(self, path: Path, header: Dataset, frame: int) -> NDArray[Any]:
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
        if self._path != path:
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
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO"))[0]


def _check_length(image: Dataset) -> None:
    """Refuse too few bytes of plain voxels: the decoder makes up the rest."""
    if image.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    needed = image.Rows * image.Columns * image.BitsAllocated // 8
    if len(image.PixelData) < needed:
        raise ValueError(f"expected {needed} bytes of voxels, found {len(image.PixelData)}")
