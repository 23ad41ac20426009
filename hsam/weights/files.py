"""Reading weight files, and their SHA-256."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hsam.weights.foreign import text_instead

# keys under which training programs keep the weights, beside epochs, losses and optimizers
_WRAPPERS = ("model", "state_dict", "model_state_dict", "net")
# what torch's wrappers and training programs put before every name
_PREFIXES = ("module.", "_orig_mod.", "model.", "sam.")
_LISTED = 8  # problems named in one message


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict to the CPU. Pickled code in the file is refused and never run.

    A training program's checkpoint is read as well: weights under "model" or "state_dict", and
    names that all begin with "module.", as DistributedDataParallel writes them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, one of text, anything but a dict of names and tensors, or
            tensors with NaN or infinity.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: expected a file, found none at {path}")
    if (found := text_instead(path)) is not None:
        raise ValueError(f"checkpoint: expected a file of plain tensors, {path} is {found}")
    try:
        with torch.serialization.safe_globals(_numpy_numbers()):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damaged files raise many unrelated types
        reason = str(error).split("\n")[0].split(". ")[0]  # without PyTorch's advice on its API
        raise ValueError(
            f"checkpoint: expected a file of plain tensors, can't read {path} as one ({reason})"
        ) from error
    state = _unwrapped(state)
    if not _is_state(state):
        raise ValueError(
            f"checkpoint: expected names and tensors, got {_something_else(state)} in {path}"
        )
    check_finite(state, path)
    return _without_prefix(state)


def check_finite(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse weights with NaN or infinity, of which every prediction would consist.

    Raises:
        ValueError: naming the tensors.
    """
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise ValueError(
            f"{path}: expected finite weights, found NaN or infinity in {listed(bad)}; "
            "take another checkpoint"
        )


def listed(names: Iterable[str], separator: str = ", ") -> str:
    """Names or problems for a message: the first ones, and how many there are."""
    names = list(names)
    more = f"{separator}... ({len(names)} in all)" if len(names) > _LISTED else ""
    return separator.join(names[:_LISTED]) + more


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_state(value: Any) -> bool:
    """Whether a value is a state dict: names to tensors."""
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items()
    )


def _something_else(value: Any) -> str:
    """Name the part of a value that makes it no state dict, for a message."""
    if not isinstance(value, dict):
        return f"a {type(value).__name__}"
    key, item = next((k, v) for k, v in value.items() if not _is_state({k: v}))
    return f"a {type(item).__name__} under {key!r}"


def _unwrapped(state: Any) -> Any:
    """The weights in a training program's checkpoint; anything else as it is."""
    if isinstance(state, dict) and not _is_state(state):
        for key in _WRAPPERS:
            if state.get(key) and _is_state(state[key]):
                return state[key]
    return state


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the prefixes that all of their names share."""
    shared = next((p for p in _PREFIXES if state and all(key.startswith(p) for key in state)), None)
    if shared is None:
        return state
    return _without_prefix({key.removeprefix(shared): value for key, value in state.items()})


def _numpy_numbers() -> list[Any]:
    """What torch may unpickle besides tensors: NumPy's numbers, such as the loss of an epoch."""
    make = np.float64(0).__reduce__()[0]
    numbers = (np.float64, np.float32, np.int64, np.int32, np.bool_)
    # NumPy 1 has the first one under another name
    names = [(make, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [*names, np.dtype, *(type(np.dtype(number)) for number in numbers)]
