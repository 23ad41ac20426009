"""Reading weight files, and their SHA-256."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict to the CPU. Pickled code in the file is refused and never run.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or anything but a dict of names and tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: expected a file, found none at {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damaged files raise many unrelated types
        reason = str(error).split("\n")[0].split(". ")[0]  # without PyTorch's advice on its API
        raise ValueError(
            f"checkpoint: expected a file of plain tensors, can't read {path} as one ({reason})"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise ValueError(f"checkpoint: expected names and tensors, got something else in {path}")
    return state


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
