"""Colours of organs, in label maps, figures and the report."""

# Okabe and Ito's colours without black, and a violet. They differ by at least 16 in CIE Lab in all
# three kinds of colour blindness (simulated after Machado et al. 2009).
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
    """Colour "#rrggbb" of the organ with label `index + 1`; colours repeat after eight organs."""
    return ORGAN_COLOURS[index % len(ORGAN_COLOURS)]


def rgb(colour: str) -> tuple[int, int, int]:
    """A colour "#rrggbb" as red, green and blue, each from 0 to 255."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return red, green, blue
