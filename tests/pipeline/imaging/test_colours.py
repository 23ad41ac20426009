import math
from itertools import combinations

from pipeline.imaging.colours import APART, organ_colours, rgb
from pipeline.imaging.label_tables import itk_snap, slicer

SYNAPSE = [
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "liver",
    "stomach",
    "aorta",
    "pancreas",
]


def test_an_organ_keeps_its_colour_whatever_the_other_organs_are():
    (liver,) = organ_colours(["liver"])
    assert organ_colours(["tumour", "liver"])[1] == organ_colours(SYNAPSE)[4] == liver
    (atrium,) = organ_colours(["left atrium"])
    assert organ_colours([*SYNAPSE, "left atrium"])[-1] == atrium
    assert organ_colours(["left atrium", "prostate"])[::-1] == organ_colours(
        ["prostate", "left atrium"]
    )


def test_words_count_not_their_order_or_spelling():
    assert organ_colours(["Kidney_Right", "LIVER"]) == organ_colours(["right kidney", "liver"])


def test_no_two_organs_of_a_run_are_alike():
    names = [*SYNAPSE, *(f"structure {number}" for number in range(12))]
    for one, other in combinations(organ_colours(names), 2):
        assert math.dist(rgb(one), rgb(other)) >= APART
    many = organ_colours([f"structure {number}" for number in range(104)])
    assert len(set(many)) == 104
    # two spellings of one organ are two organs of that run
    assert len(set(organ_colours(["kidney_right", "right kidney"]))) == 2


def test_label_tables_have_the_colours_of_the_names():
    for write, first in ((slicer, 2), (itk_snap, 1)):
        found = [
            next(
                line.split()[first : first + 3]
                for line in write(names).splitlines()
                if name in line
            )
            for names in (["liver", "tumour"], ["spleen", "tumour", "liver"])
            for name in ("liver", "tumour")
        ]
        assert found[:2] == found[2:] and found[0] != found[1]
