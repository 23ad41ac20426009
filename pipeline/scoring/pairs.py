"""Label volumes of any tool, found by case id: one volume a case, or one mask file an organ."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError
from pipeline.imaging.volumes import ITK, NIFTI

SUFFIXES = (*NIFTI, *ITK)
# what image channels are called in nnU-Net's format; some tools keep it in the names of labels
CHANNEL = "_0000"
LABEL_MAPS, MASKS = "{case}", "{case}/{organ}"

# a label map, or the mask files of a case by what they are called without the ending
Source = Path | Mapping[str, Path]


@dataclass(frozen=True)
class LabelPair:
    """The truth and the prediction of one case."""

    case: str
    truth: Source
    prediction: Source


def find_pairs(
    truth: Path, prediction: Path, names: tuple[str, str], cases: Collection[str] = ()
) -> list[LabelPair]:
    """The label volumes of two folders, paired by case id and sorted by it.

    A name that ends in nnU-Net's _0000 is matched without it where the other folder has no
    such case.

    Args:
        truth, prediction: the folders.
        names: for each, where a case's file is below it, without the ending: "{case}", or such as
            "{case}/{case}_seg" or "label{case}"; with "{organ}" in it the mask files of a case,
            such as "{case}/segmentations/{organ}". A folder that holds folders of volumes and no
            volume itself is read as "{case}/{organ}" where "{case}" is asked for.
        cases: the only ones to pair; none: all.

    Raises:
        UserError: a folder is missing or without volumes, a case is there twice, or in one folder
            only; lists every such case.
    """
    folders = (truth, prediction)
    found = [_volumes(folder, name) for folder, name in zip(folders, names, strict=True)]
    first, second = _without_channel(found[0], found[1]), _without_channel(found[1], found[0])
    if cases:
        unknown = sorted(set(cases) - set(first) - set(second))
        if unknown:
            raise UserError(f"{truth}: no case {', '.join(unknown)} there or in {prediction}.")
        first, second = (
            {case: own[case] for case in cases if case in own} for own in (first, second)
        )
    problems = []
    for mine, other, folder, missing in (
        (first, second, prediction, "prediction"),
        (second, first, truth, "truth"),
    ):
        alone = sorted(set(mine) - set(other))
        if alone:
            problems.append(
                f"{folder}: no {missing} for {len(alone)} of {len(mine)} cases: "
                f"{', '.join(alone)}; add them, or name the cases to score with --case."
            )
    if problems:
        raise UserError(problems)
    return [LabelPair(case, first[case], second[case]) for case in sorted(first)]


def place(source: Source) -> Path:
    """The file of a label map, the folder of masks; for messages."""
    return source if isinstance(source, Path) else next(iter(source.values())).parent


def _volumes(folder: Path, name: str) -> dict[str, Source]:
    """Case id to its file or files."""
    if name.count("{case}") == 0 or name.count("{organ}") > 1:
        raise UserError(
            f"{name!r}: expected a name with {{case}} in it, such as 'label{{case}}', and "
            "{organ} once where each organ has a file."
        )
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder of label volumes.")
    if name == LABEL_MAPS and not any(_matches(folder, name)) and any(_matches(folder, MASKS)):
        name = MASKS
    found: dict[tuple[str, str], list[Path]] = {}
    for match, path in _matches(folder, name):
        groups = match.groupdict()
        found.setdefault((groups["case"], groups.get("organ", "")), []).append(path)
    problems = [
        f"{folder}: {_what(*key)} is there more than once ({_names(paths)}); remove all but one."
        for key, paths in found.items()
        if len(paths) > 1
    ]
    if not found:
        problems.append(
            f"{folder}: no label volume of the name {name} there; expected {', '.join(SUFFIXES)}."
        )
    if problems:
        raise UserError(problems)
    if "{organ}" not in name:
        return {case: paths[0] for (case, _), paths in found.items()}
    masks: dict[str, dict[str, Path]] = {}
    for (case, organ), paths in found.items():
        masks.setdefault(case, {})[organ] = paths[0]
    return masks


def _matches(folder: Path, name: str) -> Iterator[tuple[re.Match[str], Path]]:
    """The volumes whose names fit, and what they say."""
    pattern = _pattern(name)
    for path in sorted(folder.glob("/".join("*" * (name.count("/") + 1)))):
        ending = next((end for end in SUFFIXES if path.name.lower().endswith(end)), None)
        if ending is None or path.name.startswith(".") or not path.is_file():
            continue
        relative = path.relative_to(folder).as_posix()[: -len(ending)]
        if match := pattern.fullmatch(relative):
            yield match, path


def _pattern(name: str) -> re.Pattern[str]:
    text = ""
    for part in re.split(r"(\{case\}|\{organ\})", name):
        if part == "{organ}":
            text += r"(?P<organ>[^/]+)"
        elif part == "{case}":
            text += "(?P=case)" if "(?P<case>" in text else r"(?P<case>[A-Za-z0-9][A-Za-z0-9_.-]*)"
        else:
            text += re.escape(part)
    return re.compile(text)


def _what(case: str, organ: str) -> str:
    return f"case {case}" if not organ else f"{organ} of case {case}"


def _without_channel(mine: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    result = {}
    for case, path in mine.items():
        short = case.removesuffix(CHANNEL)
        result[short if short in other and short not in mine else case] = path
    return result


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(path.name for path in paths)
