"""Models on a Hugging Face hub: a repository a model, its files those of `model_folder`.

The hub's address is HF_ENDPOINT's, or huggingface.co; the token is HF_TOKEN's and none else.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hsam.backbones import HUGGING_FACE
from pipeline.core.errors import UserError, few
from pipeline.core.installed import need
from pipeline.versioning import model_folder

if TYPE_CHECKING:
    from huggingface_hub import HfApi

NAME = re.compile(rf"{HUGGING_FACE}([\w-][\w.-]*/[\w-][\w.-]*?)(?:@([\w.-]+))?", re.ASCII)
TOKEN = "HF_TOKEN"
OWN = (".gitattributes",)  # what a hub puts into a new repository


class Place(NamedTuple):
    """A repository.

    Attributes:
        repository: OWNER/NAME.
        revision: branch, tag or commit; None: the newest.
    """

    repository: str
    revision: str | None

    def __str__(self) -> str:
        """As people name it."""
        return f"{HUGGING_FACE}{self.repository}" + (f"@{self.revision}" if self.revision else "")

    @property
    def name(self) -> str:
        """The repository's own name."""
        return self.repository.partition("/")[2]


def place(given: str) -> Place | None:
    """The repository that a text names; None: it names a folder.

    Raises:
        UserError: it begins like a repository and is none.
    """
    if not given.startswith(HUGGING_FACE):
        return None
    match = NAME.fullmatch(given)
    if match is None:
        raise UserError(f"{given}: expected {HUGGING_FACE}OWNER/NAME, or the same with @REVISION.")
    return Place(match[1], match[2])


def upload(folder: Path, target: Place, public: bool) -> str:
    """Put a folder's files into a new or empty repository, in one commit.

    Args:
        folder: as `model_folder.write` fills it.
        target: is made where it isn't there.
        public: whether everyone may read a repository that is made here.

    Returns:
        the commit.

    Raises:
        UserError: no token, no right to write, files there already, or no such hub.
    """
    api = _api(target)
    if not os.environ.get(TOKEN):
        raise UserError(
            f"{target}: the hub asks for a token; set {TOKEN} to one that may write there."
        )
    if target.revision is not None:
        raise UserError(f"{target}: a push makes the revision; leave @{target.revision} out.")
    from huggingface_hub import CommitOperationAdd

    with _refusing(api, target):
        api.create_repo(target.repository, private=not public, exist_ok=True)
        info = api.model_info(target.repository)
        if there := [file.rfilename for file in info.siblings or () if file.rfilename not in OWN]:
            raise UserError(
                f"{target}: expected a new or an empty repository, found {few(there)}; choose "
                "another name."
            )
        files = [CommitOperationAdd(path.name, path) for path in sorted(folder.iterdir())]
        commit = api.create_commit(
            target.repository, files, commit_message="hsam push", parent_commit=info.sha
        )
    return commit.oid


def download(source: Place, folder: Path) -> tuple[str, dict[str, str]]:
    """Get a model's files into an empty folder; nothing else of the repository is asked for.

    Returns:
        the commit that they are of; file to SHA-256, as the repository's list says.

    Raises:
        UserError: no such hub, repository or revision, no right to read it, or no model in it.
    """
    api = _api(source)
    with _refusing(api, source):
        info = api.model_info(source.repository, revision=source.revision)
        there = {file.rfilename for file in info.siblings or ()}
        if model_folder.SUMS in there:
            _get(api, source, info.sha, model_folder.SUMS, folder)
        sums = model_folder.listed(folder, str(source))
        for name in sums:
            if name in there:
                _get(api, source, info.sha, name, folder)
    return str(info.sha), sums


def _get(api: "HfApi", source: Place, commit: str | None, name: str, folder: Path) -> None:
    api.hf_hub_download(source.repository, name, revision=commit, local_dir=folder)


def _api(repository: Place) -> "HfApi":
    need(("huggingface_hub",), "hf", str(repository))
    from huggingface_hub import HfApi

    # False: send none, not even one that a login has left on this machine
    return HfApi(os.environ.get("HF_ENDPOINT"), token=os.environ.get(TOKEN) or False)


@contextmanager
def _refusing(api: "HfApi", repository: Place) -> Iterator[None]:
    """Turn what a hub refuses into a sentence."""
    from huggingface_hub import errors

    try:
        yield
    except UserError:
        raise
    except errors.GatedRepoError:
        reason = "asks for its owner's consent; get it on its page"
    except errors.RepositoryNotFoundError:
        reason = f"there is no such repository, or {TOKEN} doesn't allow to read it; check both"
    except errors.RevisionNotFoundError:
        reason = f"there is no revision {repository.revision}; leave it out, or name another"
    except (errors.HfHubHTTPError, ValueError) as error:
        response = getattr(error, "response", None)
        status = None if response is None else response.status_code
        if status in (401, 403):
            reason = f"the hub refuses ({status}); set {TOKEN} to a token that may do this"
        elif status == 412:
            reason = "somebody else has written to it meanwhile; choose another name"
        else:
            said = str(error).strip().splitlines()
            reason = f"the hub refuses ({said[0] if said else status}); try again later"
    except errors.OfflineModeIsEnabled:
        reason = "HF_HUB_OFFLINE keeps from asking the hub; unset it"
    except (errors.HTTPError, OSError) as error:
        # of files on this machine, naming_unwritable speaks
        if isinstance(error, OSError) and error.filename is not None:
            raise
        reason = (
            f"no connection to {api.endpoint} ({' '.join(str(error).split()) or 'cut'}); check the "
            "network or HF_ENDPOINT, or use a folder on a shared disk"
        )
    else:
        return
    raise UserError(f"{repository}: {reason}.")
