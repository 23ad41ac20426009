"""Stage split: a role for every slice: train, validation, test or unused.

Inputs: manifest and shards of prepare (their pixel counts, no image). Outputs: split.parquet
(`pipeline.shards.roles`), split.json for people, cost.json, provenance.json. Every choice is
seeded by `split.seed` and by what is chosen, and made over sorted ids: the same on every machine.
"""

import hashlib
import io
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.core import files, run_folder
from pipeline.core.console import say
from pipeline.core.cost import Cost
from pipeline.core.errors import UserError, few
from pipeline.core.params.blocks import Params, stage_params
from pipeline.core.params.blocks import Split as Settings
from pipeline.shards.case import ShardReader
from pipeline.shards.manifest import Manifest, read_manifest
from pipeline.shards.roles import ROLES, SplitFile, leaks, write_split
from pipeline.shards.subjects import owners

SPLIT, SUMMARY = "split.parquet", "split.json"
Key = tuple[str, int]


def run(params: Params, prepared: Path, out: Path, runs: Path) -> None:
    """Write the split of a prepared data set.

    Args:
        params: `base` and `split` are read.
        prepared: published folder of prepare.
        out: folder of the published outputs.
        runs: folder of the run folders.

    Raises:
        UserError: with everything in the settings or the list that doesn't fit the data.
    """
    manifest_file = Path(prepared) / "manifest.parquet"
    manifest = read_manifest(manifest_file)
    inputs = {"manifest": files.sha256(manifest_file)}
    path = None if params.split.list is None else Path(params.split.list)
    if path is not None:
        listed = read_list(path)
        inputs["list"] = files.sha256(path)
    key = stage_params(params, "split")
    out = Path(out)
    with run_folder.open_run(runs, manifest.name, "split", key, inputs) as work:
        if work.is_done():
            say(f"split: already done in {work.path}")
        else:
            begun = time.monotonic()
            counts = class_counts(manifest, Path(prepared) / "shards")
            if path is not None:
                slices = {row.case: row.slices for row in manifest}
                roles = roles_from_list(listed, slices, path, params.split.group)
            else:
                shows = {case: found[:, 1:].sum(axis=1) > 0 for case, found in counts.items()}
                canonical = [row.case for row in manifest if row.role == "test"]
                roles = roles_from_settings(params.split, params.seed_of("split"), shows, canonical)
            split = SplitFile(manifest.name, roles)
            unseen = unseen_organs(split, counts, manifest.class_names)
            files.write_json(work.out / SUMMARY, summary(split, unseen))
            write_split(work.out / SPLIT, split)
            Cost.of(time.monotonic() - begun, "cpu").write(work.out)
            work.finish()
        work.publish(out)
    about = files.read_json(out / SUMMARY)
    _tell(about, out)
    for case in cases_without_organ(manifest, about["roles"]["test"]["cases"]):
        say(f"warning: test case {case} shows no organ; only organs invented there can be scored.")


def cases_without_organ(manifest: Manifest, cases: Iterable[str]) -> list[str]:
    """Those of the cases whose label volumes show no organ."""
    return [case for case in cases if not any(manifest.case(case).counts[1:])]


def summary(split: SplitFile, unseen: Sequence[str]) -> dict[str, Any]:
    """What split.json holds: the hash, for each role its subjects, slices and case ids, and the
    organs that no training slice shows.
    """
    roles = {role: {**split.counts[role], "cases": split.cases[role]} for role in ROLES}
    about = {"name": split.name, "hash": split.hash, "roles": roles}
    return about | {"organs_without_training_slices": list(unseen)}


def class_counts(manifest: Manifest, shards: Path) -> dict[str, NDArray[np.int64]]:
    """For each case, sorted, an array (slices, classes): pixels of each class in each slice."""
    return {
        row.case: ShardReader(shards / row.shard).counts
        for row in sorted(manifest, key=lambda row: row.case)
    }


def unseen_organs(
    split: SplitFile, counts: Mapping[str, NDArray[np.int64]], organs: Sequence[str]
) -> list[str]:
    """Organs that no training slice shows: a model can't learn them."""
    pixels = np.stack([counts[case][index] for case, index in split.slices["train"]]).sum(axis=0)
    return [organ for label, organ in enumerate(organs, 1) if not pixels[label]]


def _tell(about: Mapping[str, Any], out: Path) -> None:
    """One line on what was made, and one where it can't teach every organ."""
    roles = about["roles"]
    text = ", ".join(
        f"{roles[role]['slices']:,} {role} slices of {roles[role]['subjects']}" for role in ROLES
    )
    if unseen := about["organs_without_training_slices"]:
        say(
            f"split: warning: no training slice shows {', '.join(unseen)}, so that no model can "
            "learn it; train on other subjects or more slices (split), or leave it out of "
            "dataset.labels."
        )
    say(f"split: {text} subjects, in {out}; next: hsam search, or hsam train without one")


