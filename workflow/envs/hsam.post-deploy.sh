#!/usr/bin/env bash
# Run by Snakemake in the new environment, in the root of the repository or of a project.
set -euo pipefail
python -m pip install --quiet "$(grep "^pip==" requirements.txt || echo pip)"
python -m pip install --quiet -r requirements.txt
[ ! -f pyproject.toml ] || python -m pip install --quiet --no-deps --no-build-isolation --editable .
