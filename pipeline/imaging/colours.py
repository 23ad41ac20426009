"""Colours of organs."""

# Okabe and Ito's colours without black, and a violet: told apart in all three colour blindnesses
# (smallest CIE Lab distance 16, simulated after Machado et al. 2009).
ORGAN_COLOURS = (
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#f0e442",
    "#0072b2",
    "#d55e00",
    "#cc79a7",
    "#8f21ff",
)


def organ_colour(index: int) -> str:
    """The colour of organ `index` (0 for the first after the background); repeats after eight."""
    return ORGAN_COLOURS[index % len(ORGAN_COLOURS)]


def rgb(colour: str) -> tuple[int, int, int]:
    """The colour "#rrggbb" as three numbers from 0 to 255."""
    return tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))
