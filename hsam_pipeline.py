"""The door to the pipeline where it is installed: finds its package `pipeline`, rules and presets.

In a clone they lie beside this file. In a wheel this file is the package `hsam_pipeline`, and they
lie in its folder, which only programs that use them put on their path: a package called `pipeline`
in everybody's site-packages would shadow other projects' packages of that name, or be shadowed.
"""

import sys
from pathlib import Path

HOME = Path(__file__).resolve().parent
# for a Snakefile of one's own: `include: hsam_pipeline.SNAKEFILE`
SNAKEFILE = str(HOME / "Snakefile")

if str(HOME) not in sys.path:
    sys.path.insert(0, str(HOME))


def main() -> None:
    """Run the command `hsam`."""
    from pipeline.cli import main as run

    run()
