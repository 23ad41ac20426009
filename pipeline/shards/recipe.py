"""How raw volumes become shards: label map, intensity rule, axes, spacing, and their digest."""

from dataclasses import asdict, dataclass

from pipeline import datasets
from pipeline.core import files, sources
from pipeline.core.params.blocks import Params, Percentile, Window
from pipeline.datasets.base import LabelMap
from pipeline.imaging.geometry import CANONICAL


@dataclass(frozen=True)
class Recipe:
    """Everything that a shard depends on, apart from its raw files.

    Attributes:
        labels: raw label values to class indices.
        intensity: the rule that gives the source units which become 0 and 1.
        axes: of the slices, as in `pipeline.imaging.geometry`.
        spacing_mm: in-plane spacing to resample to, mm; None: as acquired.
        code: SHA-256 over the code that makes shards.
    """

    labels: LabelMap
    intensity: Window | Percentile
    axes: str
    spacing_mm: float | None
    code: str

    @classmethod
    def of(cls, params: Params) -> "Recipe":
        """The recipe that the parameters ask for."""
        entry, dataset = datasets.get(params.dataset), params.dataset
        rule = params.prepare.intensity or entry.intensity(dataset)
        axes = params.prepare.axes or CANONICAL
        code = sources.stage_digest("prepare", sources.chosen("prepare", params))
        return cls(entry.labels(dataset), rule, axes, params.prepare.spacing_mm, code)

    def digest(self) -> str:
        """SHA-256 over all of them."""
        labels = {**asdict(self.labels), "ignored": sorted(self.labels.ignored)}
        # a list: the order of the organs is the order of the classes, and a digest sorts mappings
        labels["organs"] = list(self.labels.organs.items())
        return files.digest(
            {
                "labels": labels,
                "intensity": self.intensity.model_dump(),
                "axes": self.axes,
                "spacing_mm": self.spacing_mm,
                "code": self.code,
            }
        )
