"""What an exported MONAI bundle is made of: its `configs/inference.json` names these.

MONAI's config parser makes them from the arguments in that file. Scans are read, turned, resampled,
scaled and labelled by the steps of `hsam predict`, whose labels they give.
"""

import copy
import logging
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import ImageWriter, MetaTensor
from monai.transforms import MapTransform
from nibabel import orientations
from numpy.typing import NDArray
from torch import Tensor, nn

from hsam.inference import for_inference
from hsam.model import SegmentationModel
from pipeline.imaging import intensity as intensities
from pipeline.imaging import label_volumes, scans
from pipeline.imaging.geometry import Geometry, restore_labels
from pipeline.imaging.scan_intensity import find_bounds
from pipeline.imaging.scans import Source
from pipeline.inference.precision import set_tf32
from pipeline.inference.resizing import resizing as resizing_of
from pipeline.inference.scan_slices import ScanSlices
from pipeline.inference.trained import model_precision
from pipeline.inference.volume import predict_volume

logger = logging.getLogger(__name__)


def scans_in(folder: str) -> list[dict[str, str]]:
    """MONAI's list of data: the scans in a folder and below it, each {"image": path}.

    Args:
        folder: holds volumes of any format that `hsam predict` reads; or one such file.

    Raises:
        UserError: there is none.
    """
    return [{"image": str(source.path)} for source in scans.find([Path(folder)])]


class ScanSlicesd(MapTransform):
    """Paths of scans become their slices, prepared as those of the model's training were.

    A slice is one along the first axis: (1, slices, rows, columns), float32 in [0, 1], whose affine
    is that of these slices. In its metadata, `spatial_shape` and `original_affine` are the scan's.
    """

    def __init__(
        self, keys: Any, intensity: Mapping[str, Any], axes: str, spacing_mm: float | None
    ) -> None:
        """Take how the slices were prepared.

        Args:
            keys: of the paths.
            intensity: rule of the intensities, as in model.json.
            axes: in which slices, rows and columns grow, such as "SPL".
            spacing_mm: in-plane spacing that slices are resampled to; None: they aren't.
        """
        super().__init__(keys)
        self.rule, self.axes = intensities.rule(intensity), axes
        self.spacing_mm = spacing_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The data with slices in place of paths; unusual scans are warned of.

        Raises:
            UserError: a scan that can't be read, or one unlike those of the training.
        """
        found = dict(data)
        for key in self.key_iterator(found):
            found[key] = self._read(Path(found[key]))
        return found

    def _read(self, path: Path) -> MetaTensor:
        scan = scans.read(Source(path.name, path))
        bounds = find_bounds(str(path), scan, self.rule)
        for warning in (*scan.warnings, *bounds.warnings):
            logger.warning("%s: %s", path, warning)
        images, geometry = (
            ScanSlices(scan, bounds, self.axes, self.spacing_mm),
            scan.volume.geometry,
        )
        return MetaTensor(
            torch.from_numpy(images[:])[None],
            affine=torch.from_numpy(_affine_of_slices(geometry, self.axes, images.grid)),
            meta={
                "filename_or_obj": str(path),
                "spatial_shape": np.array(geometry.shape),
                "original_affine": geometry.affine,
            },
        )


class LabelsOnScand(MapTransform):
    """Labels of the slices that `ScanSlicesd` made become a label map on the scan's own grid."""

    def __init__(self, keys: Any, ref_image: str, axes: str) -> None:
        """Take where the slices are.

        Args:
            keys: of the labels.
            ref_image: key of the slices.
            axes: as for `ScanSlicesd`.
        """
        super().__init__(keys)
        self.ref_image, self.axes = ref_image, axes

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The data with labels (1, x, y, z) uint8 in place of (1, slices, rows, columns)."""
        found = dict(data)
        meta = found[self.ref_image].meta
        geometry = _geometry(meta)
        for key in self.key_iterator(found):
            labels = np.asarray(torch.as_tensor(found[key][0]).cpu(), np.uint8)
            restored = restore_labels(labels, geometry, self.axes)
            found[key] = MetaTensor(
                torch.from_numpy(restored)[None],
                affine=torch.from_numpy(geometry.affine),
                meta={name: meta[name] for name in meta if name != "affine"},
            )
        return found


class LabelMapWriter(ImageWriter):
    """How MONAI's `SaveImaged` writes label maps: as `hsam predict` does, byte for byte.

    Of `SaveImaged`'s options those about types, channels and resampling say nothing here.
    """

    def __init__(self, **_: Any) -> None:
        """Nothing to choose."""
        super().__init__()

    def set_data_array(self, data_array: Any, **_: Any) -> None:
        """Take labels (1, x, y, z)."""
        self.labels = np.asarray(torch.as_tensor(data_array[0]).cpu(), np.uint8)

    def set_metadata(self, meta_dict: Mapping[Any, Any] | None, **_: Any) -> None:
        """Take the scan's geometry, as `LabelsOnScand` passes it on."""
        assert meta_dict is not None, "LabelsOnScand passes it on"
        self.geometry, path = _geometry(meta_dict), Path(meta_dict["filename_or_obj"])
        self.like = None if path.is_dir() else path

    def write(self, filename: Any, verbose: bool = True, **_: Any) -> None:
        """Write a NIfTI file, atomically."""
        label_volumes.write_labels(Path(filename), self.labels, self.geometry, self.like)
        if verbose:
            logger.info("wrote %s", filename)


