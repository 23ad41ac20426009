"""What DVC and git keep of finished runs: `dvc.lock`, the cache, rows of `dvc exp show`.

Nothing here knows what a stage does or how its results are shown.
"""
