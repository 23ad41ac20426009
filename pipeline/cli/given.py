"""What a command was given, and what it means: parameters, places, runs, devices."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.options import (
    PARAMS,
    RUNS,
)
from pipeline.core.errors import UserError

if TYPE_CHECKING:
    from pipeline.core.params.blocks import Params


RUN_STAGES = ("prepare", "split", "search", "train", "evaluate")


def parameters(paths: list[Path]) -> "Params":
    """What is in parameter files, each laid over those before it."""
    from pipeline.core.params.load import load
    from pipeline.core.params.render import restore_comments

    # DVC composes params.yaml without its comments; only then is it ours to mend
    if os.environ.get("DVC_EXP_NAME") and PARAMS[0] in paths:
        try:
            restore_comments(PARAMS[0])
        except UserError as error:
            raise UserError(
                [
                    *error.problems,
                    "params.yaml: `dvc exp run` has written these values into it, without the "
                    "comments; `git checkout params.yaml` brings back what was committed.",
                ]
            ) from None
    if paths == PARAMS and not PARAMS[0].exists():
        raise UserError(
            "params.yaml: there is no such file in this folder; `hsam params --write params.yaml` "
            "makes one, --params names another."
        )
    return load(paths)


def params_and_places(
    params: list[Path],
    study: str | None,
    on: list[str] | None,
    results: Path,
    *,
    trains: bool = False,
) -> "tuple[Params, dict[str, Path]]":
    """The parameters of a stage's command, and the folder of each stage's outputs.

    `trains`: whether the stage is one that a run of predictions has not.
    """
    if study is None:
        if on:
            raise UserError(f"--on {' '.join(on)}: is for a run of a study; name it with --study.")
        return parameters(params), {name: results / name for name in RUN_STAGES}
    if params != PARAMS:
        raise UserError("--params: a study has its own parameters; give --params or --study.")
    from pipeline.studies import plan

    run = plan.find(study, plan.parse_on(on))
    if trains and run.predictions is not None:
        raise UserError(
            f"--study {study}: the arm is scored from {run.predictions} and never trained; "
            f"hsam evaluate --study {study} scores it."
        )
    return run.params, run.places(results)


def predictions_of(study: str | None, on: list[str] | None) -> Path | None:
    """The folder that a study's run scores; None where it is trained."""
    if study is None:
        return None
    from pipeline.studies import plan

    return plan.find(study, plan.parse_on(on)).predictions


def arm_of_predictions(study: str, on: list[str] | None) -> tuple[Path, str] | None:
    """Where a study looks for predictions of a run's draw and fold, and the command that scores
    them.
    """
    from pipeline.studies import plan

    name, used = study.partition("/")[0], plan.parse_on(on)
    asked = plan.find(study, used)
    runs = [run for part in plan.load(name, used) for run in part.runs]
    for run in runs:
        if run.predictions is not None and (run.draw, run.fold) == (asked.draw, asked.fold):
            words = ["hsam", "evaluate", "--study", f"{name}/{run.name}"]
            for preset in used:
                words += ["--on", preset]
            return run.predictions, shlex.join(words)
    return None


def check_searcher(study: str | None, on: list[str] | None) -> None:
    """Refuse the search of a run that takes another's."""
    if study is None:
        return
    from pipeline.studies import plan

    run = plan.find(study, plan.parse_on(on))
    if run.search_name != run.name:
        name = f"{study.partition('/')[0]}/{run.search_name}"
        raise UserError(
            f"--study {study}: an arm searches once for all its seeds; hsam search --study {name} "
            "does."
        )


def leased_device(gpus: int) -> str:
    """Lease GPUs before PyTorch looks for them; the device to work on."""
    from pipeline.core import gpu

    return "cuda" if gpu.lease(gpus) else "cpu"


def model_of(given: Path, runs: Path = RUNS) -> Path:
    """The folder of the model that a name or folder means."""
    from pipeline.core import trainings

    return trainings.find_model(given, runs)


def scored(given: list[Path], names: list[str] | None) -> tuple[list[Path], list[str]]:
    """The folders of scores that names or folders mean, and what tables call them."""
    from pipeline.core import trainings

    folders = [trainings.find_scores(run, RUNS) for run in given]
    called = [] if all(run.is_dir() for run in given) else [str(run) for run in given]
    return folders, names or called
