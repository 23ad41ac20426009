"""The data sets: a new one is a module here and a line in `pipeline/core/registry.py`.

Nothing here knows how a volume is read or what is done with it.
"""

from importlib import import_module

from pipeline.core.params.blocks import Dataset
from pipeline.core.registry import DATASETS
from pipeline.datasets.base import (
    CanonicalSplit,
    CaseList,
    DataSet,
    LabelMap,
    RawCase,
)

__all__ = [
    "CanonicalSplit",
    "DataSet",
    "LabelMap",
    "RawCase",
    "CaseList",
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
    """Case id to raw files, as the workflow engines need them before any stage runs.

    Raises:
        UserError: files are missing, of any data set but the phantom, which a stage makes.
    """
    return get(dataset).expected_files(dataset)
