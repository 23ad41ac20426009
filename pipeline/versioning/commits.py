"""What an engine made, in `dvc.lock` and DVC's cache; and which files there DVC vouches for."""

import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from pipeline.core.console import say
from pipeline.core.params.blocks import READS, Params, stage_params
from pipeline.core.run_folder import read_provenance

PHANTOM = "phantom"


def commit(stages: Collection[str], params: Params, repository: Path) -> bool:
    """Write `dvc.lock` and put outputs into the cache, as `dvc repro` would have. Says what it did.

    The outputs themselves stay as they are, with their times.

    Args:
        stages: whose outputs are those of the parameters. One whose provenance says otherwise is
            left out, and those after it.
        params: of params.yaml.
        repository: root of the DVC repository.

    Returns:
        Whether DVC knows the outputs.
    """
    if not (repository / ".dvc").is_dir():
        say("versions: no DVC here, so outputs aren't kept by version; `dvc init` changes that")
        return False
    mine = _made_with(params, [stage for stage in READS if stage in stages], repository)
    problem = _dvc(repository, "commit", "--quiet", "--force", "--no-relink", *mine)[1]
    if problem is None and PHANTOM not in mine:
        # DVC counts its phantoms as a part of every pipeline, whatever the data set
        problem = _dvc(repository, "repro", "--quiet", PHANTOM)[1]
    if problem is not None:
        say(f"versions: dvc.lock is not written; DVC says: {problem}")
        return False
    say("versions: outputs are in DVC's cache; commit dvc.lock and results/evaluate/headline.json")
    return True


def states(params: Params, written: Params, repository: Path) -> Mapping[str, bool]:
    """Whether a stage's outputs are those of `dvc.lock`, for its parameters, code and inputs.

    Raw volumes may be absent: outputs that are there need them no more.

    Args:
        params: that the stages are to be run with.
        written: those of params.yaml, which DVC reads.
        repository: root of the DVC repository.

    Returns:
        Stage to answer, for those in `dvc.lock`; a stage after one with "no" has "no" too. Empty
        where DVC can't tell.
    """
    text, problem = _dvc(repository, "status", "--json")
    if problem is not None:
        return {}
    changes = json.loads(text)
    found: dict[str, bool] = {}
    for stage in READS:
        same = stage_params(params, stage) == stage_params(written, stage)
        change = [part for part in changes.get(stage, []) if part != _absent(params.dataset.root)]
        found[stage] = same and not change and (stage == PHANTOM or all(_before(found)))
    return found


def _before(found: Mapping[str, bool]) -> list[bool]:
    return [state for stage, state in found.items() if stage != PHANTOM]


def _absent(root: str) -> Mapping[str, Mapping[str, str]]:
    """What `dvc status` says of a stage whose raw volumes alone are missing."""
    return {"changed deps": {root: "deleted"}}


def _made_with(params: Params, stages: list[str], repository: Path) -> list[str]:
    """The stages up to the first whose outputs were made with other parameters."""
    found = []
    for stage in stages:
        recorded = read_provenance(repository / "results" / stage).get("params")
        if recorded is not None and recorded != stage_params(params, stage):
            say(f"versions: results/{stage} is of other parameters than params.yaml: not kept")
            break
        found.append(stage)
    return found


def _dvc(repository: Path, *arguments: str) -> tuple[str, str | None]:
    """What DVC prints; what went wrong, in its last words, or None."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DVC_")}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=repository,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        return done.stdout, None
    said = [line.strip() for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return done.stdout, " ".join(said).removeprefix("ERROR: ") or f"exit code {done.returncode}"
