"""Adds finished runs of studies to the rows of `dvc exp show`."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.studies.fanout import Fanout
from pipeline.studies.plan import Run
from pipeline.versioning.experiments import Finished, record


def run(runs: Sequence[Run], on: tuple[str, ...], results: Path) -> None:
    """Record runs in the repository of the working directory, each under its label.

    Args:
        runs: with outputs of evaluate.
        on: what their studies are run on.
        results: folder of the stages' outputs.

    Raises:
        UserError: runs without an evaluation, all of them named; or DVC can't.
    """
    fanout = Fanout(on, results)
    places = {run.label: _places(run, fanout.doer(run), results) for run in runs}
    if missing := [p["evaluate"] for p in places.values() if not p["evaluate"].is_dir()]:
        raise UserError(f"{path}: there is no evaluation; run it first." for path in missing)
    names = record([Finished(r.label, r.params, places[r.label]) for r in runs], Path.cwd())
    if names:
        say(f"recorded {', '.join(names)}: dvc exp show, dvc exp apply NAME")
    else:
        say("nothing recorded: no git repository with a commit and with DVC here")


def _places(run: Run, doer: Run | None, results: Path) -> dict[str, Path]:
    """Its stages' folders; those of the run that did the same work where it has no copy."""
    others = (doer or run).places(results)
    return {
        stage: folder if folder.is_dir() else others[stage]
        for stage, folder in run.places(results).items()
    }
