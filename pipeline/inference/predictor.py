"""A trained run, loaded so that it can label scans."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError
from pipeline.core.run_folder import MODEL_FILES
from pipeline.imaging import intensity
from pipeline.imaging.channels import many, recorded
from pipeline.imaging.intensity import Rules
from pipeline.inference import records, trained, usual
from pipeline.inference.ensemble import together
from pipeline.inference.identity import identify
from pipeline.inference.resizing import LINEAR
from pipeline.inference.trained import Ready
from pipeline.inference.volume import Forward, forward, model_stages


@dataclass(frozen=True, eq=False)
class Predictor:
    """A loaded run.

    Attributes:
        ready: the model.
        names: organs of the labels 1, 2, ...
        rule: how intensities become [0, 1], of each channel.
        axes: of its slices, as in `pipeline.imaging.geometry`.
        spacing_mm: in-plane spacing that slices are resampled to; None: they aren't.
        device: "cpu" or "cuda".
        stages: that the model has: "mean", "coarse", "fine", or one of them.
        identity: which model it is, from `inference.identity`.
        usual: what its training slices look like, from `inference.usual`; None where its record
            doesn't say.
        channels: names of those that it takes to their numbers in its data set; empty: one.
        others: identities of the models that its logits are averaged with.
        forward: how a batch becomes logits: in a pass through this model, or through all of them.
    """

    ready: Ready
    names: list[str]
    rule: Rules
    axes: str
    spacing_mm: float | None
    device: str
    stages: tuple[str, ...]
    identity: dict[str, Any]
    usual: dict[str, Any] | None
    channels: dict[str, int]
    others: tuple[dict[str, Any], ...] = ()
    forward: Forward = forward

    @classmethod
    def load(cls, run: Path, checkpoint: Path | None, device: str) -> "Predictor":
        """Load a run's model, ready to predict.

        Args:
            run: a run folder of training, results/train or an imported one.
            checkpoint: SAM's file for a model with a frozen encoder; None: the recorded one.
            device: "cpu" or "cuda".

        Raises:
            UserError: no model there, or a record that doesn't say how to prepare a scan for it.
        """
        folder = records.model_folder(run)
        record = records.read_record(folder)
        try:
            names = list(record["class_names"])
            rule = intensity.rule(record["intensity"])
            preparation = record["preparation"]
            axes, spacing_mm = preparation["axes"], preparation["spacing_mm"]
            known = usual.recorded(record)
            channels = recorded(preparation)
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{folder / MODEL_FILES[0]}: expected class names, intensity rule and "
                "preparation, found none, or damaged ones; the run can't be applied to a scan. "
                "Train it again."
            ) from None
        ready = trained.load_for_inference(folder, checkpoint, device)
        stages = model_stages(ready.model)
        identity = identify(folder, record)
        return cls(ready, names, rule, axes, spacing_mm, device, stages, identity, known, channels)

    def averaged_with(self, others: Sequence["Predictor"]) -> "Predictor":
        """This model and others as one, whose logits are the mean of theirs.

        What isn't of all of them, such as calibration and ranges of training, is this model's; the
        stages are those that all have.

        Raises:
            UserError: models that take other slices or have other organs.
        """
        for other in others:
            self._check_alike(other)
        if not others:
            return self
        everyone = (self, *others)
        return replace(
            self,
            stages=tuple(s for s in self.stages if all(s in one.stages for one in everyone)),
            others=tuple(one.identity for one in others),
            forward=together([one.ready.model for one in everyone]),
        )

    def _check_alike(self, other: "Predictor") -> None:
        """Refuse a model whose logits can't be averaged with this one's."""
        expected, found = self._slices(), other._slices()
        if problems := [
            f"{other.identity['folder']}: can't be averaged with {self.identity['folder']}: "
            f"expected {name} {expected[name]}, found {found[name]}; name models of the same data "
            "and parameters."
            for name in expected
            if expected[name] != found[name]
        ]:
            raise UserError(problems)

    def _slices(self) -> dict[str, Any]:
        """What a scan becomes for the model, and what its labels mean, by what people call it."""
        return {
            "organs": ", ".join(self.names),
            "intensity": [rule.model_dump() for rule in many(self.rule)],
            "axes of slices": self.axes,
            "in-plane spacing": self.spacing_mm,
            "channels": ", ".join(self.channels) or "one",
            "image_size": self.ready.model.image_size,
            "resizing": "linear" if self.ready.resizing == LINEAR else "published",
        }
