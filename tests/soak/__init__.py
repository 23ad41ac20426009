"""Rough treatment: kills, damaged files, full disks, crowds. `make soak` is the long form.

Each module holds one kind of it as functions with a count; `make test` calls them with small
counts (`test_soak.py`), `python -m tests.soak` with large ones, for `docs/reliability.md`.
"""
