"""`hsam push` and `hsam pull`: models handed on by way of a hub or a shared disk."""

import shutil
import tempfile
from pathlib import Path

from pipeline.core import files, run_names, trainings
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.core.run_folder import MODEL_FILES, PULL, RunFolder
from pipeline.inference import records
from pipeline.inference.identity import identify, sentence
from pipeline.training.history import EPOCH_COLUMNS, VALIDATION_COLUMNS, table
from pipeline.versioning import hub, model_folder

ANOTHER = "name another TARGET"


def push(run: Path, target: str, public: bool) -> None:
    """Hand a model on.

    Args:
        run: a run folder of training, results/train or an imported one.
        target: "hf:OWNER/NAME", or a folder to make.
        public: whether everyone may read a repository that is made.

    Raises:
        UserError: no model, something is there already, or a hub refuses; nothing is left then but
            an empty repository, to which the next push goes.
    """
    folder = records.model_folder(run)
    record = records.read_record(folder)
    place = hub.place(target)
    if place is None:
        with files.atomic_folder(Path(target), ANOTHER) as new:
            model_folder.write(new, folder, record, Path(target).name)
        commit = ""
    else:
        with tempfile.TemporaryDirectory() as scratch:
            model_folder.write(Path(scratch), folder, record, place.name)
            commit = f", commit {hub.upload(Path(scratch), place, public)[:12]}"
    weights = files.sha256(folder / MODEL_FILES[1])[:12]
    say(f"push: {target}{commit}, weights {weights}; elsewhere: hsam pull {target}")


def pull(source: str, name: str | None, runs: Path) -> None:
    """Get a model that was handed on, as a run; it appears whole and checked or not at all.

    Args:
        source: "hf:OWNER/NAME", the same with "@REVISION", or a folder.
        name: of the run; None: the repository's or the folder's.
        runs: folder of the run folders.

    Raises:
        UserError: no model there, one whose files aren't those of its list, a run of the name that
            is there already, or a hub that can't be reached or refuses.
    """
    place = hub.place(source)
    if place is None and not Path(source).is_dir():
        raise UserError(
            f"{source}: there is no such folder; a repository on a hub is hf:OWNER/NAME."
        )
    name = name or (Path(source).resolve().name if place is None else place.name)
    run_names.check(name)
    if (runs / name).exists() or name in {work.name for work in trainings.models(runs)}:
        raise UserError(f"{runs / name}: there is a run of this name; choose another --name.")
    with files.atomic_folder(runs / name, "choose another --name") as new:
        out = new / "out"
        out.mkdir()
        if place is None:
            sums, commit = model_folder.listed(Path(source), source), None
            for file in sums:
                if (Path(source) / file).is_file():
                    shutil.copyfile(Path(source) / file, out / file)
        else:
            with tempfile.TemporaryDirectory(dir=new) as scratch:
                commit, sums = hub.download(place, Path(scratch))
                for file in sums:
                    if (Path(scratch) / file).is_file():
                        shutil.move(Path(scratch) / file, out / file)
        record = model_folder.check(out, sums, source)
        # its training's curves stay where it was trained
        files.write_text(out / "history.csv", table(EPOCH_COLUMNS, []))
        files.write_text(out / "validation.csv", table(VALIDATION_COLUMNS, []))
        inputs = dict(sums) if commit is None else {**sums, "commit": commit}
        key = {"stage": PULL, "params": {}, "inputs": inputs, "code": None}
        RunFolder(new, key).finish(source=source)
    say(f"pull: {sentence(identify(runs / name / 'out', record))}")
    say(f"pull: all files are those of its list; hsam predict SCAN --run {name} --out predictions")
