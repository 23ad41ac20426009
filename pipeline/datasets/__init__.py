"""The registry of data sets: a new one is a module here and a line in `_ALL`."""

from pipeline.core.params.blocks import Dataset
from pipeline.datasets import la, nnunet, phantom, promise12, synapse
from pipeline.datasets.base import (
    CanonicalSplit,
    DataSet,
    LabelMap,
    RawCase,
    Scan,
)

__all__ = [
    "REGISTRY",
    "CanonicalSplit",
    "DataSet",
    "LabelMap",
    "RawCase",
    "Scan",
    "expected_files",
    "get",
]

_ALL: tuple[DataSet, ...] = (
    phantom.Phantom(),
    synapse.Synapse(),
    la.LeftAtrium(),
    promise12.Promise12(),
    nnunet.NnUNet(),
)
REGISTRY: dict[str, DataSet] = {entry.name: entry for entry in _ALL}


def get(dataset: Dataset) -> DataSet:
    """The registry's entry for `dataset.name`."""
    return REGISTRY[dataset.name]


def expected_files(dataset: Dataset) -> dict[str, RawCase]:
    """Case id to raw files as a workflow engine must know them before any stage runs.

    Raises:
        UserError: files of a data set that isn't made on the spot are missing.
    """
    return get(dataset).expected_files(dataset)
