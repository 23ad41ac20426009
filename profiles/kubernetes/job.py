"""Snakemake's jobs as Jobs of Kubernetes, by kubectl.

    job.py submit JOBSCRIPT     starts one and prints its name
    job.py status NAME          prints running, success or failed

The manifest is job.yaml beside this file, with what the rule asks for filled in.
"""

import json
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

TEMPLATE = Path(__file__).with_name("job.yaml")
PROPERTIES = "# properties = "


def manifest(script: str, folder: Path) -> dict[str, Any]:
    """The Job that runs a jobscript of Snakemake's in a folder."""
    line = next(line for line in script.splitlines() if line.startswith(PROPERTIES))
    job = json.loads(line.removeprefix(PROPERTIES))
    asked = job["resources"]
    found: dict[str, Any] = YAML(typ="safe", pure=True).load(TEMPLATE.read_text())
    rule = str(job.get("rule") or job.get("groupid", "group")).lower().replace("_", "-")
    found["metadata"]["name"] = f"hsam-{rule[:40]}-{uuid.uuid4().hex[:8]}"
    if "runtime" in asked:
        found["spec"]["activeDeadlineSeconds"] = 60 * int(asked["runtime"])
    container = found["spec"]["template"]["spec"]["containers"][0]
    container |= {"command": ["/bin/sh", "-c", script], "workingDir": str(folder)}
    limits = {}
    if "mem_mb" in asked:
        limits["memory"] = f"{asked['mem_mb']}M"
    if asked.get("gpu"):
        limits["nvidia.com/gpu"] = str(asked["gpu"])
    container["resources"] = {"requests": {"cpu": str(job["threads"]), **limits}, "limits": limits}
    return found


class Refused(Exception):
    """Kubernetes, or the way to it, said no; the text is kubectl's."""


def kubectl(*words: str, text: str = "") -> str:
    """What kubectl prints.

    Raises:
        Refused: it failed.
    """
    try:
        done = subprocess.run(["kubectl", *words], input=text, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit("kubectl: not found; install it where Snakemake runs.")
    if done.returncode:
        raise Refused(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def submit(script: Path) -> str:
    """Start the job; its name."""
    job = manifest(script.read_text(), Path.cwd())
    kubectl("create", "-f", "-", text=json.dumps(job))
    return str(job["metadata"]["name"])


def status(name: str) -> str:
    """running, success or failed; a job that somebody deleted has failed.

    A cluster that can't be reached for a while says nothing of the job: it counts as running.
    """
    try:
        text = kubectl("get", "job", name, "--ignore-not-found", "-o", "json")
    except Refused as error:
        print(error, file=sys.stderr)
        return "running"
    if not text.strip():
        return "failed"
    conditions = json.loads(text).get("status", {}).get("conditions") or []
    true = {each["type"] for each in conditions if each["status"] == "True"}
    return "success" if "Complete" in true else "failed" if "Failed" in true else "running"


def main(words: Sequence[str]) -> None:
    match words:
        case ["submit", script]:
            try:
                print(submit(Path(script)))
            except Refused as error:
                sys.exit(str(error))
        case ["status", name]:
            print(status(name))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
