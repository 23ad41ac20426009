"""Finds the true and predicted label files of each case in two folders.

A case is one label map (`<case>.nii.gz`) or a folder with one mask file an organ, as any tool
writes them.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.imaging.volumes import ITK, NIFTI

SUFFIXES = (*NIFTI, *ITK)
# nnU-Net's suffix of the first image channel; some tools keep it in the names of label files
CHANNEL = "_0000"
LABEL_MAPS, MASKS = "{case}", "{case}/{organ}"

# labels of one case: a label map's path, or mask files by their name without the ending
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
        names: pattern of the file names in each folder, without the ending: for label maps
            "{case}", "{case}/{case}_seg", "label{case}", ...; for masks "{case}/{organ}",
            "{case}/segmentations/{organ}", ... A folder with no volume itself, but with folders
            of volumes, is read as "{case}/{organ}" where the pattern is "{case}".
        cases: ids to pair; empty: all.

    Raises:
        UserError: a folder is missing or without volumes, a case is there twice, or in one folder
            only; lists every such case.
    """
    folders = (truth, prediction)
    true, predicted = (_volumes(folder, name) for folder, name in zip(folders, names, strict=True))
    true, predicted = _without_channel(true, predicted), _without_channel(predicted, true)
    if cases:
        unknown = sorted(set(cases) - set(true) - set(predicted))
        if unknown:
            raise UserError(f"{truth}: no case {', '.join(unknown)} there or in {prediction}.")
        true, predicted = (
            {case: side[case] for case in cases if case in side} for side in (true, predicted)
        )
    problems = _unpaired(true, predicted, prediction, "prediction")
    problems += _unpaired(predicted, true, truth, "truth")
    if problems:
        raise UserError(problems)
    return [LabelPair(case, true[case], predicted[case]) for case in sorted(true)]


def find_predictions(folder: Path, cases: Collection[str]) -> dict[str, Source]:
    """The label volumes of these cases in a folder; others there are passed over.

    Raises:
        UserError: no such folder, or a case without a volume or with several.
    """
    found = _without_channel(_volumes(folder, LABEL_MAPS), dict.fromkeys(cases, folder))
    if problems := _unpaired(dict.fromkeys(cases, folder), found, folder, "prediction"):
        raise UserError(problems)
    return {case: found[case] for case in sorted(cases)}


def place(source: Source) -> Path:
    """The path that messages name: a label map's file, or the folder of a case's masks."""
    return source if isinstance(source, Path) else next(iter(source.values())).parent


def _unpaired(
    cases: Mapping[str, Source], others: Mapping[str, Source], folder: Path, missing: str
) -> list[str]:
    """A problem if some cases are not among the others, which lie in `folder`."""
    alone = sorted(set(cases) - set(others))
    if not alone:
        return []
    return [
        f"{folder}: no {missing} for {len(alone)} of {len(cases)} cases: "
        f"{', '.join(alone)}; add them, or name the cases to score with --case."
    ]


def _volumes(folder: Path, name: str) -> Mapping[str, Source]:
    """Case id to its label map or masks, by the pattern `name`; see `find_pairs`."""
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
        f"{folder}: {_described(*key)} is there more than once "
        f"({', '.join(path.name for path in paths)}); remove all but one."
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
    """Volumes below `folder` whose names fit the pattern, with the match of case and organ."""
    pattern = _pattern(name)
    for path in _at_depth(folder, name.count("/")):
        ending = next((end for end in SUFFIXES if path.name.lower().endswith(end)), None)
        if ending is None or path.name.startswith(".") or not path.is_file():
            continue
        relative = path.relative_to(folder).as_posix()[: -len(ending)]
        if match := pattern.fullmatch(relative):
            yield match, path


def _at_depth(folder: Path, depth: int) -> list[Path]:
    """What lies that many folders below a folder, sorted; 0: directly in it."""
    found = files.entries(folder)
    for _ in range(depth):
        inner = [path for path in found if path.is_dir()]
        found = [path for place in inner for path in files.entries(place)]
    return sorted(found)


def _pattern(name: str) -> re.Pattern[str]:
    """ "{case}/{organ}" and the like as a regular expression with these groups."""
    text = ""
    for part in re.split(r"(\{case\}|\{organ\})", name):
        if part == "{organ}":
            text += r"(?P<organ>[^/]+)"
        elif part == "{case}":
            text += "(?P=case)" if "(?P<case>" in text else r"(?P<case>[A-Za-z0-9][A-Za-z0-9_.-]*)"
        else:
            text += re.escape(part)
    return re.compile(text)


def _described(case: str, organ: str) -> str:
    return f"case {case}" if not organ else f"{organ} of case {case}"


def _without_channel(
    cases: Mapping[str, Source], others: Mapping[str, Source]
) -> dict[str, Source]:
    """The cases without the suffix CHANNEL, where the other folder has them by that name."""
    result = {}
    for case, source in cases.items():
        short = case.removesuffix(CHANNEL)
        result[short if short in others and short not in cases else case] = source
    return result
