"""What `profiles/kubernetes` asks of kubectl, done on this machine.

`$STAND_IN_KUBECTL` is a folder: `NAME.json` is a job's manifest, `NAME.code` its exit status.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(os.environ["STAND_IN_KUBECTL"])


def create() -> None:
    """Start the container's command; a shell notes how it ended."""
    job = json.loads(sys.stdin.read())
    name = job["metadata"]["name"]
    (FOLDER / f"{name}.json").write_text(json.dumps(job))
    container = job["spec"]["template"]["spec"]["containers"][0]
    ended = f'; echo $? > "{FOLDER}/{name}.new"; mv "{FOLDER}/{name}.new" "{FOLDER}/{name}.code"'
    with open(FOLDER / f"{name}.log", "w") as log:
        subprocess.Popen(
            ["sh", "-c", f'"$@"{ended}', "sh", *container["command"]],
            cwd=container["workingDir"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def get(name: str) -> None:
    """The job with its condition; nothing where there is none."""
    if not (FOLDER / f"{name}.json").exists():
        return
    conditions, code = [], FOLDER / f"{name}.code"
    if code.exists():
        kind = "Failed" if int(code.read_text()) else "Complete"
        conditions.append({"type": kind, "status": "True"})
    print(json.dumps({"status": {"conditions": conditions}}))


if __name__ == "__main__":
    if sys.argv[1] == "create":
        create()
    elif sys.argv[1] == "get":
        get(sys.argv[3])
