"""What was done to the volumes before they became shards."""

from dataclasses import asdict, dataclass

from pipeline import datasets
from pipeline.core import files, sources
from pipeline.core.params.blocks import Params, Percentile, Window
from pipeline.datasets.base import LabelMap


@dataclass(frozen=True)
class Recipe:
    """Everything but its raw files that a shard depends on.

    Attributes:
        labels: raw labels to classes.
        intensity: the rule for [low, high].
        spacing_mm: in-plane spacing to resample to; None: as acquired.
    """

    labels: LabelMap
    intensity: Window | Percentile
    spacing_mm: float | None

    @classmethod
    def of(cls, params: Params) -> "Recipe":
        """The recipe that the parameters ask for."""
        entry, dataset = datasets.get(params.dataset), params.dataset
        rule = params.prepare.intensity or entry.intensity(dataset)
        return cls(entry.labels(dataset), rule, params.prepare.spacing_mm)

    def digest(self) -> str:
        """SHA-256 over the values and over the stage's code."""
        labels = {**asdict(self.labels), "ignored": sorted(self.labels.ignored)}
        # the order of the organs is the order of the classes, which a mapping's hash would lose
        labels["organs"] = list(self.labels.organs.items())
        return files.digest(
            {
                "labels": labels,
                "intensity": self.intensity.model_dump(),
                "spacing_mm": self.spacing_mm,
                "code": sources.stage_digest("prepare"),
            }
        )