def roles_from_settings(
    settings: Settings,
    seed: int,
    shows: Mapping[str, NDArray[np.bool_]],
    canonical_test: Sequence[str],
) -> dict[Key, str]:
    """A role for every slice.

    Subjects are cases, or what `split.group` finds in their ids: all cases of a subject go the same
    way. Test subjects first; of the others whole subjects for validation; of the rest the labelled
    ones; of their slices a share, drawn over all of them together. Test and validation keep all
    their slices.

    Args:
        settings: the block `split`.
        seed: `Params.seed_of("split")`.
        shows: case to (slices,) whether the slice shows any organ.
        canonical_test: the literature's test subjects among the cases.

    Raises:
        UserError: settings that don't fit the data.
    """
    cases = sorted(shows)
    _check_ids(settings, cases)
    owner = owners(settings.group, cases)
    test = _test_cases(settings, seed, owner, canonical_test)
    pool = {case: owner[case] for case in cases if case not in test}
    named = settings.subjects if isinstance(settings.subjects, list) else []
    _check_pool(settings, pool, named, {case: owner[case] for case in cases if case in test})
    validation = _held_out(settings, seed, pool, named)
    learning = {case: owner[case] for case in pool if case not in validation}
    labelled = _labelled(settings, seed, learning)
    candidates = [
        (case, index)
        for case in labelled
        for index, organ in enumerate(shows[case])
        if organ or not settings.only_labelled
    ]
    chosen = candidates
    if settings.slices is not None:
        count = rounded(settings.slices * len(candidates))
        chosen = _draw(candidates, max(count, 1), seed, "slices")
    if not chosen:
        raise UserError(
            "split: no training slice is left: the labelled subjects show no organ "
            f"({', '.join(labelled)}; split.only_labelled)."
        )
    training = set(chosen)
    whole = dict.fromkeys(validation, "validation") | dict.fromkeys(test, "test")
    return {
        (case, index): "train" if (case, index) in training else whole.get(case, "unused")
        for case in cases
        for index in range(len(shows[case]))
    }


def rounded(value: float) -> int:
    """To the nearest whole number, halves up: 221.1 -> 221, 2.5 -> 3."""
    return int(np.floor(value + 0.5))


def read_list(path: Path) -> pd.DataFrame:
    """A list of the user's: columns case (text), slice (as found) and role (text).

    Raises:
        UserError: missing, unreadable, or without these columns.
    """
    if not path.is_file():
        raise UserError(f"split.list: {path}: there is no such file.")
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            # as text: ids such as 007 must stay what they are
            text = io.StringIO(files.read_text(path))
            table = pd.read_csv(text, dtype=str, keep_default_na=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"split.list: {path}: can't be read ({reason}).") from None
    missing = {"case", "slice", "role"} - set(table.columns)
    if missing:
        raise UserError(
            f"split.list: {path}: expected the columns case, slice, role; "
            f"{', '.join(sorted(missing))} missing, found {', '.join(map(str, table.columns))}."
        )
    return table[["case", "slice", "role"]]


def roles_from_list(
    table: pd.DataFrame, slices: Mapping[str, int], path: Path, group: str | None = None
) -> dict[Key, str]:
    """The roles that a list gives; slices that it leaves out are unused.

    Args:
        table: columns case, slice, role.
        slices: case to its number of slices.
        path: of the list, for messages.
        group: as `owners` takes it; a subject must not be learned from and tested on.

    Raises:
        UserError: with every row that can't be, and every leak.
    """
    problems: list[str] = []
    owner = owners(group, list(slices))
    listed: dict[Key, str] = {}
    used: dict[str, set[str]] = {}
    for number, (case, index, role) in enumerate(table.itertuples(index=False, name=None), 1):
        where = f"split.list: {path}: row {number}"
        before = len(problems)
        place = _whole(index)
        if case not in slices:
            problems.append(f"{where}: there is no case {case!r}.")
        elif place is None or not 0 <= place < slices[case]:
            last = slices[case] - 1
            problems.append(f"{where}: case {case} has slices 0 to {last}, found {index!r}.")
        if role not in ROLES:
            problems.append(f"{where}: expected a role of {', '.join(ROLES)}, found {role!r}.")
        if place is None or len(problems) > before:
            continue
        if (case, place) in listed:
            problems.append(f"{where}: case {case} slice {place} is listed twice.")
        listed[case, place] = role
        used.setdefault(role, set()).add(owner[case])
    problems += [f"split.list: {path}: {problem}" for problem in leaks(used)]
    if not problems and "train" not in used:
        problems.append(f"split.list: {path}: no slice has the role train.")
    if problems:
        raise UserError(problems)
    return {
        (case, index): listed.get((case, index), "unused")
        for case in sorted(slices)
        for index in range(slices[case])
    }


