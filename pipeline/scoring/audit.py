"""What choosing a model's weights on the test set would gain.

Several published tables have the best epoch's test score, chosen by that score. The audit scores
models that were kept during one training and says what each way of choosing among them gives.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

SCHEMA = pa.schema(
    [("epoch", pa.int32()), ("validation_dice", pa.float64()), ("test_dice", pa.float64())]
)


def rows(
    test: Mapping[int, float], history: Sequence[Mapping[str, Any]]
) -> list[dict[str, float | int | None]]:
    """A row of SCHEMA for each kept model.

    Args:
        test: epochs done to the mean test Dice of the model kept then.
        history: rows of history.csv, whose `epoch` counts from 0; `validation_dice` may be empty.
    """
    validated = {
        int(row["epoch"]) + 1: float(row["validation_dice"])
        for row in history
        if row["validation_dice"] not in (None, "")
    }
    return [
        {"epoch": epoch, "validation_dice": validated.get(epoch), "test_dice": dice}
        for epoch, dice in sorted(test.items())
    ]


def choices(found: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Test Dice of the weights that each way of choosing takes; the first among equal ones.

    Args:
        found: rows of SCHEMA, one or more, in the order of their epochs.

    Returns:
        `last`; `chosen_on_validation`, None where no kept model was validated; `chosen_on_test`,
        which is no result; `gap`, the last two's distance: the test's choice minus the last.
    """
    last = found[-1]["test_dice"]
    validated = [row for row in found if row["validation_dice"] is not None]
    by_validation = max(validated, key=lambda row: row["validation_dice"], default=None)
    best = max(row["test_dice"] for row in found)
    return {
        "last": last,
        "chosen_on_validation": None if by_validation is None else by_validation["test_dice"],
        "chosen_on_test": best,
        "gap": best - last,
    }


def sentence(chosen: Mapping[str, float | None]) -> str:
    """The three numbers side by side."""
    validation = chosen["chosen_on_validation"]
    middle = (
        "none was validated" if validation is None else f"{validation:.3f} chosen on validation"
    )
    return (
        f"mean test Dice of the kept models: {chosen['last']:.3f} the last, {middle}, "
        f"{chosen['chosen_on_test']:.3f} chosen on the test cases, which is no result"
    )
