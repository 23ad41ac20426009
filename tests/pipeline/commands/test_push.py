"""Models handed on, by way of a folder and of a hub that a local server is."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import hsam
from pipeline.commands import export, predict, push
from pipeline.commands import runs as listing
from pipeline.commands.predict import Wanted
from pipeline.core import trainings
from pipeline.core.errors import UserError
from pipeline.core.files import sha256
from pipeline.inference import records
from pipeline.reporting.inputs import ReportFolders
from pipeline.shards.manifest import read_manifest
from pipeline.stages import evaluate, report, split
from tests.pipeline.conftest import save_nifti, tiny_image
from tests.pipeline.versioning.hub_server import TOKEN, Hub, commit_id, serving

FILES = {"model.json", "model.safetensors", "README.md", "SHA256SUMS"}
WINDOW = {"kind": "window", "low": -125.0, "high": 275.0}
NAME = "hf:clinic/liver"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A tiny random H-SAM with three organs; read only."""
    torch.manual_seed(1)
    model = hsam.build("hsam", "vit_tiny", image_size=32, num_classes=3)
    return hsam.save(
        model,
        tmp_path_factory.mktemp("run") / "train",
        class_names=["a", "b", "c"],
        intensity=WINDOW,
        preparation={"axes": "SPL", "spacing_mm": None},
        data_set="synapse",
    )


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub", reason="a hub needs huggingface_hub (hsam[hf])")
    with serving(monkeypatch) as server:
        yield server


