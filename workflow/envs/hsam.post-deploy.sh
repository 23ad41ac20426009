#!/usr/bin/env bash
# Run by Snakemake in the new environment, in the repository's root.
set -euo pipefail
python -m pip install --quiet "$(grep '^pip==' requirements.txt)"
python -m pip install --quiet -r requirements.txt
python -m pip install --quiet --no-deps --no-build-isolation --editable .
