"""What Snakemake's plugin asks of Slurm, done on this machine: linked as sbatch, srun, sacct, ...

`$STAND_IN_SLURM` is a folder: a line of `submitted` a submission, `JOB.state` a job's state, and
`JOB.starts` a line for each time that it was started. The file `preempt` holds a pattern of files:
where it matches while a job runs, that job is killed with all its processes and started again, as
Slurm does to a job that has to make room. That is done once.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(os.environ["STAND_IN_SLURM"])
POLL_SECONDS = 0.02


def sbatch(words: list[str]) -> int:
    """Note the submission, and run the job in a process of its own."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--wrap")
    parser.add_argument("--output")
    parser.add_argument("-D", dest="folder")
    options, _ = parser.parse_known_args(words)
    with open(FOLDER / "submitted", "a") as file:
        file.write(" ".join(word for word in words if word != options.wrap) + "\n")
    job = str(len((FOLDER / "submitted").read_text().splitlines()))
    set_state(job, "PENDING")
    log = options.output.replace("%j", job)
    subprocess.Popen(
        [sys.executable, __file__, "run", job, options.folder, log, options.wrap],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    print(job)
    return 0


def run(words: list[str]) -> int:
    """A job from its start to its end; the name of no command of Slurm's."""
    job, folder, log, command = words
    state = ""
    while state in ("", "PREEMPTED"):
        with open(FOLDER / f"{job}.starts", "a") as file:
            file.write("started\n")
        set_state(job, "RUNNING")
        state = once(job, folder, log, command)
        set_state(job, state)
    return 0


def once(job: str, folder: str, log: str, command: str) -> str:
    """Start a job's command; the state in which it ends."""
    environment = os.environ | {"SLURM_JOB_ID": job}
    with open(log, "a") as file:
        process = subprocess.Popen(
            ["sh", "-c", command],
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    order = FOLDER / "preempt"
    while process.poll() is None:
        if order.exists() and list(Path(folder).glob(order.read_text())):
            order.unlink()
            kill_all(process.pid)
            process.wait()
            return "PREEMPTED"
        time.sleep(POLL_SECONDS)
    return "FAILED" if process.returncode else "COMPLETED"


def kill_all(session: int) -> None:
    """SIGKILL to every process of a session and those that they started, as a cgroup's."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        parents[int(entry.parent.name)] = (int(fields[1]), int(fields[3]))
    doomed = {pid for pid, (_, own) in parents.items() if own == session}
    while more := {p for p, (parent, _) in parents.items() if parent in doomed} - doomed:
        doomed |= more
    for pid in doomed:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def srun(words: list[str]) -> int:
    """A step is run in the place of srun: the command begins behind srun's own options."""
    start = next(i for i, word in enumerate(words) if not word.startswith("-"))
    os.execvp(words[start], words[start:])


def sacct(words: list[str]) -> int:
    """The states of all jobs, where they are asked for by name."""
    if "--name" in words:
        for path in FOLDER.glob("*.state"):
            print(f"{path.stem}|{path.read_text()}")
    return 0


def nothing(words: list[str]) -> int:
    """Accounts, the configuration, cancelled jobs: there is nothing to say."""
    return 0


def set_state(job: str, state: str) -> None:
    new = FOLDER / f"{job}.new"
    new.write_text(state)
    new.rename(FOLDER / f"{job}.state")


def main() -> int:
    commands = {"sbatch": sbatch, "srun": srun, "sacct": sacct, "run": run}
    name, words = Path(sys.argv[0]).name, sys.argv[1:]
    if name == Path(__file__).name:
        name, *words = words
    return commands.get(name, nothing)(words)


if __name__ == "__main__":
    sys.exit(main())
