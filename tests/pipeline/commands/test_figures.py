import shutil
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from pipeline.commands import figures as figures_command
from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.datasets.synapse import label_path
from pipeline.reporting.pictures import read_figure_data
from pipeline.reporting.slice_rows import worst_slices, zoom_slices
from pipeline.scoring.runs import read_runs
from pipeline.shards.manifest import read_manifest
from pipeline.stages import prepare, split
from tests.pipeline.conftest import save_nifti
from tests.pipeline.runs import measured, write_run
from tests.pipeline.stages.test_evaluate import evaluate_into, evaluate_two, save_model
from tests.pipeline.test_cli import hsam as command
from tests.pipeline.test_cli import refused


@pytest.fixture(scope="module")
def runs(phantom_params, prepared_phantoms, tmp_path_factory):
    """Evaluated runs of a model with two stages and of one with one; read only."""
    one, two = evaluate_two(tmp_path_factory.mktemp("runs"), phantom_params, prepared_phantoms)
    return [two, one]


@pytest.fixture(scope="module")
def drawn(runs, prepared_phantoms, tmp_path_factory):
    out = tmp_path_factory.mktemp("figures")
    names = ["two stages", "one stage"]
    figures_command.run(runs, prepared_phantoms, out, names=names, slices=2)
    return out


def test_every_figure_is_there_in_both_forms(drawn):
    names = ["boxes-dice", "boxes-hd95_mm", "boxes-nsd_2mm", "disagreement-two-stages"]
    names += ["slices", "stages-two-stages", "zoom"]
    expected = sorted(f"{name}.{form}" for name in names for form in ("png", "svg"))
    assert sorted(path.name for path in drawn.iterdir()) == expected
    for path in drawn.glob("*.png"):
        assert np.ptp(imread(path)) > 0.5
    for path in drawn.glob("*.svg"):
        text = path.read_text()
        ElementTree.fromstring(text)
        assert "<dc:date>" not in text and "liver" in text
    assert "NSD at 2 mm (below voxel size)" in (drawn / "boxes-nsd_2mm.svg").read_text()


def test_test_cases_without_any_organ(phantom_params, tmp_path):
    shutil.copytree(phantom_params.dataset.root, tmp_path / "raw")
    dataset = phantom_params.dataset.model_copy(update={"root": str(tmp_path / "raw")})
    params = phantom_params.model_copy(update={"dataset": dataset})
    for case in ("img0004", "img0005"):
        path = label_path(tmp_path / "raw", case)
        label = nib.load(path)
        save_nifti(path, np.zeros(label.shape, np.uint8), label.affine)
    folders = {"prepared": tmp_path / "prepare", "split": tmp_path / "split"}
    prepare.run(params, folders["prepared"], tmp_path / "runs")
    split.run(params, *folders.values(), tmp_path / "runs")
    manifest = read_manifest(folders["prepared"] / "manifest.parquet")
    save_model(tmp_path / "model", manifest, "hsam")
    evaluate_into(tmp_path / "run", params, model=tmp_path / "model", **folders)
    figures_command.run([tmp_path / "run" / "out"], folders["prepared"], tmp_path / "out")
    drawn = {path.stem for path in (tmp_path / "out").iterdir()}
    assert "slices" in drawn and "boxes-dice" in drawn and "zoom" not in drawn


def test_the_seed_chooses_the_slices(runs, prepared_phantoms, drawn, tmp_path):
    names = ["two stages", "one stage"]
    for seed in (0, 1):
        out = tmp_path / str(seed)
        figures_command.run(runs, prepared_phantoms, out, names=names, slices=2, seed=seed)
    for path in drawn.iterdir():
        assert path.read_bytes() == (tmp_path / "0" / path.name).read_bytes()
    assert (drawn / "slices.svg").read_bytes() != (tmp_path / "1" / "slices.svg").read_bytes()


def test_one_run_and_several_show_the_same_slices(runs, prepared_phantoms):
    def names(folders):
        data = read_figure_data(prepared_phantoms, read_runs(folders, list("ab")[: len(folders)]))
        figures = figures_command.draw_all(data, 2, np.random.default_rng(0))
        return {key: [a.get_ylabel() for a in figures[key].axes] for key in ("slices", "zoom")}

    alone, both = names(runs[:1]), names(runs)
    for key in alone:
        assert [n for n in alone[key] if n] == [n for n in both[key] if n] != []


def test_zoomed_organs_are_small_and_on_the_slice(runs, prepared_phantoms):
    data = read_figure_data(prepared_phantoms, read_runs(runs, ["a", "b"]))
    found = zoom_slices(data, 3, data.runs[0].case_ids)
    sizes = sum(data.counts(case).sum(0) for case in data.runs[0].case_ids)
    assert len(set(found)) == len(found) == 3
    for case, index, organ in found:
        assert data.counts(case)[index, organ] == data.counts(case)[:, organ].max() > 0
        assert data.organs[organ] != "liver" and sizes[organ] < sizes.max()


def test_the_worst_disagreements_come_first_and_once(runs, prepared_phantoms):
    (run,) = read_runs(runs[:1])
    worst = worst_slices(run, 5)
    assert len({(case, index) for case, index, *_ in worst}) == 5
    review = pd.read_parquet(run.folder / "review.parquet")
    review = review.drop_duplicates(["case", "slice"])
    assert [(case, index) for case, index, *_ in worst] == list(
        zip(review["case"][:5], review["slice"][:5], strict=True)
    )
    assert review["expected_mm2"].is_monotonic_decreasing


def test_runs_without_predictions_or_on_other_data(runs, prepared_phantoms, tmp_path):
    scored = write_run(tmp_path / "scored", measured(1))
    with pytest.raises(UserError, match="no predictions there"):
        figures_command.run([scored], prepared_phantoms, tmp_path / "out")
    shutil.copytree(runs[0], tmp_path / "other")
    record = files.read_json(tmp_path / "other" / "provenance.json")
    record["inputs"]["manifest"] = "0" * 64
    files.write_json(tmp_path / "other" / "provenance.json", record)
    with pytest.raises(UserError, match="other data than"):
        figures_command.run([tmp_path / "other"], prepared_phantoms, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(runs, tmp_path):
    assert "manifest.parquet" in refused(command("figures", str(runs[0]), cwd=tmp_path))
