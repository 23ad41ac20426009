"""Random numbers for training, from a generator that the caller may pass.

Values are drawn on the generator's device and moved to the model's, so a CPU generator gives the
same numbers on every device. Without a generator PyTorch's global one is used.
"""

import torch
from torch import Tensor


def _device(like: Tensor, generator: torch.Generator | None) -> torch.device:
    return like.device if generator is None else generator.device


def gaussian(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal values with the shape, dtype and device of `like`."""
    z = torch.randn(
        like.shape, generator=generator, device=_device(like, generator), dtype=torch.float32
    )
    return z.to(device=like.device, dtype=like.dtype)


def range_noise(like: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """Normal values whose standard deviation is a share of the range of `like`, over all of it.

    Args:
        like: any shape, floating.
        share: standard deviation, as a share of the largest minus the smallest value.
        generator: random number generator; None: PyTorch's global one.
    """
    low, high = like.detach().aminmax()
    return share * (high - low) * gaussian(like, generator)


def dropout(x: Tensor, p: float, generator: torch.Generator | None = None) -> Tensor:
    """Zero each value with probability `p`, and divide the others by 1 - p.

    Args:
        x: any shape, floating.
        p: probability, in [0, 1).
        generator: random number generator; None: PyTorch's global one.
    """
    if p == 0.0:
        return x
    u = torch.rand(x.shape, generator=generator, device=_device(x, generator))
    keep = (u >= p).to(device=x.device, dtype=x.dtype)
    return x * keep / (1.0 - p)
