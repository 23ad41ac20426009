"""The data sets: a new one is a module here and a line in `pipeline/core/registry.py`.

Nothing here knows how a volume is read or what is done with it.
"""

from importlib import import_module

from pipeline.core.params.blocks import Dataset
from pipeline.core.registry import DATASETS
from pipeline.datasets.base import (
    CanonicalSplit,
    DataSet,
    LabelMap,
    RawCase,
    Scan,
)

__all__ = [
    "CanonicalSplit",
    "DataSet",
    "LabelMap",
    "RawCase",
    "Scan",
    "expected_files",
    "get",
    "named",
]


def named(name: str) -> DataSet:
    """The data set of that name in `pipeline.core.registry.DATASETS`."""
    module, _, entry = DATASETS[name].partition(":")
    return getattr(import_module(module), entry)()


def get(dataset: Dataset) -> DataSet:
    """The data set that the parameters name."""
    return named(dataset.name)


def expected_files(dataset: Dataset) -> dict[str, RawCase]:
    """Case id to raw files as a workflow engine must know them before any stage runs.

    Raises:
        UserError: files of a data set that isn't made on the spot are missing.
    """
    return get(dataset).expected_files(dataset)
