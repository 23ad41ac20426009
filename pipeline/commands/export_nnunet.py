"""`hsam export-nnunet`: the prepared cases and their split as a data set that nnU-Net trains on.

    OUT/nnUNet_raw/Dataset501_synapse/{dataset.json,imagesTr,labelsTr,imagesTs,labelsTs}
    OUT/nnUNet_preprocessed/Dataset501_synapse/splits_final.json

Validation cases are those of fold 0, test cases are in imagesTs, and cases without any label in
neither. How it is trained and scored: docs/rivals.md.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline import datasets
from pipeline.core import files
from pipeline.core.console import say
from pipeline.core.errors import UserError, few
from pipeline.core.params.blocks import Params
from pipeline.core.pool import over_cases
from pipeline.datasets import check, nnunet_export, nnunet_folds
from pipeline.datasets.base import RawCase
from pipeline.shards.manifest import Manifest, ManifestRow, read_manifest
from pipeline.shards.recipe import Recipe
from pipeline.shards.roles import SplitFile, check_slices, read_split

FORMAT = 1  # of what is written, for `nnunet_export.RECORD`
LEARNED = ("train", "validation")
# the two folders of a case's files: of images and of labels
TRAINING, TEST = ("imagesTr", "labelsTr"), ("imagesTs", "labelsTs")


@dataclass(frozen=True)
class Work:
    """One case to write.

    Attributes:
        raw, recipe, row: its files, how they become classes, and what was prepared of it.
        labelled: slices whose labels are kept; None: all.
        images, labels: folders to write to.
    """

    raw: RawCase
    recipe: Recipe
    row: ManifestRow
    labelled: tuple[int, ...] | None
    images: Path
    labels: Path


def run(
    params: Params,
    prepared: Path,
    split: Path,
    out: Path,
    *,
    number: int = 501,
    jobs: int = 1,
    arm: tuple[Path, str] | None = None,
) -> None:
    """Write the data set; all of it, or nothing.

    Args:
        params: `dataset` and `prepare` are read.
        prepared, split: published folders of these stages.
        out: folder of nnU-Net's three folders.
        number: nnU-Net's id of the data set, 1 to 999.
        jobs: processes.
        arm: where a study looks for the predictions, and the command that scores them; None: no
            study does.

    Raises:
        UserError: inputs that are missing or don't belong together, a split that nnU-Net can't
            hold, or another data set in the place.
    """
    path = prepared / "manifest.parquet"
    manifest, roles = read_manifest(path), read_split(split / "split.parquet")
    check_slices(roles, manifest.name, {row.case: row.slices for row in manifest}, split)
    _check_roles(roles, split)
    recipe = Recipe.of(params)
    _check_recipe(recipe, manifest, path)
    target = out / nnunet_export.RAW / nnunet_export.folder_name(number, manifest.name)
    learned = _labelled(roles, manifest)
    record = {"format": FORMAT, "split": roles.hash, "manifest": files.sha256(path)}
    folds = nnunet_folds.content(roles.cases["train"], roles.cases["validation"])
    if not _is_there(target, record, number):
        kept = {**learned, **dict.fromkeys(roles.cases["test"])}
        found = datasets.get(params.dataset).find(params.dataset)
        _check_raw(found, kept, params)
        sparse = any(slices is not None for slices in learned.values())
        about = recipe.intensity, list(recipe.channels), len(learned), sparse, record
        content = nnunet_export.description(manifest.class_names, *about)
        with files.staged_folder(target) as new:
            work = {
                case: _work(new, found[case], recipe, manifest, kept[case], case in learned)
                for case in kept
            }
            _, problems = over_cases(write_case, work, jobs, "export-nnunet")
            if problems:
                raise UserError(problems)
            nnunet_export.write_description(new, content)
            files.write_json(new / nnunet_folds.FOLDS, folds)
    # nnU-Net looks for it here; newer versions take the raw folder's too
    beside = out / nnunet_folds.PREPROCESSED / target.name / nnunet_folds.FOLDS
    files.write_json(beside, folds)
    _tell(target, roles, learned)
    _tell_next(target, number, arm)


def write_case(work: Work) -> None:
    """Write image and labels of one case.

    Raises:
        UserError: files that aren't those that were prepared, or can't be.
    """
    raw, recipe, row = work.raw, work.recipe, work.row
    found = check.inspect(raw, recipe.labels, recipe.intensity)
    if found.problems:
        raise UserError(found.problems)
    assert found.image is not None and found.label is not None, "or it was a problem"
    hashes = [files.sha256_of(paths) for paths in (raw.image_files, raw.label_files)]
    if hashes != [row.image_sha256, row.label_sha256]:
        raise UserError(
            f"{raw.case}: {raw.image} or its label has changed since it was prepared; run the "
            "stages prepare and split again."
        )
    geometry = found.image.geometry
    labels = recipe.labels.apply(found.label.array)
    if work.labelled is not None:
        ignore = nnunet_export.ignore_label(recipe.labels.names)
        labels = nnunet_export.sparse_labels(labels, geometry, recipe.axes, work.labelled, ignore)
    nnunet_export.write_image(work.images, raw.case, found.image)
    nnunet_export.write_labels(work.labels, raw.case, labels, geometry)


def _work(
    folder: Path,
    raw: RawCase,
    recipe: Recipe,
    manifest: Manifest,
    labelled: tuple[int, ...] | None,
    learned: bool,
) -> Work:
    images, labels = (folder / name for name in (TRAINING if learned else TEST))
    return Work(raw, recipe, manifest.case(raw.case), labelled, images, labels)


def _labelled(roles: SplitFile, manifest: Manifest) -> dict[str, tuple[int, ...] | None]:
    """Training and validation cases to their slices with labels; None: all of them have."""
    places: dict[str, list[int]] = {}
    for role in LEARNED:
        for case, index in roles.slices[role]:
            places.setdefault(case, []).append(index)
    return {
        case: None if len(found) == manifest.case(case).slices else tuple(found)
        for case, found in sorted(places.items())
    }


def _check_roles(roles: SplitFile, split: Path) -> None:
    """Refuse what nnU-Net can't hold: a case of which one part is learned from, another not."""
    if not roles.cases["train"]:
        raise UserError(f"{split}: the split has no training slices; nnU-Net needs some.")
    both = sorted(set(roles.cases["train"]) & set(roles.cases["validation"]))
    if both:
        raise UserError(
            f"{split}: {few(both)} have slices in train and in validation, and nnU-Net validates "
            "on whole cases; give each case one of the two roles (split.list)."
        )


