"""The short form of `make soak`."""

import pytest

from tests.soak import crowds, damage, grids, kills, narrow
from tests.soak.stages import STAGES, TINY, WITH_WORKERS, Workspace


@pytest.mark.parametrize("kind", damage.FORMATS)
def test_damaged_files_are_read_or_refused(kind):
    # number 355 of a split has a type that Arrow doesn't know
    outcome = damage.damage_files(kind, 400 if "parquet" in kind else 150)
    assert not outcome.failures
    assert int(outcome.detail.split()[0]) > 20  # refused


def test_grids_are_kept(tmp_path):
    assert not grids.keep_grids(tmp_path, 60).failures


@pytest.fixture(scope="module")
def space(tmp_path_factory) -> Workspace:
    """Where every stage has run, its training asking for workers."""
    changes = TINY | {"train": TINY["train"] | WITH_WORKERS, "search": {"trials": 0}}
    space = Workspace(tmp_path_factory.mktemp("soak"), changes)
    for stage in STAGES:
        space.finish(stage)
    return space


@pytest.mark.parametrize("stage", ["prepare", "evaluate"])
def test_killed_stages_end_with_the_same_bytes(space, stage):
    assert not kills.kill_stage(space, stage, 2).failures


def test_processes_at_the_same_cases_lose_nothing(space):
    assert not crowds.prepare_together(space, 1, processes=2).failures


@pytest.mark.skipif(not narrow.possible(), reason="no file system can be mounted here")
def test_a_full_disk_and_a_small_dev_shm_are_said(space):
    assert not narrow.fill_disks(space, ("prepare", "evaluate"), (40,)).failures
    assert not narrow.train_without_shared_memory(space, (64,)).failures
