"""Downloads from a local server that behaves badly: resumed, checked, or refused in a sentence."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.core import download, locks
from pipeline.core.errors import UserError

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT at every path, each time as the next of `answers` says, then whole.

    An answer is a number of bytes after which the connection is cut, a status code to refuse with
    ("503"), bytes to send instead, "page", "deaf" (ignores Range), or "elsewhere" (sends another
    range than the asked one).
    """

    daemon_threads = True
    answers: list
    asked: list  # Range of each request


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.headers.get("Range"))
        answer = self.server.answers.pop(0) if self.server.answers else "whole"
        if isinstance(answer, str) and answer.isdigit():
            return self.send_error(int(answer))
        if answer == "page":
            return self._send(200, b"<!doctype html><title>Sign in</title>", kind="text/html")
        content = answer if isinstance(answer, bytes) else CONTENT
        asked = self.headers.get("Range")
        start = 0 if asked is None or answer == "deaf" else int(asked[len("bytes=") : -1])
        if answer == "elsewhere":
            start = 7
        if start >= len(content):
            return self.send_error(416)
        cut = answer if isinstance(answer, int) else None
        return self._send(206 if start else 200, content, start, cut)

    def _send(self, status, content, start=0, cut=None, kind="application/octet-stream") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content) - start))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start:] if cut is None else content[start : start + cut])

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.answers, server.asked = [], []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def address(server: Server, name: str = "weights.pth") -> str:
    return f"http://127.0.0.1:{server.server_port}/{name}"


def fetch(url: str, target: Path) -> None:
    download.fetch(url, target, len(CONTENT), SHA256, "look elsewhere", pause=0)


def refused(url: str, target: Path) -> str:
    with pytest.raises(UserError) as caught:
        fetch(url, target)
    (problem,) = caught.value.problems
    assert problem.startswith(url) and problem.endswith("look elsewhere.")
    return problem


def test_a_file_arrives_whole_and_alone(server, tmp_path, capsys):
    target = tmp_path / "new" / "weights.pth"
    fetch(address(server), target)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["weights.pth"]
    assert server.asked == [None]
    assert "weights.pth, MiB 1/1  0:00 left" in capsys.readouterr().err


def test_a_connection_that_is_cut_is_taken_up_where_it_was(server, tmp_path, capsys):
    server.answers = [1000, 5000, 20_000, 1, 2, 3]
    fetch(address(server), tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT
    starts = (1000, 6000, 26_000, 26_001, 26_003, 26_006)
    assert server.asked == [None, *(f"bytes={start}-" for start in starts)]
    assert (
        "the connection was cut after 6,000 of 1,048,576 bytes; again in" in capsys.readouterr().err
    )


def test_the_next_download_goes_on_behind_what_an_earlier_one_left(server, tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(CONTENT[:4321])
    fetch(address(server), tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT
    assert server.asked == ["bytes=4321-"]


def test_a_server_that_can_only_begin_at_the_beginning(server, tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(CONTENT[:4321])
    server.answers = ["deaf"]
    fetch(address(server), tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"?" * 10, CONTENT[::-1], CONTENT * 2])
def test_what_an_earlier_download_left_of_another_file_is_given_up(server, tmp_path, left):
    (tmp_path / "weights.pth.part").write_bytes(left)
    fetch(address(server), tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT
    assert server.asked[-1] is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("page", "the server answers with a web page instead of the file"),
        ("503", "the server answers 503 (Service Unavailable)"),
        (0, "the connection was cut after 100 of 1,048,576 bytes"),
        ("elsewhere", "asked for the bytes from 100, the server sends those from 7"),
        (CONTENT[:-1], "expected 1,048,476 bytes, the server has 1048475 for it"),
    ],
)
def test_what_may_pass_is_tried_four_times_and_the_part_stays(server, tmp_path, answer, said):
    (tmp_path / "weights.pth").write_bytes(b"earlier")
    (tmp_path / "weights.pth.part").write_bytes(CONTENT[:100])
    server.answers = [answer] * 4
    message = refused(address(server), tmp_path / "weights.pth")
    assert f": {said}, 100 of 1,048,576 bytes are kept; " in message
    assert len(server.asked) == 4 and not server.answers
    assert (tmp_path / "weights.pth.part").read_bytes() == CONTENT[:100]
    assert (tmp_path / "weights.pth").read_bytes() == b"earlier"
    fetch(address(server), tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT


def test_a_server_that_comes_back_is_waited_for(server, tmp_path):
    server.answers = ["503", "page", 500, "503", "503", "503"]
    fetch(address(server), tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT


def test_a_file_that_is_not_there_is_asked_for_once(server, tmp_path):
    server.answers = ["404"] * 2
    assert ": the server answers 404 (Not Found); " in refused(address(server), tmp_path / "w.pth")
    assert len(server.asked) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (CONTENT[::-1], "what came has SHA-256 "),
        (b"<!doctype html>".ljust(len(CONTENT)), "what came is a web page, such as an error"),
        (b"version https://git-lfs".ljust(len(CONTENT)), "what came is a pointer of Git LFS"),
    ],
)
def test_another_file_of_the_same_size_is_refused_and_not_kept(server, tmp_path, content, said):
    server.answers = [content] * 4
    assert f": {said}" in refused(address(server), tmp_path / "weights.pth")
    assert len(server.asked) == 2
    assert list(tmp_path.iterdir()) == []


def test_without_a_connection_one_sentence_says_so_at_once(server, tmp_path):
    server.server_close()
    said = refused(address(server), tmp_path / "weights.pth")
    assert f"no connection to 127.0.0.1:{server.server_port} (connection refused)" in said


def test_a_folder_on_a_disk_is_a_mirror(tmp_path):
    (tmp_path / "mirror.pth").write_bytes(CONTENT)
    (tmp_path / "weights.pth.part").write_bytes(CONTENT[:10])
    fetch((tmp_path / "mirror.pth").as_uri(), tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT
    said = refused((tmp_path / "none.pth").as_uri(), tmp_path / "weights.pth")
    assert ": there is no such file; " in said


@pytest.mark.parametrize("url", ["ftp://host/a", "weights.pth", "", "data:,a"])
def test_other_addresses_are_refused(tmp_path, url):
    assert "expected an address with https, http, file" in refused(url, tmp_path / "weights.pth")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["http://[", "http://a b/c", "https://", "http://host:port/a"])
def test_addresses_that_are_none_are_refused(tmp_path, url):
    refused(url, tmp_path / "weights.pth")
    assert list(tmp_path.iterdir()) == []


def test_two_downloads_of_one_file_do_not_write_into_each_other(server, tmp_path):
    release = locks.try_lock(tmp_path / ".weights.pth.lock")
    with pytest.raises(UserError, match="another process is downloading it; wait for it"):
        fetch(address(server), tmp_path / "weights.pth")
    release()
    fetch(address(server), tmp_path / "weights.pth")


def test_a_place_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/weights.pth: can't be written"):
        fetch(address(server), tmp_path / "file" / "weights.pth")
    (tmp_path / "weights.pth").mkdir()
    with pytest.raises(UserError, match="weights.pth: can't be written"):
        fetch(address(server), tmp_path / "weights.pth")


def test_a_file_larger_than_the_free_space_is_refused_before_it_is_asked_for(server, tmp_path):
    with pytest.raises(UserError, match="MiB are needed, .* MiB are free; make room"):
        download.fetch(address(server), tmp_path / "weights.pth", 2**60, SHA256, "")
    assert server.asked == []