def _check_ids(settings: Settings, cases: Sequence[str]) -> None:
    problems = []
    for key, value in (("test", settings.test), ("subjects", settings.subjects)):
        if isinstance(value, list):
            unknown = [case for case in value if case not in cases]
            twice = sorted({case for case in value if value.count(case) > 1})
            if unknown:
                problems.append(
                    f"split.{key}: there is no case {few(unknown)}; the cases are {few(cases)}."
                )
            problems += [f"split.{key}: case {case} is named twice." for case in twice]
    if problems:
        raise UserError(problems)


def _test_cases(
    settings: Settings, seed: int, owner: Mapping[str, str], canonical: Sequence[str]
) -> set[str]:
    if isinstance(settings.test, list):
        return set(settings.test)
    subjects = sorted(set(owner.values()))
    if settings.folds is not None and settings.fold is not None:
        if settings.folds > len(subjects):
            raise UserError(
                f"split.folds: {settings.folds} asked for, there are {len(subjects)} subjects."
            )
        dealt = _shuffled(subjects, seed, "folds")[settings.fold :: settings.folds]
        return _cases_of(dealt, owner)
    if settings.test is None:
        if not canonical:
            raise UserError(
                "split.test: null takes the test subjects of the literature, and none of them is "
                "among the cases; set a share such as 0.3 or name the test cases."
            )
        return set(canonical)
    count = rounded(settings.test * len(subjects))
    drawn = _draw(subjects, max(count, 1) if settings.test > 0 else 0, seed, "test")
    return _cases_of(drawn, owner)


def _check_pool(
    settings: Settings, pool: Mapping[str, str], named: Sequence[str], test: Mapping[str, str]
) -> None:
    problems = [
        f"split.subjects: case {case} is a test subject and must not be learned from."
        for case in named
        if case in test
    ]
    if both := sorted(set(pool.values()) & set(test.values())):
        problems.append(
            f"split.group: of {few(both)} some cases are tested on and others aren't; name all "
            "cases of a subject in split.test, or none."
        )
    if not pool:
        problems.append("split.test: every subject is a test subject; none is left to train on.")
    if problems:
        raise UserError(problems)


def _held_out(
    settings: Settings, seed: int, pool: Mapping[str, str], named: Sequence[str]
) -> set[str]:
    """Validation cases; the subjects that `split.subjects` names are not among them."""
    if settings.validation == 0:
        return set()
    subjects, learned = sorted(set(pool.values())), {pool[case] for case in named}
    free = [subject for subject in subjects if subject not in learned]
    count = max(rounded(settings.validation * len(subjects)), 1)
    # without named subjects, one must remain to train on
    if count > len(free) - (0 if named else 1):
        raise UserError(
            f"split.validation: {settings.validation} of {len(subjects)} training subjects is "
            f"{count}, but {len(free)} are free and training needs its own; lower it or set it to "
            "0."
        )
    return _cases_of(_draw(free, count, seed, "validation"), pool)


def _labelled(settings: Settings, seed: int, owner: Mapping[str, str]) -> list[str]:
    wanted = settings.subjects
    if wanted is None:
        return list(owner)
    if isinstance(wanted, list):
        return sorted(wanted)
    subjects = sorted(set(owner.values()))
    if wanted > len(subjects):
        raise UserError(
            f"split.subjects: {wanted} asked for, {len(subjects)} left after test and validation."
        )
    return sorted(_cases_of(_draw(subjects, wanted, seed, "subjects"), owner))


def _cases_of(subjects: Iterable[str], owner: Mapping[str, str]) -> set[str]:
    chosen = set(subjects)
    return {case for case, subject in owner.items() if subject in chosen}


def _draw(items: Sequence[Any], count: int, seed: int, purpose: str) -> list[Any]:
    """`count` of `items`, seeded, in their own order.

    Philox's raw numbers are fixed by its definition, so the draw outlives NumPy's versions.
    """
    chosen = np.sort(_order(len(items), seed, purpose)[:count])
    return [items[place] for place in chosen]


def _shuffled(items: Sequence[Any], seed: int, purpose: str) -> list[Any]:
    """All of them in a seeded order, as `_draw` takes them."""
    return [items[place] for place in _order(len(items), seed, purpose)]


def _order(count: int, seed: int, purpose: str) -> NDArray[np.intp]:
    key = hashlib.sha256(f"split {purpose} {seed}".encode()).digest()[:16]
    numbers = np.random.Philox(key=np.frombuffer(key, "<u8")).random_raw(count)
    return np.argsort(numbers, kind="stable")


def _whole(value: Any) -> int | None:
    try:
        return int(value) if float(value) == int(float(value)) else None
    except (TypeError, ValueError, OverflowError):
        return None
