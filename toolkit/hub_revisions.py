"""Tags and branches of the Hub, or of whatever server `HF_ENDPOINT` names, as the commits that they stand for.

Each is asked for once in a process, so all that is loaded by it comes from one commit, whatever is pushed meanwhile.
Where the Hub cannot be reached, or `HF_HUB_OFFLINE` is set, a revision is what it was when it was last loaded.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from toolkit.errors import UserError, nearest

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from toolkit.hub import Kind
    from toolkit.recipe import Recipe
    from toolkit.recipe_sections import Student

_REPO_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_CARD = "README.md"


def is_on_hub(name: str) -> bool:
    """Whether a name is one of the Hub: one that could be, and no file or folder here."""
    return bool(_REPO_ID.fullmatch(name)) and not Path(name).exists()


@cache
def commit_of(kind: Kind, repo_id: str, revision: str | None) -> str:
    """Return the full hash of the commit that a revision stands for, whose files may be read.

    Args:
        kind: What it is.
        repo_id: `owner/name`.
        revision: Tag, branch or full hash; the main branch where None.

    Raises:
        UserError: There is none, or it may not be read; what to do about it.
    """
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RevisionResolutionError

    api = HfApi(library_name="cot-distillery")
    try:
        commit = api.resolve_revision(repo_id, repo_type=kind, revision=revision).resolved
        _must_be_readable(api, kind, repo_id, commit)
    except (RevisionResolutionError, httpx2.ProxyError) as error:
        _refuse_unreachable(kind, repo_id, revision, error)
    except HfHubHTTPError as error:
        _refuse(kind, repo_id, revision, error)
    return commit


def _must_be_readable(api: HfApi, kind: Kind, repo_id: str, commit: str) -> None:
    """Ask for the head of a file: what is gated can be seen by everybody, commits included, and read by some.

    Raises:
        HfHubHTTPError: It may not be read, or there is no such commit.
    """
    import httpx2
    from huggingface_hub import hf_hub_url, is_offline_mode
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    if is_offline_mode():
        return
    try:
        api.get_hf_file_metadata(url=hf_hub_url(repo_id, _CARD, repo_type=kind, revision=commit))
    except (EntryNotFoundError, httpx2.TransportError):
        pass  # readable and without a card, or only the cache can tell
    except HfHubHTTPError as error:
        if error.response.status_code < 500:
            raise


def base_commit(student: Student) -> str | None:
    """Return the commit of the Hub that a student is loaded at; None for one from a folder or a configuration.

    Raises:
        UserError: As of `commit_of`.
    """
    name = student.model_name_or_path
    if not name or not is_on_hub(name):
        return None
    return commit_of("model", name, student.model_arguments().get("model_revision"))


def revision_of(recipe: Recipe, start: str) -> str | None:
    """Return the commit to load the student at that training starts from; None for a folder.

    Raises:
        UserError: As of `commit_of`.
    """
    student = recipe.student
    return base_commit(student) if student and start == student.model_name_or_path else None


def pinned_arguments(student: Student) -> dict[str, Any]:
    """Return `student.model_arguments()`, with the commit of a student of the Hub as its revision.

    Raises:
        UserError: As of `commit_of`.
    """
    commit = base_commit(student)
    return student.model_arguments() | ({"model_revision": commit} if commit else {})


def dataset_at(repo_id: str, revision: str | None) -> tuple[str, str | None]:
    """Return what `load_dataset` takes as `path` and `revision` to read the files of one commit and no others.

    Without the Hub, `load_dataset` would give what it has prepared last of a dataset, whatever revision is asked for.
    So there it is given the folder in which the files of the commit were kept.

    Raises:
        UserError: There is no such dataset, or the files are not at hand.
    """
    from huggingface_hub import is_offline_mode, try_to_load_from_cache

    commit = commit_of("dataset", repo_id, revision)
    if not is_offline_mode():
        return repo_id, commit
    card = try_to_load_from_cache(repo_id, _CARD, repo_type="dataset", revision=commit)
    if not isinstance(card, str):
        _refuse_unreachable("dataset", repo_id, revision)
    return str(Path(card).parent), None


def load_rows(repo_id: str, revision: str | None, config: str | None, split: str, data_files: Any = None) -> Any:
    """Load a split of a dataset of the Hub as it is at the commit of a revision.

    Raises:
        UserError: There is no such dataset, its files are not at hand, or other rows than the commit's came.
        Exception: Whatever `load_dataset` raises.
    """
    import datasets

    path, commit = dataset_at(repo_id, revision)
    rows = datasets.load_dataset(path, config, split=split, revision=commit, data_files=data_files)
    if commit and any(commit not in Path(file["filename"]).parts for file in rows.cache_files):
        raise UserError(
            f"dataset {repo_id} at {revision}: the Hub did not answer, and what was loaded before is another revision; "
            "try again when the Hub can be reached"
        )
    return rows


def _refuse(kind: Kind, repo_id: str, revision: str | None, error: Any) -> NoReturn:
    """Say why the Hub does not give a commit, and what to do."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    what, where = f"{kind} {repo_id}", constants.ENDPOINT
    page = f"{where}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
    log_in = "log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        refs = HfApi().list_repo_refs(repo_id, repo_type=kind)
        tags, branches = (sorted(ref.name for ref in known) for known in (refs.tags, refs.branches))
        meant = nearest(str(revision), [*tags, *branches])
        raise UserError(
            f"{what} has no revision {revision!r}{meant}; it has the tags {tags} and the branches {branches}"
        ) from None
    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        first = f"{log_in}, and " if status == 401 else ""
        raise UserError(f"{what} is gated: {first}accept its terms at {page} by the account of the token") from None
    if isinstance(error, RepositoryNotFoundError):
        here = ", and there is no such folder" if kind == "model" else ""
        told = log_in if status == 401 else "use the token of an account that may see it"
        raise UserError(f"there is no {what} on {where}{here}; if it is a private one, {told}") from None
    if status == 401:
        raise UserError(f"{what}: {where} does not know the token; {log_in} to a valid one") from None
    raise UserError(f"{what}: {where} answers {status}; try again later") from None


def _refuse_unreachable(kind: Kind, repo_id: str, revision: str | None, error: Exception | None = None) -> NoReturn:
    from huggingface_hub import constants, is_offline_mode

    at = f"{kind} {repo_id} at {revision or 'main'}"
    if is_offline_mode():
        raise UserError(
            f"{at} is not in the cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE is set: unset it once"
        )
    raise UserError(f"{at}: {constants.ENDPOINT} cannot be reached, and the cache does not have it: {error}") from None
