"""What Snakemake's rules ask of the studies."""

from pathlib import Path

from pipeline.studies.fanout import Fanout
from tests.pipeline.studies.conftest import AGAIN, write


def test_a_stage_waits_for_what_it_reads(workflow):
    fanout = Fanout(())
    run = fanout.run("ranks", "rank-1/draw-7-seed-1")
    places = run.places(Path("results"))
    shared = [f"{places['prepare']}/manifest.parquet", f"{places['split']}/split.parquet"]
    assert fanout.inputs("train", run) == shared
    assert fanout.inputs("evaluate", run) == [
        *shared,
        f"{places['train']}/model.json",
        f"{places['train']}/model.safetensors",
        f"{places['train']}/history.csv",
        f"{places['train']}/snapshots",
    ]
    command = "hsam train --study ranks/rank-1/draw-7-seed-1 --gpus 1"
    assert fanout.command("train", run, jobs=2, gpus=1) == command
    assert fanout.gpus("train", run) == 1


def test_equal_work_of_another_study_is_copied(workflow):
    write(workflow / "studies" / "again.yaml", AGAIN)
    fanout = Fanout(())
    run = fanout.run("ranks", "rank-4/draw-7-seed-1")
    doer = "results/again/four/draw-7-seed-1/train"
    assert fanout.inputs("train", run) == [f"{doer}/model.safetensors"]
    assert fanout.command("train", run, jobs=1, gpus=0) == (
        f"cp -R {doer}/. results/ranks/rank-4/draw-7-seed-1/train"
    )
    assert fanout.gpus("train", run) == 0
    # with the scores alone asked for, the model that they are of comes too
    copied = "results/ranks/rank-4/draw-7-seed-1/train/model.safetensors"
    scores = "results/again/four/draw-7-seed-1/evaluate/metrics.json"
    assert fanout.inputs("evaluate", run) == [scores, copied]


def test_what_a_study_is_run_on_is_part_of_commands_and_places(workflow):
    fanout = Fanout(("phantoms",))
    run = fanout.run("ranks-on-phantoms", "rank-1/draw-7-seed-1")
    words = fanout.command("prepare", run, jobs=3, gpus=0).split()
    assert words == [
        "hsam",
        "prepare",
        "--study",
        "ranks/rank-1/draw-7-seed-1",
        "--on",
        "phantoms",
        "--jobs",
        "3",
    ]
    assert fanout.folders == ["ranks-on-phantoms"]


def test_digests_follow_what_a_stage_reads(workflow):
    fanout = Fanout(())
    one, other = (fanout.run("ranks", f"{arm}/draw-7-seed-1") for arm in ("rank-1", "rank-4"))
    assert fanout.reads("train", one) != fanout.reads("train", other)
    assert fanout.reads("evaluate", one) == fanout.reads("evaluate", other)
    assert fanout.code("train", one) == fanout.code("train", other)
    assert one.data == other.data
    assert one.split == other.split
