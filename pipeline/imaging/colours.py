"""Colours of organs, in label maps, figures and the report.

An organ has the colour of its name, whatever other organs a run has and in whatever order.
"""

import hashlib
import math
from collections.abc import Collection, Iterable
from functools import cache

# The words of a name are in alphabetical order. Okabe and Ito's colours without black, and a
# violet: they differ by at least 16 in CIE Lab in all three kinds of colour blindness (simulated
# after Machado et al. 2009).
KNOWN_ORGANS = {
    "spleen": "#e69f00",
    "kidney right": "#56b4e9",
    "kidney left": "#009e73",
    "gallbladder": "#f0e442",
    "liver": "#0072b2",
    "stomach": "#d55e00",
    "aorta": "#cc79a7",
    "pancreas": "#8f21ff",
}
APART = 60  # least distance of another organ's colour to the others, in RGB from 0 to 255
TRIES = 64  # of colours for one name; past that the most distant one is taken


def organ_colours(names: Iterable[str]) -> list[str]:
    """Colour "#rrggbb" of each organ, no two alike.

    Known organs have those of KNOWN_ORGANS, words in any order and case. Another organ's colour
    follows from a hash of its name; only where it comes too near to another organ's of the same run
    is the next one taken.

    Args:
        names: of the organs of one run.
    """
    return list(_colours(tuple(names)))


@cache
def _colours(names: tuple[str, ...]) -> tuple[str, ...]:
    found: dict[str, str] = {}
    for name in names:
        colour = KNOWN_ORGANS.get(_key(name))
        if colour is not None and colour not in found.values():
            found[name] = colour
    # in an order that doesn't depend on the run's
    for name in sorted(set(names) - set(found), key=lambda name: (_key(name), name)):
        found[name] = _hashed(name, {*KNOWN_ORGANS.values(), *found.values()})
    return tuple(found[name] for name in names)


def rgb(colour: str) -> tuple[int, int, int]:
    """A colour "#rrggbb" as red, green and blue, each from 0 to 255."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return red, green, blue


def _key(name: str) -> str:
    """The name's words in lower case and alphabetical order: "kidney_right" is "right kidney"."""
    return " ".join(sorted(name.lower().replace("_", " ").replace("-", " ").split()))


def _hashed(name: str, taken: Collection[str]) -> str:
    """The first of the name's colours that is far from all that are taken, or the farthest."""
    candidates, others = [], [rgb(colour) for colour in taken]
    for attempt in range(TRIES):
        digest = hashlib.sha256(f"{_key(name)} {attempt}".encode()).digest()
        # neither near black nor near white, which are background and text
        colour = "#" + "".join(f"{48 + byte * 176 // 255:02x}" for byte in digest[:3])
        own = rgb(colour)
        distance = min(math.dist(own, other) for other in others)
        if distance >= APART:
            return colour
        candidates.append((distance, colour))
    return max(candidates)[1]
