"""Values within mappings by dotted keys, such as `train.augment.noise`, and back."""

from collections.abc import Mapping
from typing import Any


def flat(value: Any, key: str = "") -> dict[str, Any]:
    """Dotted key to value, of mappings within mappings.

    Args:
        value: a mapping; anything else, or an empty one below `key`, is a value itself.
        key: what the keys begin with.
    """
    if not isinstance(value, Mapping) or (key and not value):
        return {key: value}
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found |= flat(inner, f"{key}.{name}" if key else str(name))
    return found


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping that `flat` makes such values of."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        *outer, last = key.split(".")
        place = result
        for name in outer:
            place = place.setdefault(name, {})
        place[last] = value
    return result
