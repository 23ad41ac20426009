"""What an evaluation keeps to predict the Dice of other cases, and how good that is.

Calibrated is on the validation cases; where they are too few, on the test cases, each of which is
then judged by a calibration on the others.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core import files
from pipeline.scoring.predicted_dice import (
    FEWEST,
    LEVEL,
    Calibration,
    Pair,
    Predicted,
    applied,
    calibrate,
    judged,
    left_out,
)
from pipeline.scoring.uncertainty import FAINT, Signs

CALIBRATION = "calibration.json"
NOT_FOUND = "not found"  # of an organ without a voxel


@dataclass(frozen=True)
class Known:
    """A calibration and where it came from, or why there is none.

    Attributes:
        calibration: None where nothing can be said.
        source: the cases that it was made on, in words; without one, why there is none.
    """

    calibration: Calibration | None
    source: str

    def of_scan(
        self, organs: Sequence[str], signs: Sequence[Signs | None], unlike: Container[str] = ()
    ) -> dict[str, Any]:
        """What a prediction's record holds.

        Args:
            organs: names.
            signs: of each; None for one without a voxel.
            unlike: organs whose labels are unlike those of the training.

        Returns:
            level and calibrated_on, and organs: each to dice, low and high, or to cannot_say with
            the reason; only cannot_say where there is no calibration.
        """
        if self.calibration is None:
            return {"cannot_say": self.source}
        found: dict[str, dict[str, Any]] = {}
        for organ, sign in zip(organs, signs, strict=True):
            said = None if sign is None else self.calibration.predict(organ, sign, organ in unlike)
            if said is not None:
                found[organ] = {"dice": said.dice, "low": said.low, "high": said.high}
            elif sign is None:
                found[organ] = {"cannot_say": NOT_FOUND}
            else:
                found[organ] = {"cannot_say": "found in no case of the calibration"}
        return {"level": LEVEL, "calibrated_on": self.source, "organs": found}


def of_evaluation(
    validation: Sequence[Pair], test: Sequence[Pair]
) -> tuple[Known, list[tuple[Pair, Predicted]], dict[str, Any]]:
    """A calibration for further cases, and how good its predictions are on the test cases.

    Args:
        validation: pairs of the validation cases, none where they are fewer than FEWEST.
        test: pairs of the test cases.

    Returns:
        The calibration; test pairs with what was predicted of them; what metrics.json holds: level
        and calibrated_on with `predicted_dice.judged`, or cannot_say with the reason.
    """
    calibration, role = calibrate(validation), "validation"
    found = applied(calibration, test)
    if calibration is None:
        calibration, role = calibrate(test), "test"
        found = left_out(test)
    if calibration is None:
        why = (
            f"it takes {FEWEST} validation cases (split.validation) or {FEWEST} test cases in "
            f"which an organ was predicted, the test cases are {len({p.case for p in test})}; "
            "those of a study over folds do too (hsam export --calibrate)"
        )
        return Known(None, why), [], {"cannot_say": why}
    source = f"{calibration.cases} {role} cases"
    about = {"level": LEVEL, "calibrated_on": source} | judged(found)
    return Known(calibration, source), found, about


def sentence(about: Mapping[str, Any]) -> str:
    """How good predicted Dice is on the test cases, in one line for people."""
    if "cannot_say" in about:
        return f"cannot say: {about['cannot_say']}"
    if not about["pairs"]:
        return f"calibrated on {about['calibrated_on']}, too few to judge it on them"
    parts = [f"off by {about['mean_absolute_error']:.3f} on average"]
    if "spearman" in about:
        parts.append(f"rank correlation with the true Dice {about['spearman']:.2f}")
    return (
        f"calibrated on {about['calibrated_on']}; over {about['pairs']} pairs of test case and "
        f"organ {', '.join(parts)}, {about['coverage']:.0%} of the true Dice within the interval "
        f"of {about['level']:.0%}, which is {about['mean_width']:.2f} wide on average"
    )


def write(path: Path, known: Known, stage: str, weights: str) -> None:
    """Write the file that `find` reads.

    Args:
        path: of the file.
        known: the calibration, or why there is none.
        stage: whose labels it is of.
        weights: SHA-256 of the model's weights.
    """
    about = {"stage": stage, "weights": weights, "source": known.source}
    content = about | {"level": LEVEL, "faint": FAINT}
    made = known.calibration
    files.write_json(path, content | {"calibration": None if made is None else made.to_json()})


def find(folders: Iterable[Path], weights: str, stage: str) -> Known:
    """The calibration of a model, from the first folder that has one of exactly its weights.

    Args:
        folders: of the model and of evaluations near it.
        weights: SHA-256 of the model's weights.
        stage: whose labels are predicted.
    """
    path = file_of(folders, weights)
    if path is None:
        return Known(
            None, "no evaluation of this model was found that calibrates it; hsam evaluate"
        )
    found = files.read_json(path)
    if found["stage"] != stage:
        return Known(None, f"calibrated is the {found['stage']} stage, not {stage}")
    return _known(found)


def file_of(folders: Iterable[Path], weights: str) -> Path | None:
    """The first folder's whole file that is of exactly these weights; args as for `find`."""
    for folder in folders:
        try:
            found = files.read_json(folder / CALIBRATION)
            # with another FAINT the signs were others
            alike = found["weights"] == weights and found["faint"] == FAINT
            if alike and isinstance(found["stage"], str):
                _known(found)
                return folder / CALIBRATION
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # a half-written or foreign file says nothing
    return None


def _known(content: Mapping[str, Any]) -> Known:
    made = content["calibration"]
    return Known(None if made is None else Calibration.from_json(made), str(content["source"]))
