"""Where things lie in a wheel; all else that is to be said of the package is in pyproject.toml.

A clone, editable installs included, has `pipeline/` in its root. In a wheel `hsam_pipeline/` is
laid out like that root: the package `pipeline` and the files of the workflow lie in it, beside what
`hsam_pipeline.py` says, and site-packages gets no package of that common name.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.egg_info import egg_info

DOOR, MOVED = "hsam_pipeline", "pipeline"
WORKFLOW = ("Snakefile", "dvc.yaml", ".dvc/config", ".dvcignore", "profiles", "workflow")


class LaidOut(build_py):
    """Builds the packages, then moves one and adds the workflow's files."""

    def run(self) -> None:
        """Fill the folder that becomes the wheel."""
        super().run()
        if self.editable_mode:
            return
        root = Path(self.build_lib)
        home = root / DOOR
        shutil.rmtree(home, ignore_errors=True)  # of an earlier build
        home.mkdir()
        (root / f"{DOOR}.py").rename(home / "__init__.py")
        (root / MOVED).rename(home / MOVED)
        for name in WORKFLOW:
            target = home / name
            target.parent.mkdir(exist_ok=True)
            if Path(name).is_dir():
                shutil.copytree(name, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(name, target)


class Named(egg_info):
    """Metadata that name what is found in site-packages."""

    def run(self) -> None:
        """Write them."""
        super().run()
        names = Path(self.egg_info, "top_level.txt")
        kept = [name for name in names.read_text("utf-8").split() if name != MOVED]
        names.write_text("\n".join(kept) + "\n", "utf-8")


setup(cmdclass={"build_py": LaidOut, "egg_info": Named})