def _check_recipe(recipe: Recipe, manifest: Manifest, path: Path) -> None:
    """Refuse parameters whose classes or slices are others than those that were prepared."""
    prepared = (manifest.class_names, manifest.axes)
    if (given := (list(recipe.labels.names), recipe.axes)) != prepared:
        raise UserError(
            f"{path}: prepared with the organs {', '.join(prepared[0])} along {prepared[1]}, the "
            f"parameters say {', '.join(given[0])} along {given[1]}; run prepare and split again."
        )


def _check_raw(found: Mapping[str, RawCase], wanted: Mapping[str, object], params: Params) -> None:
    if missing := [case for case in wanted if case not in found]:
        raise UserError(
            f"{params.dataset.root}: {few(missing)} were prepared and are not there any more; "
            "bring them back, or run the stages prepare and split again."
        )


def _is_there(target: Path, record: Mapping[str, object], number: int) -> bool:
    """Whether this very export is there.

    Raises:
        UserError: the place, or the number, belongs to another data set.
    """
    taken = sorted(target.parent.glob(f"{nnunet_export.folder_name(number, '')}*"))
    if not taken:
        return False
    if taken == [target] and nnunet_export.read_record(target) == record:
        return True
    raise UserError(
        f"{taken[0]}: another data set, or one of another split, has this number; choose another "
        "with --id, or remove it here and from nnU-Net's other folders."
    )


def _tell(target: Path, roles: SplitFile, learned: Mapping[str, tuple[int, ...] | None]) -> None:
    """What was written."""
    counts = roles.counts
    sparse = any(learned[case] is not None for case in roles.cases["train"])
    others = ", whose other slices carry the ignore label" if sparse else ""
    say(
        f"export-nnunet: {counts['train']['slices']:,} labelled slices of "
        f"{counts['train']['subjects']} training cases{others}; "
        f"{counts['validation']['subjects']} validation and {counts['test']['subjects']} test "
        f"cases; in {target}"
    )
    if not roles.cases["validation"]:
        say("export-nnunet: no validation cases, so fold 0 validates on the training cases")


def _tell_next(target: Path, number: int, arm: tuple[Path, str] | None) -> None:
    """The commands that go on from the export."""
    place, home = shlex.quote(str(target)), target.parent.parent
    folder, command = arm or (home / "predictions", "")
    predictions = shlex.quote(str(folder))
    score = f"hsam score --truth {place}/labelsTs --prediction {predictions} --out scores"
    print("next, where nnU-Net is installed (docs/rivals.md):")
    for name in nnunet_export.FOLDERS:
        print(f"  export {name}={shlex.quote(str(home.resolve() / name))}")
    print(f"  nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity")
    print(f"  nnUNetv2_train {number} 2d 0")
    print(f"  nnUNetv2_predict -d {number} -c 2d -f 0 -i {place}/imagesTs -o {predictions}")
    print(f"  {command or score}")
