"""What choosing weights on the test set would gain."""

import pytest

from pipeline.scoring import audit

HISTORY = [
    {"epoch": str(epoch), "validation_dice": dice}
    for epoch, dice in enumerate(["", "0.6", "", "0.7", "", "0.7"])
]
TEST = {6: 0.60, 2: 0.65, 4: 0.62}


def test_each_way_of_choosing():
    rows = audit.rows(TEST, HISTORY)
    assert [tuple(row.values()) for row in rows] == [(2, 0.6, 0.65), (4, 0.7, 0.62), (6, 0.7, 0.6)]
    found = audit.choices(rows)
    assert found == {
        "last": 0.60,
        "chosen_on_validation": 0.62,
        "chosen_on_test": 0.65,
        "gap": pytest.approx(0.05),
    }
    assert audit.sentence(found) == (
        "mean test Dice of the kept models: 0.600 the last, 0.620 chosen on validation, "
        "0.650 chosen on the test cases, which is no result"
    )


def test_without_validation_only_the_test_set_can_choose():
    found = audit.choices(audit.rows(TEST, [{"epoch": "1", "validation_dice": ""}]))
    assert found["chosen_on_validation"] is None
    assert "none was validated" in audit.sentence(found)


def test_choosing_on_the_test_set_never_loses():
    for values in ([0.1, 0.3], [0.3, 0.1], [0.2, 0.2]):
        assert audit.choices(audit.rows(dict(enumerate(values, 1)), []))["gap"] >= 0
