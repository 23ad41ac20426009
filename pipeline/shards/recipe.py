"""How raw volumes become shards: label map, intensity rule, axes, spacing, and their digest."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline import datasets
from pipeline.core import files, sources
from pipeline.core.params.blocks import Params
from pipeline.datasets.base import LabelMap
from pipeline.imaging.geometry import CANONICAL
from pipeline.imaging.intensity import Rules, record


@dataclass(frozen=True)
class Recipe:
    """Everything that a shard depends on, apart from its raw files.

    Attributes:
        labels: raw label values to class indices.
        intensity: the rule that gives the source units which become 0 and 1, of each channel.
        axes: of the slices, as in `pipeline.imaging.geometry`.
        spacing_mm: in-plane spacing to resample to, mm; None: as acquired.
        code: SHA-256 over the code that makes shards.
        channels: names of those that are used to their numbers in the data set; empty: it has one.
    """

    labels: LabelMap
    intensity: Rules
    axes: str
    spacing_mm: float | None
    code: str
    channels: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, params: Params) -> "Recipe":
        """The recipe that the parameters ask for."""
        entry, dataset = datasets.get(params.dataset), params.dataset
        rule = datasets.intensity(params)
        axes = params.prepare.axes or CANONICAL
        code = sources.stage_digest("prepare", sources.chosen("prepare", params))
        channels = entry.chosen_channels(dataset)
        return cls(entry.labels(dataset), rule, axes, params.prepare.spacing_mm, code, channels)

    def digest(self) -> str:
        """SHA-256 over all of them."""
        labels: dict[str, Any] = asdict(self.labels) | {"ignored": sorted(self.labels.ignored)}
        # a list: the order of the organs is the order of the classes, and a digest sorts mappings
        labels["organs"] = list(self.labels.organs.items())
        # of one channel there is nothing to say; a list: the order is that of the inputs
        channels = {"channels": list(self.channels.items())} if self.channels else {}
        return files.digest(
            {
                "labels": labels,
                "intensity": record(self.intensity),
                "axes": self.axes,
                "spacing_mm": self.spacing_mm,
                "code": self.code,
                **channels,
            }
        )
