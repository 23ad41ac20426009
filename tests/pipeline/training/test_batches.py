import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.batches import Batches
from pipeline.training.sampling import epoch_order

SMALL = {"slices": 10, "epochs": 3, "batch_size": 4, "micro_batch": 4, "seed": 5}


@settings(max_examples=50, deadline=None)
@given(
    slices=st.integers(1, 40),
    batch_size=st.integers(1, 16),
    micro_batch=st.integers(1, 16),
    devices=st.integers(1, 5),
)
def test_the_devices_passes_are_the_step_and_the_steps_are_the_epoch(
    slices, batch_size, micro_batch, devices
):
    ranks = [Batches(slices, 2, batch_size, micro_batch, 7, devices, r) for r in range(devices)]
    seen: dict[int, list[int]] = {0: [], 1: []}
    for steps in zip(*(batches.steps() for batches in ranks), strict=True):
        one = steps[0]
        assert all(torch.equal(step.indices, one.indices) for step in steps)
        seen[one.epoch] += one.indices.tolist()
        assert sum(part.share for part in one.passes) == pytest.approx(1)
        together = []
        for parts in zip(*(step.passes for step in steps), strict=True):
            counted = [part.indices[: part.count] for part in parts]
            assert all(1 <= len(part.indices) <= micro_batch for part in parts)
            assert sum(map(len, counted)) / len(one.indices) == pytest.approx(parts[0].share)
            together += torch.cat(counted).tolist()
        assert together == one.indices.tolist()
    assert len(seen[0]) == len(seen[1]) == slices
    for epoch, indices in seen.items():
        assert indices == epoch_order(slices, 7, epoch).tolist()


def test_steps_from_the_middle_are_those_of_the_whole():
    whole = list(Batches(**SMALL).steps())
    assert [step.iteration for step in whole] == list(range(9))
    assert [step.ends_epoch for step in whole] == [False, False, True] * 3
    for start in range(10):
        rest = list(Batches(**SMALL).steps(start))
        assert [step.iteration for step in rest] == list(range(start, 9))
        for a, b in zip(rest, whole[start:], strict=True):
            assert torch.equal(a.indices, b.indices)
            assert [part.seed for part in a.passes] == [part.seed for part in b.passes]


def test_order_and_number_of_steps_do_not_depend_on_the_passes():
    whole = [step.indices.tolist() for step in Batches(**SMALL).steps()]
    for changes in ({"micro_batch": 1}, {"devices": 3, "rank": 2}):
        assert [s.indices.tolist() for s in Batches(**SMALL | changes).steps()] == whole


def test_places_count_through_an_epoch():
    for step in Batches(**SMALL | {"micro_batch": 3}).steps():
        places = torch.cat([part.places for part in step.passes]).tolist()
        first = 4 * (step.iteration % 3)
        assert places == list(range(first, first + len(places)))


def test_every_pass_and_device_draws_its_own_noise():
    seeds = [
        part.seed
        for rank in range(2)
        for step in Batches(**SMALL | {"micro_batch": 1, "devices": 2, "rank": rank}).steps()
        for part in step.passes
    ]
    assert len(set(seeds)) == len(seeds)


def test_weights_bring_slices_up_more_often():
    weights = np.ones(10)
    weights[3] = 5
    batches = Batches(**SMALL | {"epochs": 20, "weights": weights})
    times = torch.cat([step.indices for step in batches.steps()]).bincount(minlength=10)
    assert times[3] == times.max() and times[3] > 2 * times.float().mean()
