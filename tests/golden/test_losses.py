"""The short form of the proof; `make losses` runs the whole."""

from tests.golden import losses


def test_the_first_losses_are_the_golden_ones(tmp_path):
    _, golden = losses.read(losses.GOLDEN)
    assert len(golden) == losses.STEPS
    same, text = losses.compare(losses.train(tmp_path, steps=4), golden[:4])
    assert same, text


def test_a_small_change_of_one_loss_is_seen():
    _, golden = losses.read(losses.GOLDEN)
    early = [(total * 1.0001, *stages) for total, *stages in golden[:1]] + golden[1:]
    assert not losses.compare(early, golden)[0]
    late = golden[:-1] + [(total * 1.01, *stages) for total, *stages in golden[-1:]]
    assert not losses.compare(late, golden)[0]
    assert losses.compare(golden, golden) == (True, "40 steps, equal to the last bit")


def test_a_file_gives_back_every_digit(tmp_path):
    _, golden = losses.read(losses.GOLDEN)
    losses.write(tmp_path / "copy.csv", golden)
    assert losses.read(tmp_path / "copy.csv") == (losses.facts(), golden)


def test_without_a_file_nothing_is_trained(tmp_path, capsys):
    assert losses.main(["--against", str(tmp_path / "none.csv")]) == 2
    assert "none.csv" in capsys.readouterr().err
