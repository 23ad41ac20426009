"""metrics.json of `hsam evaluate` and `hsam score`, read and refused where it isn't whole, and the
few entries of it that DVC lists.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from pipeline.core.errors import UserError
from pipeline.core.files import read_json
from pipeline.scoring.conventions import CONVENTIONS
from pipeline.scoring.scores import in_view

METRICS, HEADLINE = "metrics.json", "headline.json"


class _Part(BaseModel):
    """Entries that readers rely on; others, of other versions, may be there too."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Pairs(_Part):
    all: int
    missed: int
    invented: int
    absent: int


class _Sides(_Part):
    shortest: float
    longest: float


class _Pretraining(_Part):
    trained_on: str
    may_include_test: bool


class _Review(_Part):
    rows: int
    pairs: int
    found_in_first: float = 0.0
    looked_at: float = 0.0
    random: float = 0.0
    ideal: float = 0.0
    spearman: float = 0.0

    @model_validator(mode="after")
    def _whole(self) -> "_Review":
        if len(self.model_fields_set & {"found_in_first", "looked_at"}) == 1:
            raise ValueError("found_in_first and looked_at belong together")
        if len(self.model_fields_set & {"random", "ideal"}) == 1:
            raise ValueError("random and ideal belong together")
        return self


class _PredictedDice(_Part):
    cannot_say: str = ""
    level: float = 0.0
    calibrated_on: str = ""
    pairs: int = 0
    mean_absolute_error: float = 0.0
    coverage: float = 0.0
    mean_width: float = 0.0
    spearman: float = 0.0

    @model_validator(mode="after")
    def _whole(self) -> "_PredictedDice":
        needed = {"level", "calibrated_on", "pairs"}
        judged = {"mean_absolute_error", "coverage", "mean_width"} if self.pairs else set()
        if "cannot_say" in self.model_fields_set or self.model_fields_set >= needed | judged:
            return self
        raise ValueError("predicted_dice: expected cannot_say, or how good it is")


class _Scores(_Part):
    cases: int = Field(ge=1)
    convention: str
    conventions: dict[str, dict[str, float]]
    pairs: _Pairs
    voxel_mm: _Sides | None = None
    below_voxel: dict[str, int] = {}
    pretraining: _Pretraining | None = None

    @model_validator(mode="after")
    def _known(self) -> "_Scores":
        if missing := sorted({self.convention, *CONVENTIONS} - self.conventions.keys()):
            raise ValueError(f"no scores under convention {', '.join(missing)}")
        if self.convention not in CONVENTIONS:
            raise ValueError(f"unknown convention {self.convention!r}")
        if self.below_voxel and self.voxel_mm is None:
            raise ValueError("below_voxel without voxel_mm")
        return self


class _Evaluation(_Scores):
    split: str
    stage: Literal["mean", "coarse", "fine"]
    review: _Review
    predicted_dice: _PredictedDice | None = None
    unlike_training: dict[str, list[str]] = {}
    stages: dict[str, dict[str, float]] = {}


def headline(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What `dvc exp show` and `dvc metrics diff` list of a run: a column an entry.

    Args:
        metrics: content of a metrics.json.

    Returns:
        Mean Dice and HD95 under the run's convention, and each organ's Dice; what is left out
        everywhere has no entry.
    """
    names = [f"mean_{score.name}" for score in in_view("summary")]
    means = {name: metrics[name] for name in names if metrics.get(name) is not None}
    return means | {"dice": dict(metrics["dice"])}


def read_metrics(path: Path, evaluation: bool = False) -> dict[str, Any]:
    """The content of a metrics.json.

    Args:
        path: the file.
        evaluation: whether it has to be of `hsam evaluate`, with split, stage and review list.

    Raises:
        UserError: missing, damaged, or without an entry that readers rely on.
    """
    try:
        value = read_json(path)
        _model(_Evaluation if evaluation else _Scores).model_validate(value)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; run the evaluate stage first.") from None
    except ValidationError as error:
        raise UserError(f"{path}: {_what(error)}; evaluate the run again.") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: damaged ({reason}); evaluate the run again.") from None
    found: dict[str, Any] = value
    return found


def _model(base: type[_Scores]) -> type[_Scores]:
    """The entries of `base`, and those of the summary's scores."""
    names = [score.name for score in in_view("summary")]
    by_organ: dict[str, Any] = {name: (dict[str, float], ...) for name in names}
    means: dict[str, Any] = {f"mean_{name}": (float | None, None) for name in names}
    return create_model("Metrics", __base__=base, **by_organ, **means)


def _what(error: ValidationError) -> str:
    """Entries that lack, as in a file of another version, or else the first thing wrong."""
    problems = error.errors(include_url=False)
    if lacking := [
        str(p["loc"][0]) for p in problems if p["type"] == "missing" and len(p["loc"]) == 1
    ]:
        return f"no {', '.join(lacking)}"
    problem = problems[0]
    place = ".".join(map(str, problem["loc"]))
    return f"damaged ({place}: {problem['msg']})" if place else f"damaged ({problem['msg']})"
