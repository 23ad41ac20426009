"""`hsam runs`: the runs that there are, their names, and freeing the space of those not needed."""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from hsam.registry import MODELS
from pipeline.core import files, leftovers, locks, run_names, trainings
from pipeline.core.console import say, table_console
from pipeline.core.errors import UserError
from pipeline.core.run_folder import LOCK
from pipeline.core.trainings import Work

COLUMNS = ("name", "state", "model", "encoder", "data", "split", "Dice", "date", "MB", "path")
NUMBERS = ("Dice", "MB")
NONE = "-"


def show(runs: Path, results: Path, as_json: bool) -> None:
    """Print all trainings and imported models, the newest first.

    Args:
        runs: folder of the run folders.
        results: where stages publish.
        as_json: for programs.
    """
    found = gather(runs, results)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    if not found:
        print(f"no runs in {runs}; `hsam train`, `hsam run` or `hsam import-checkpoint` makes one")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in NUMBERS else "left")
    for run in found:
        table.add_row(*map(Text, _cells(run)))
    table_console().print(table)


def gather(runs: Path, results: Path) -> list[dict[str, Any]]:
    """All trainings and imported models, the newest first, as JSON values.

    Returns:
        name; state "finished", "unfinished", "at work"; imported; model, encoder, data, split (in
        words); dice, of its newest evaluation, as a share; scores: that evaluation's folder; date,
        local time; bytes; path; published: folders of results that hold it. None: not known.
    """
    work = trainings.all_work(runs)
    places = list(trainings.published([results]))
    splits = _splits(work, places)
    return [_facts(model, work, places, splits) for model in trainings.models(runs)]


def rename(given: Path, name: str, runs: Path) -> None:
    """Give a training another name.

    Raises:
        UserError: no such training, an imported model, or a name that another one has.
    """
    folder = trainings.find_model(given, runs)
    known = {work.path.resolve(): work for work in trainings.models(runs)}
    work = known.get(folder.resolve())
    if work is None or work.stage != "train":
        raise UserError(
            f"{given}: is no training in {runs}; an imported model goes by its folder's name: "
            "rename that."
        )
    before = work.name
    run_names.settle(work.path, before, name)
    say(f"runs: {before} is called {name}")


def remove(given: Sequence[Path], runs: Path, results: Path, yes: bool) -> None:
    """Remove trainings with their evaluations, after asking.

    Raises:
        UserError: one is unknown, in use or published; nothing is removed then.
    """
    places = list(trainings.published([results]))
    work, problems = trainings.all_work(runs), []
    chosen: dict[Path, Work] = {}
    for each in given:
        try:
            found = _training(each, runs)
        except UserError as error:
            problems += error.problems
            continue
        chosen[found.path] = found
        if found.outputs:
            evaluations = trainings.evaluations(found.hashes(), work)
            chosen |= {evaluation.path: evaluation for evaluation in evaluations}
    problems += filter(None, (_needed(each, places) for each in chosen.values()))
    if problems:
        raise UserError(problems)
    _free(list(chosen.values()), yes)


def clean(runs: Path, results: Path, reports: Path, yes: bool) -> None:
    """Remove the work that no training and nothing published needs, after asking.

    What goes is what `leftovers.find` finds; trainings and models always stay.
    """
    _free(leftovers.find(runs, results, reports), yes)


def _facts(
    model: Work, work: Iterable[Work], places: Sequence[leftovers.Place], splits: dict[str, str]
) -> dict[str, Any]:
    params = model.key.get("params", {}).get("train", {})
    config = model.record.get("config", params)
    name = config.get("model")
    encoder = name in MODELS and "backbone" in MODELS[name].takes
    scored = trainings.evaluations(model.hashes(), work) if model.outputs else []
    return {
        "name": model.name,
        "state": model.state,
        "imported": model.stage != "train",
        "model": name,
        "encoder": config.get("backbone") if encoder else None,
        "data": model.record.get("data_title") or model.data_set,
        "split": splits.get(model.key.get("inputs", {}).get("split", "")),
        "dice": _dice(scored[0].out) if scored else None,
        "scores": str(scored[0].out) if scored else None,
        "date": time.strftime("%Y-%m-%d %H:%M", time.localtime(model.date)),
        "bytes": model.size(),
        "path": str(model.path),
        "published": leftovers.published_at(model, places),
    }


def _cells(run: dict[str, Any]) -> list[str]:
    dice = NONE if run["dice"] is None else f"{run['dice']:.4f}"
    state = "imported" if run["imported"] else run["state"]
    words = [run["name"], state, run["model"], run["encoder"], run["data"], run["split"], dice]
    words += [run["date"], f"{run['bytes'] / 1e6:,.0f}", run["path"]]
    return [word or NONE for word in words]


def _dice(scores: Path) -> float | None:
    try:
        found = files.read_json(scores / trainings.METRICS).get("mean_dice")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, float | int) else None


def _splits(work: Iterable[Work], places: Iterable[leftovers.Place]) -> dict[str, str]:
    """The hash of each split that there is, to what it trains on in words."""
    folders = [each.out for each in work if each.stage == "split"]
    folders += [folder for folder, record in places if record.get("stage") == "split"]
    found = {}
    for folder in folders:
        try:
            summary = files.read_json(folder / trainings.SPLIT)
            train = summary["roles"]["train"]
            subjects = f"{train['subjects']} subject" + "s" * (train["subjects"] != 1)
            found[summary["hash"]] = f"{train['slices']} slices of {subjects}"
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def _training(given: Path, runs: Path) -> Work:
    folder = trainings.find_model(given, runs).resolve()
    for work in trainings.models(runs):
        if work.path.resolve() == folder:
            return work
    raise UserError(
        f"{given}: is no run folder of {runs}; `hsam runs` lists them. What the stages publish is "
        "theirs to replace."
    )


def _needed(work: Work, places: Iterable[leftovers.Place]) -> str | None:
    """Why a run must stay, as a sentence."""
    if work.in_use():
        return f"{work.path}: a process is at work here; wait for it or stop it first."
    if at := leftovers.published_at(work, places):
        return (
            f"{work.path}: is published in {', '.join(at)}; remove that first, or publish another "
            "run there."
        )
    return None


def _free(work: Sequence[Work], yes: bool) -> None:
    """Say what goes and how much that frees, ask, and remove it."""
    if not work:
        say("runs: nothing to remove")
        return
    sizes = {each.path: each.size() for each in work}
    for each in work:
        name = each.name if each.is_model else each.stage
        print(f"{sizes[each.path] / 1e6:10,.1f} MB  {name}  {each.path}")
    folders = f"{len(work)} folder" + "s" * (len(work) != 1)
    total = f"{folders}, {sum(sizes.values()) / 1e6:,.1f} MB"
    if not yes and not _agreed(f"Remove {total}?"):
        say("runs: nothing was removed")
        return
    for each in work:
        _remove(each)
    say(f"runs: removed {total}")


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UserError("runs: removing needs an answer; give --yes.")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _remove(work: Work) -> None:
    """Remove a run folder that nobody has begun to work in meanwhile."""
    release = locks.try_lock(work.path / LOCK)
    if release is None:
        say(f"runs: {work.path} stays: a process has begun to work there")
        return
    try:
        gone = work.path.with_name(f".{work.path.name}-removed")
        shutil.rmtree(gone, ignore_errors=True)
        os.replace(work.path, gone)
    finally:
        release()
    shutil.rmtree(gone, ignore_errors=True)
