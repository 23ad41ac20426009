"""A Hugging Face hub on this machine: the few endpoints that a push and a pull need, over HTTP.

Source: requests of huggingface_hub 2.4 and https://huggingface.co/docs/hub/api.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

TOKEN = "hf_of_the_test"


class Hub(ThreadingHTTPServer):
    """Repositories in memory.

    Attributes:
        repositories: OWNER/NAME to commits, each a file's name to its content.
        private: those that need the token to be read.
        stored: uploaded objects by SHA-256.
        broken: paths (ends of them) that are answered with 503.
        tokens: that requests came with, None: none.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, list[dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.stored: dict[str, bytes] = {}
        self.broken: list[str] = []
        self.tokens: set[str | None] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


def commit_id(name: str, number: int) -> str:
    return hashlib.sha1(f"{name} {number}".encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if not self._is_well():
            return None
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            revision = parts[5] if len(parts) > 5 else "main"
            return self._info("/".join(parts[2:4]), revision)
        if len(parts) > 4 and parts[2] == "resolve":
            return self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        return self._answer(404)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        content = self._body()
        if self._is_well():
            self.server.stored[hashlib.sha256(content).hexdigest()] = content
            self._answer(200)

    def do_POST(self) -> None:
        body = self._body()
        if not self._is_well():
            return None
        path = self.path.partition("?")[0]
        if self._token() != TOKEN:
            return self._answer(401, {"error": "Invalid credentials"})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        if path.endswith("/objects/batch"):
            objects = [
                each | {"actions": {"upload": {"href": f"{self.server.address}/lfs/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return self._answer(200, {"transfer": "basic", "objects": objects})
        name = "/".join(path.split("/")[3:5])
        if "/preupload/" in path:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": files})
        return self._commit(name, [json.loads(line) for line in body.splitlines()])

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.repositories:
            url = f"{self.server.address}/{name}"
            return self._answer(409, {"error": "You already created it", "url": url})
        self.server.repositories[name] = [{".gitattributes": b""}]
        if asked.get("private") or asked.get("visibility") == "private":
            self.server.private.add(name)
        return self._answer(200, {"url": f"{self.server.address}/{name}"})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        commits = self.server.repositories[name]
        values = {line["key"]: line["value"] for line in lines}
        if values["header"]["parentCommit"] != commit_id(name, len(commits)):
            return self._answer(412, {"error": "The branch has moved"})
        files = dict(commits[-1])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.stored[value["oid"]]
        commits.append(files)
        oid = commit_id(name, len(commits))
        url = f"{self.server.address}/{name}/commit/{oid}"
        return self._answer(200, {"success": True, "commitOid": oid, "commitUrl": url})

    def _find(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """A commit and its files; None, with an answer, where there is none."""
        commits = self.server.repositories.get(name)
        if commits is None or (name in self.server.private and self._token() != TOKEN):
            self._answer(401 if self._token() is None else 404, code="RepoNotFound")
            return None
        for number, files in reversed(list(enumerate(commits, 1))):
            if revision in ("main", commit_id(name, number)):
                return commit_id(name, number), files
        self._answer(404, code="RevisionNotFound")
        return None

    def _info(self, name: str, revision: str) -> None:
        if (found := self._find(name, revision)) is not None:
            siblings = [{"rfilename": file} for file in found[1]]
            self._answer(200, {"id": name, "sha": found[0], "siblings": siblings})

    def _file(self, name: str, revision: str, file: str) -> None:
        if (found := self._find(name, revision)) is None:
            return
        if file not in found[1]:
            return self._answer(404, code="EntryNotFound")
        content = found[1][file]
        self._send(
            200,
            content,
            {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": found[0]},
        )

    def _token(self) -> str | None:
        found = self.headers.get("Authorization")
        return None if found is None else found.removeprefix("Bearer ")

    def _is_well(self) -> bool:
        if not self.path.startswith("/lfs/"):
            self.server.tokens.add(self._token())
        if any(self.path.partition("?")[0].endswith(end) for end in self.server.broken):
            self._answer(503, {"error": "Down for maintenance"})
            return False
        return True

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, value: Any = None, code: str | None = None) -> None:
        headers = {"Content-Type": "application/json"}
        if code is not None:
            headers["X-Error-Code"] = code
        self._send(status, json.dumps(value or {}).encode(), headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that huggingface_hub in this process talks to, without a token."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    # the other protocol for large files, which a hub may offer, has a server of its own
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()
