"""Which run folders nothing needs: no training, nothing published, no process at work.

Trainings and imported models themselves always stay, and so do prepared volumes, which many
processes read without a lock.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.core import files, trainings
from pipeline.core.trainings import FINISHED, Work

REPORT = "report.html"
Place = tuple[Path, Mapping[str, Any]]  # a published folder and its record


def find(runs: Path, results: Path, reports: Path) -> list[Work]:
    """The run folders that can go.

    A search goes once it has ended and no training began from what it found, an evaluation once its
    model is gone, embeddings once nothing unfinished could read them, a split when none of these
    was made with it, a page when it isn't in the folder of reports.

    Args:
        runs: folder of the run folders.
        results, reports: where stages publish.
    """
    work = trainings.all_work(runs)
    places = list(trainings.published([results]))
    pages = {files.sha256(path) for path in sorted(Path(reports).glob("*.html"))}
    staying = [
        each
        for each in work
        if each.in_use()
        or published_at(each, places)
        or _is_needed(each, work)
        or (each.stage == "report" and each.outputs.get(REPORT) in pages)
    ]
    splits = {each.key.get("inputs", {}).get("split") for each in staying}
    return [each for each in work if each not in staying and _split(each) not in splits]


def published_at(work: Work, places: Iterable[Place]) -> list[str]:
    """The published folders that hold a run."""
    return [str(folder) for folder, record in places if work.is_at(record)]


def _is_needed(work: Work, others: Sequence[Work]) -> bool:
    """Whether a run is one to keep, or one to keep was or could be made from it."""
    models = [other for other in others if other.is_model]
    match work.stage:
        case "search":
            best = work.outputs.get("best.yaml")
            return best is None or any(_inputs(model).get("search") == best for model in models)
        case "evaluate":
            finished = [model.hashes() for model in models if model.outputs]
            return any(trainings.is_of(hashes, work.key) for hashes in finished)
        case "embeddings":
            open_ends = [each for each in others if each.is_model or each.stage == "search"]
            return any(each.state != FINISHED and _same_slices(each, work) for each in open_ends)
        case "split" | "report":
            return False
        case _:
            return True


def _same_slices(one: Work, other: Work) -> bool:
    names = ("manifest", "split")
    return all(_inputs(one).get(name) == _inputs(other).get(name) for name in names)


def _inputs(work: Work) -> Mapping[str, Any]:
    return work.key.get("inputs", {})


def _split(work: Work) -> Any:
    """The hash of the split that was made here; a value of its own where there is none."""
    if work.stage != "split":
        return work
    return trainings.mapping(work.out / trainings.SPLIT).get("hash", work)
