import pytest
import torch

from hsam.noise import dropout, gaussian


def test_gaussian_is_standard_normal():
    z = gaussian(torch.empty(200_000), torch.Generator().manual_seed(0))
    assert z.mean().item() == pytest.approx(0, abs=0.01)
    assert z.std().item() == pytest.approx(1, abs=0.01)


def test_gaussian_takes_shape_and_dtype():
    z = gaussian(torch.empty(2, 3, dtype=torch.bfloat16))
    assert z.shape == (2, 3) and z.dtype == torch.bfloat16


def test_dropout_keeps_the_mean():
    x = dropout(torch.ones(200_000), 0.2, torch.Generator().manual_seed(0))
    assert set(x.unique().tolist()) == {0.0, 1.25}
    assert x.mean().item() == pytest.approx(1, abs=0.01)


def test_no_dropout_draws_nothing():
    x = torch.ones(4)
    assert dropout(x, 0.0) is x