class SliceBySlice(nn.Module):
    """A model of slices as a network of volumes.

    Its weights are the model's, LoRA apart from the layers. What predicts is a copy, made ready as
    for `hsam predict` at the first volume and again after weights were loaded or moved.
    """

    def __init__(
        self, model: SegmentationModel, stage: str, batch_size: int, resizing: str
    ) -> None:
        """Take the model.

        Args:
            model: as a builder of `hsam` gives it.
            stage: whose labels to give: "mean", "coarse" or "fine".
            batch_size: slices per forward pass.
            resizing: how slices come to the model's side and back, as in model.json.
        """
        super().__init__()
        self.model, self.stage, self.batch_size = model, stage, batch_size
        self.resizing = resizing_of({"resizing": resizing})
        self._ready: tuple[torch.device, SegmentationModel] | None = None
        self.register_load_state_dict_post_hook(_forget)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, slices, rows, columns) in [0, 1] -> labels uint8 of the same shape."""
        device = next(self.model.parameters()).device
        if self._ready is None or self._ready[0] != device:
            self._ready = device, self._made_ready(device)
        volumes = torch.as_tensor(image)[:, 0].cpu().numpy()
        labels = [
            predict_volume(
                self._ready[1],
                volume,
                stage=self.stage,
                batch_size=self.batch_size,
                device=str(device),
                resizing=self.resizing,
            )
            for volume in volumes
        ]
        return torch.from_numpy(np.stack(labels))[:, None].to(device)

    def _made_ready(self, device: torch.device) -> SegmentationModel:
        precision = model_precision({"config": self.model.config}, device.type)
        set_tf32(precision.tf32)
        model = copy.deepcopy(self.model).requires_grad_(False)
        return for_inference(model, str(device), half_encoder=precision.encoder == "bf16")

    def _apply(self, *args: Any, **kwargs: Any) -> "SliceBySlice":
        _forget(self)
        return super()._apply(*args, **kwargs)


def _geometry(meta: Mapping[str, Any]) -> Geometry:
    """The scan's, of the metadata that `ScanSlicesd` gives."""
    x, y, z = (int(side) for side in meta["spatial_shape"])
    return Geometry((x, y, z), np.array(meta["original_affine"], np.float64))


def _forget(module: nn.Module, *_: Any) -> None:
    """Give up the copy that predicts, since the weights are others."""
    module._ready = None  # type: ignore[assignment]


def _affine_of_slices(
    geometry: Geometry, axes: str, shape: tuple[int, int, int]
) -> NDArray[np.float64]:
    """(4, 4): voxel (slice, row, column) of slices of this shape to RAS+ mm.

    The field of view is the scan's, in plane too where slices are resampled.
    """
    turn = orientations.ornt_transform(
        orientations.io_orientation(geometry.affine), orientations.axcodes2ornt(axes)
    )
    turned = geometry.affine @ orientations.inv_ornt_aff(turn, geometry.shape)
    sides = np.divide(geometry.sliced_shape(axes), shape)
    scaled = np.diag([*sides, 1.0])
    scaled[:3, 3] = (sides - 1) / 2
    affine: NDArray[np.float64] = turned @ scaled
    return affine
