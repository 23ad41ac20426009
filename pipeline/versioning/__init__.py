"""What is kept of finished runs elsewhere: `dvc.lock`, the cache, rows of `dvc exp show`; models on
a hub or a shared disk.

Nothing here knows what a stage does or how its results are shown.
"""
