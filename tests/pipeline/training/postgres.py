"""A PostgreSQL server of a test's own: a cluster in a temporary folder, gone when the test ends."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER, PASSWORD = "hsam", "a secret/word"


def programs() -> Path | None:
    """The folder of initdb and pg_ctl; None: there is no PostgreSQL here."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    beside = shutil.which("initdb")
    return found[-1].parent if found else Path(beside).parent if beside else None


@contextmanager
def server() -> Iterator[tuple[str, int]]:
    """Host and port of a server with the user and the password above; its database is postgres."""
    bin = programs()
    assert bin is not None
    # PostgreSQL refuses to run as root, and its socket's path must be short
    owner = "postgres" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="hsam-pg-", dir="/tmp"))
    if owner:
        shutil.chown(folder, owner)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    secret = folder / "password"
    secret.write_text(PASSWORD)
    if owner:
        shutil.chown(secret, owner)

    def call(*command: str | Path) -> None:
        subprocess.run(command, check=True, user=owner, cwd=folder, stdout=subprocess.DEVNULL)

    data, log = folder / "data", folder / "log"
    how = ["--username", USER, "--pwfile", secret, "--auth", "scram-sha-256", "--no-sync"]
    call(bin / "initdb", "--pgdata", data, *how)
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    try:
        call(bin / "pg_ctl", "--pgdata", data, "--log", log, "--options", options, "-w", "start")
        yield "127.0.0.1", port
    finally:
        call(bin / "pg_ctl", "--pgdata", data, "--mode", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)
