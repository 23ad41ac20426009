"""What Linux has and macOS or Windows lacks is hidden from Python: everything still imports."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("hsam/**/*.py"))
)
# libraries are imported first: they look at the system's name, and this stays Linux
HIDE = """
import sys
for name in {libraries!r}:
    __import__(name)
import os, signal
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("sched_getaffinity", "sched_setaffinity", "fork", "getuid", "register_at_fork"):
    delattr(os, name)
for name in ("sigtimedwait", "pthread_sigmask", "SIGKILL", "SIGHUP"):
    delattr(signal, name)
"""
LIBRARIES = (
    *("torch", "lightning_fabric", "psutil", "pandas", "pyarrow.parquet", "optuna", "dvclive"),
    *("nibabel", "SimpleITK", "h5py", "pydicom", "highdicom", "matplotlib.pyplot", "scipy.ndimage"),
    *(
        "filelock",
        "monai.data",
        "jinja2",
        "concurrent.futures.process",
        "torch.utils.data",
        "tempfile",
    ),
)


def run(code: str, *libraries: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    code = HIDE.format(libraries=libraries) + code
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)


def test_every_module_imports():
    code = f"import importlib\nfor name in {MODULES!r}: importlib.import_module(name)"
    done = run(code, *LIBRARIES)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["--help", "params"])
def test_a_command_without_files_works(command):
    done = run(f"sys.argv = ['hsam', {command!r}]\nfrom pipeline.cli import main; main()")
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_stage_works(tmp_path):
    """A run folder is locked, and one that is in use is refused."""
    code = """
from pathlib import Path
from pipeline.core.errors import UserError
from pipeline.core.run_folder import open_run
def opened():
    return open_run(Path("runs"), "phantom", "split", {{}}, {{}})
with opened() as work:
    (work.out / "a.txt").write_text("a")
    work.finish()
    try:
        with opened(): print("shared")
    except UserError as error: print(error)
with opened() as work: print(work.is_done())
"""
    done = run(code.replace("{{}}", "{}"), "filelock", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "another process is working here" in first
    assert second == "True"
