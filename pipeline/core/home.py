"""Where the files of this installation lie: code, rules, presets, studies.

A clone has them in its root, an installed wheel in the folder `hsam_pipeline`, laid out as there.
"""

from pathlib import Path

from hsam import version

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = Path(version.__file__).resolve().parent
WORKFLOW = ROOT / "workflow"


def is_clone() -> bool:
    """Whether the code lies in a clone of the repository rather than in an installed wheel."""
    return (ROOT / "pyproject.toml").is_file()
