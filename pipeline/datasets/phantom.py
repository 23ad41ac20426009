"""The phantom data set: synthetic volumes that a stage writes, in the layout of Synapse."""

from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Dataset
from pipeline.core.params.blocks import Phantom as PhantomParams
from pipeline.datasets.base import CanonicalSplit, CaseList, RawCase, chosen
from pipeline.datasets.synapse import Synapse, case_id, image_path, label_path

TEST_SHARE = 0.3  # of the cases


def cases(count: int) -> list[str]:
    """Ids of the first `count` phantoms."""
    return [case_id(number) for number in range(1, count + 1)]


def paths(root: str | Path, params: PhantomParams) -> list[Path]:
    """All files that `hsam phantom` writes below `root`, known from the parameters alone."""
    root = Path(root)
    return [path(root, case) for case in cases(params.cases) for path in (image_path, label_path)]


class Phantom(Synapse):
    """Phantoms; their number is a parameter, the last 30% are the test set."""

    name = "phantom"
    called = "phantoms"
    published_axes = None

    def _find_cases(self, dataset: Dataset) -> CaseList:
        expected = self._all(dataset)
        missing = [path for raw in expected.values() for path in raw.files if not path.is_file()]
        if not missing:
            return CaseList(expected)
        names = ", ".join(path.name for path in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        problem = f"{dataset.root}: missing {names}{more}; {_command(dataset)} makes them."
        return CaseList(expected, [problem])

    def recognises(self, dataset: Dataset) -> bool:
        """Never: the files are as Synapse's, and what makes them is in the parameters."""
        return False

    def list_cases(self, dataset: Dataset) -> CaseList:
        """The cases to use; missing files are reported with the command that makes them."""
        return chosen(self._find_cases(dataset), dataset)

    def expected_files(self, dataset: Dataset) -> dict[str, RawCase]:
        """The cases from the parameters alone, since the files may not exist yet."""
        expected = chosen(CaseList(self._all(dataset)), dataset)
        if expected.problems:
            raise UserError(expected.problems)
        return expected.cases

    def canonical(self, dataset: Dataset) -> CanonicalSplit:
        """The last 30% of the cases, at least one, are the test set."""
        ids = cases(dataset.phantom.cases)
        training = len(ids) - max(1, round(TEST_SHARE * len(ids)))
        return CanonicalSplit(tuple(ids[:training]), tuple(ids[training:]))

    def _all(self, dataset: Dataset) -> dict[str, RawCase]:
        """Case id to raw files of all phantoms, whether they exist or not."""
        root = Path(dataset.root)
        return {
            case: RawCase(case, image_path(root, case), label_path(root, case))
            for case in cases(dataset.phantom.cases)
        }


def _command(dataset: Dataset) -> str:
    """The command line that makes the phantoms, for messages."""
    phantom = dataset.phantom
    return (
        f"`hsam phantom --out {dataset.root} --cases {phantom.cases} --seed {phantom.seed} "
        f"--size {phantom.size}`"
    )
