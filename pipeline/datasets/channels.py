"""Which channels of a data set's scans are used: `dataset.channels`."""

from collections import Counter
from collections.abc import Sequence

from pipeline.core.errors import UserError
from pipeline.core.params.blocks import MOST_CHANNELS, Dataset


def chosen(names: Sequence[str], dataset: Dataset) -> dict[str, int]:
    """The channels to use.

    Args:
        names: of the channels that the data set has, in their order; empty: one without a name.
        dataset: `channels` is read: names, or numbers from 0; None: the only channel.

    Returns:
        Names to their numbers in the data set, in the order of the encoder's inputs; empty: the
        data set has one channel.

    Raises:
        UserError: several channels and none is named, or one that isn't there.
    """
    wanted, where = dataset.channels, f"dataset.channels: {dataset.root}"
    if wanted is None:
        if len(names) < 2:
            return {}
        raise UserError(
            f"{where} has {len(names)} channels ({', '.join(names)}) and none is chosen; name the "
            f"one, two or three to use (hsam init: --channels), such as {_example(names)}."
        )
    if not names:
        raise UserError(f"{where} has one channel, without a name; set it to null.")
    found: dict[str, int] = {}
    for one in wanted:
        number = names.index(one) if one in names else int(one) if str(one).isdecimal() else None
        if number is None or number >= len(names):
            raise UserError(
                f"{where} has {_listed(names)}, found {one!r}; name some of these, such as "
                f"{_example(names)}."
            )
        if names[number] in found:
            raise UserError(f"{where}: {names[number]} is chosen twice; name each channel once.")
        found[names[number]] = number
    return found if len(names) > 1 else {}


def unique(names: Sequence[str]) -> tuple[str, ...]:
    """Names with their number behind those that are there more than once: MR_0, MR_1."""
    counts = Counter(names)
    return tuple(
        name if counts[name] == 1 else f"{name}_{number}" for number, name in enumerate(names)
    )


def _listed(names: Sequence[str]) -> str:
    numbered = ", ".join(f"{number} {name}" for number, name in enumerate(names))
    return f"the channel{'' if len(names) == 1 else 's'} {numbered}"


def _example(names: Sequence[str]) -> str:
    return f"[{', '.join(names[:MOST_CHANNELS])}]"