@pytest.fixture
def runs(tmp_path) -> Path:
    return tmp_path / "runs"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def pushed(run_folder: Path, hub: Hub, monkeypatch) -> dict[str, bytes]:
    """Push with the token, then forget it; the files on the hub."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    push.push(run_folder, NAME, public=True)
    monkeypatch.delenv("HF_TOKEN")
    return hub.repositories["clinic/liver"][-1]


def refused(source: str, runs: Path) -> str:
    """The sentence with which a pull ends, nothing left behind."""
    before = names(runs) if runs.exists() else set()
    with pytest.raises(UserError) as caught:
        push.pull(source, None, runs)
    assert (names(runs) if runs.exists() else set()) == before
    (problem,) = caught.value.problems
    assert problem.startswith(source) and problem.endswith(".") and "\n" not in problem
    return problem


def test_by_way_of_a_folder_a_model_is_a_run_elsewhere(run_folder, runs, tmp_path, capsys):
    push.push(run_folder, str(tmp_path / "disk" / "liver"), public=False)
    assert names(tmp_path / "disk") == {"liver"} and names(tmp_path / "disk/liver") == FILES
    push.pull(str(tmp_path / "disk" / "liver"), None, runs)
    said = capsys.readouterr().err
    assert "pull: model hsam vit_tiny at 32 px, trained on synapse" in said
    assert "hsam predict SCAN --run liver" in said
    there, here = tmp_path / "disk/liver", runs / "liver/out"
    for name in FILES - {"SHA256SUMS"}:
        assert (here / name).read_bytes() == (there / name).read_bytes()
    scan = save_nifti(tmp_path / "scan.nii.gz", tiny_image((32, 32, 3)))
    for run, out in ((run_folder, "a"), (trainings.find_model(Path("liver"), runs), "b")):
        assert predict.run([scan], run, tmp_path / out, Wanted(), None, "cpu")
    labels = [nib.load(tmp_path / out / "scan.nii.gz").get_fdata() for out in ("a", "b")]
    assert np.array_equal(*labels)
    (row,) = listing.gather(runs, tmp_path / "results")
    assert (row["name"], row["imported"], row["data"]) == ("liver", True, "synapse")
    push.push(trainings.find_model(Path("liver"), runs), str(tmp_path / "again"), public=False)
    assert names(tmp_path / "again") == FILES


def test_a_pulled_run_is_evaluated_and_reported(phantom_params, prepared_phantoms, runs, tmp_path):
    manifest = read_manifest(prepared_phantoms / "manifest.parquet")
    model = hsam.build("samed", "vit_tiny", image_size=32, num_classes=len(manifest.class_names))
    about = {"intensity": manifest.intensity, "preparation": manifest.preparation}
    hsam.save(model, tmp_path / "train", class_names=manifest.class_names, **about)
    push.push(tmp_path / "train", str(tmp_path / "disk"), public=False)
    push.pull(str(tmp_path / "disk"), "pulled", runs)
    run, results = trainings.find_model(Path("pulled"), runs), tmp_path / "results"
    split.run(phantom_params, prepared_phantoms, results / "split", runs)
    folders = (prepared_phantoms, results / "split", run, results / "evaluate")
    evaluate.run(phantom_params, *folders, runs, device="cpu")
    (results / "prepare").symlink_to(prepared_phantoms)
    found = ReportFolders.find(results, records.model_folder(run))
    report.run(phantom_params, found, tmp_path / "reports", runs, other_run=True)
    page = (tmp_path / "reports" / "report.html").read_text()
    assert "A model trained elsewhere, scored on 2 cases" in page
    assert "nothing is recorded of the training" in page and "published" not in page


def test_an_exported_folder_is_pulled_too(run_folder, runs, tmp_path):
    export.run(run_folder, tmp_path / "mine", "huggingface", "mean", 1, None)
    push.pull(str(tmp_path / "mine"), "other", runs)
    assert names(runs) == {"other"}


def test_a_folder_that_holds_something_is_left_alone(run_folder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for target in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(UserError, match="expected a new or an empty folder; name another TAR"):
            push.push(run_folder, str(target), public=False)
    assert names(tmp_path) == {"notes.txt"}


def test_what_was_damaged_or_changed_on_the_way_is_refused(run_folder, runs, tmp_path):
    push.push(run_folder, str(tmp_path / "liver"), public=False)
    weights = tmp_path / "liver" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"?")
    assert "model.safetensors: expected SHA-256" in refused(str(tmp_path / "liver"), runs)
    weights.unlink()
    assert "expected model.safetensors, found none" in refused(str(tmp_path / "liver"), runs)
    weights.write_bytes(whole)
    push.pull(str(tmp_path / "liver"), None, runs)
    assert "there is a run of this name; choose another --name" in str(
        pytest.raises(UserError, push.pull, str(tmp_path / "liver"), None, runs).value
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, "found no such list"),
        ("", "found none of them"),
        ("what is this", "found none of them"),
        (f"{'0' * 64}  ../../.bashrc\n", "found ../../.bashrc"),
        (f"{'0' * 64}  model.pkl\n", "found model.pkl"),
        (f"{'0' * 64}  model.json\n", "found model.json"),
    ],
)
def test_a_folder_with_something_else_is_refused(text, found, run_folder, runs, tmp_path):
    shutil.copytree(run_folder, tmp_path / "other")
    if text is not None:
        (tmp_path / "other" / "SHA256SUMS").write_text(text)
    said = refused(str(tmp_path / "other"), runs)
    assert "expected a model as hsam push leaves it, SHA256SUMS with model.json and " in said
    assert found in said


def test_a_folder_that_is_not_there(runs, tmp_path):
    assert "there is no such folder; a repository on a hub is" in refused(
        str(tmp_path / "none"), runs
    )


@pytest.mark.parametrize(
    "text", ["hf:", "hf:liver", "hf:a/b/c", "hf:a/../b", "hf:a/b@", "hf:a b/c"]
)
def test_what_is_no_repository_is_refused(text, run_folder, runs):
    assert "expected hf:OWNER/NAME" in refused(text, runs)
    with pytest.raises(UserError, match="expected hf:OWNER/NAME"):
        push.push(run_folder, text, public=False)


def test_by_way_of_a_hub(run_folder, runs, hub, monkeypatch, capsys):
    files = pushed(run_folder, hub, monkeypatch)
    assert set(files) == FILES | {".gitattributes"}
    assert files["model.safetensors"] == (run_folder / "model.safetensors").read_bytes()
    commit = commit_id("clinic/liver", 2)
    assert f"push: hf:clinic/liver, commit {commit[:12]}" in capsys.readouterr().err
    hub.tokens.clear()
    push.pull(NAME, None, runs)
    assert hub.tokens == {None}  # what is for everyone is asked for without a token
    assert names(runs) == {"liver"}
    out = runs / "liver" / "out"
    assert sha256(out / "model.safetensors") == sha256(run_folder / "model.safetensors")
    record = json.loads((out / "provenance.json").read_text())
    assert (record["inputs"]["commit"], record["source"]) == (commit, NAME)
    assert not [path for path in runs.rglob("*") if ".cache" in path.parts or "git" in path.name]


def test_a_revision_is_pulled_by_its_name(run_folder, runs, hub, monkeypatch):
    files = pushed(run_folder, hub, monkeypatch)
    hub.repositories["clinic/liver"].append(files | {"model.json": b"{}"})
    assert "model.json: expected SHA-256" in refused(NAME, runs)
    push.pull(f"{NAME}@{commit_id('clinic/liver', 2)}", "old", runs)
    assert names(runs) == {"old"}
    assert "there is no revision v9" in refused(f"{NAME}@v9", runs)


def test_a_repository_is_private_unless_it_is_said_otherwise(run_folder, runs, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    push.push(run_folder, NAME, public=False)
    assert hub.private == {"clinic/liver"}
    push.pull(NAME, "mine", runs)
    monkeypatch.delenv("HF_TOKEN")
    assert "there is no such repository, or HF_TOKEN doesn't allow" in refused(NAME, runs)


def test_a_push_without_a_token_or_with_another(run_folder, hub, monkeypatch):
    with pytest.raises(UserError, match="the hub asks for a token; set HF_TOKEN"):
        push.push(run_folder, NAME, public=False)
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    with pytest.raises(UserError, match=r"the hub refuses \(401\); set HF_TOKEN") as caught:
        push.push(run_folder, NAME, public=False)
    assert "somebody" not in str(caught.value)
    assert hub.repositories == {}


def test_a_repository_that_holds_something_is_left_alone(run_folder, hub, monkeypatch):
    pushed(run_folder, hub, monkeypatch)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(UserError, match="expected a new or an empty repository, found README.md"):
        push.push(run_folder, NAME, public=False)
    assert len(hub.repositories["clinic/liver"]) == 2


def test_a_push_that_breaks_off_leaves_no_file_and_the_next_one_goes(run_folder, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.broken = ["/commit/main"]
    with pytest.raises(UserError, match=r"hf:clinic/liver: the hub refuses \(.*503"):
        push.push(run_folder, NAME, public=True)
    assert hub.repositories["clinic/liver"] == [{".gitattributes": b""}]
    hub.broken = []
    assert set(pushed(run_folder, hub, monkeypatch)) > FILES


def test_a_repository_with_something_else(runs, hub):
    hub.repositories["clinic/liver"] = [{"pytorch_model.bin": b"pickled", "config.json": b"{}"}]
    assert "expected a model as hsam push leaves it" in refused(NAME, runs)
    assert "there is no such repository" in refused("hf:clinic/none", runs)


def test_a_hub_that_cannot_be_reached(run_folder, runs, hub, monkeypatch):
    hub.server_close()
    assert f"no connection to {hub.address}" in refused(NAME, runs)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(UserError, match="no connection to http://127.0.0.1:.*shared disk"):
        push.push(run_folder, NAME, public=False)
