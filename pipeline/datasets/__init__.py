"""The data sets: a new one is a module here and a line in `pipeline/core/registry.py`.

Nothing here knows how a volume is read or what is done with it.
"""

from importlib import import_module

from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Dataset, Params
from pipeline.core.registry import DATASETS
from pipeline.datasets.base import (
    CanonicalSplit,
    CaseList,
    DataSet,
    LabelMap,
    RawCase,
)
from pipeline.imaging.channels import joined
from pipeline.imaging.intensity import Rules

__all__ = [
    "CanonicalSplit",
    "DataSet",
    "LabelMap",
    "RawCase",
    "CaseList",
    "check_split",
    "expected_files",
    "intensity",
    "get",
    "named",
    "split_problem",
]


def named(name: str) -> DataSet:
    """The data set of that name in `pipeline.core.registry.DATASETS`."""
    module, _, entry = DATASETS[name].partition(":")
    return getattr(import_module(module), entry)()


def get(dataset: Dataset) -> DataSet:
    """The data set that the parameters name."""
    return named(dataset.name)


def title(dataset: Dataset, name: str | None = None) -> str:
    """What people call the data; the data set's name where its files aren't there to say it.

    Args:
        dataset: the parameters.
        name: of the data set, where the parameters may be of another; None: it is theirs.
    """
    found = named(name or dataset.name)
    try:
        return found.title(dataset) if found.name == dataset.name else found.called or found.name
    except UserError:
        return found.name


def intensity(params: Params) -> Rules:
    """The rule of each channel that is used: that of the parameters, or else the data set's.

    Raises:
        UserError: rules for another number of channels.
    """
    given, entry = params.prepare.intensity, get(params.dataset)
    if given is None:
        return entry.intensity(params.dataset)
    count = len(entry.chosen_channels(params.dataset)) or 1
    rules = given if isinstance(given, list) else [given] * count
    if len(rules) != count:
        raise UserError(
            f"prepare.intensity: {len(rules)} rules for {count} channel{'' if count == 1 else 's'} "
            f"of {params.dataset.root}; give one for each, or a single one that holds for all."
        )
    return joined(rules)


def expected_files(dataset: Dataset) -> dict[str, RawCase]:
    """Case id to raw files, as the workflow engines need them before any stage runs.

    Raises:
        UserError: files are missing, of any data set but the phantom, which a stage makes.
    """
    return get(dataset).expected_files(dataset)


def check_split(params: Params) -> None:
    """Refuse a split by the literature's test subjects where the parameters show that it has none.

    Raises:
        UserError: as `split_problem` says.
    """
    if problem := split_problem(params):
        raise UserError(problem)


def split_problem(params: Params) -> str | None:
    """Why the stage split will refuse the parameters whatever the data are; None: it won't."""
    split = params.split
    if split.test is not None or split.list is not None or split.folds is not None:
        return None
    data, test = params.dataset, get(params.dataset).canonical(params.dataset).test
    if test and (data.cases is None or set(test) & set(data.cases)):
        return None
    lacks = "dataset.cases names none of them" if test else f"{data.name} has none"
    return (
        f"split.test: null takes the test subjects of the literature, and {lacks}; set a share "
        "such as 0.3, name the test cases, or set split.folds."
    )
