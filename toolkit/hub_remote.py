"""The Hub itself, or whatever server `HF_ENDPOINT` names: what lies there, and how a folder gets there.

A folder goes up as one commit, and gets its tag when the commit holds exactly its files. Whatever fails before that
leaves nothing under a tag, and the same again goes on from there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from toolkit import hub
from toolkit.cards import LARGEST, merge, read_card, shown_files
from toolkit.errors import UserError
from toolkit.version_rules import CARD, Content, interface

if TYPE_CHECKING:
    from huggingface_hub import HfApi, HfFileSystem

_OF_THE_HUB = ".gitattributes"  # made with the repository; says which files are kept in LFS
_TRIES = 5
_AGAIN = "type the same again"
_NO_TAG = "it has no tag yet; the same command goes on from here"


@dataclass(frozen=True)
class Place:
    """A revision that is, or will be, on the Hub.

    Attributes:
        kind: What it is.
        repo_id: `owner/name`.
        revision: Its version, and the tag.
    """

    kind: hub.Kind
    repo_id: str
    revision: str

    def __str__(self) -> str:
        return f"{self.kind} {self.repo_id} {self.revision}"

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/{_prefix(self.kind)}{self.repo_id}/tree/{self.revision}"


def user() -> str:
    """Return the name of who is logged in, whose namespace a bare name is in.

    Raises:
        UserError: Nobody is, or with a token that may only read.
    """
    with told("the Hub"):
        known = _api().whoami()
    if known.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise UserError(
            f"the token of {known['name']} may only read; give one that may write to `hf auth login`, or set HF_TOKEN"
        )
    return str(known["name"])


def tags(kind: hub.Kind, repo_id: str) -> dict[str, str]:
    """Return the commit of each tag of a repository; none where it cannot be seen.

    Raises:
        UserError: The Hub does not answer.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    with told(f"{kind} {repo_id}"):
        try:
            refs = _api().list_repo_refs(repo_id, repo_type=kind)
        except RepositoryNotFoundError:
            return {}
    return {tag.name: tag.target_commit for tag in refs.tags}


def content(kind: hub.Kind, repo_id: str, commit: str, *, merged: bool = False) -> Content:
    """Return what a commit holds; of Parquet files only the ends are fetched.

    Args:
        kind: What it is.
        repo_id: `owner/name`.
        commit: Its full hash.
        merged: Whether its card will be merged with, so that it must be one that can be read.

    Raises:
        UserError: The Hub does not answer, or a Parquet file, or a card that is to be merged, is damaged.
    """
    from pyarrow import ArrowInvalid

    files = _files()

    def read(name: str) -> IO[bytes]:
        opened: IO[bytes] = files.open(f"{_prefix(kind)}{repo_id}@{commit}/{name}", "rb")
        return opened

    with told(f"{kind} {repo_id}"):
        digests = _digests(_api(), kind, repo_id, commit)
        try:
            relied_on = interface(digests, read)
        except ArrowInvalid as error:
            raise UserError(f"{kind} {repo_id} has a Parquet file at {commit} that is none: {error}") from None
        try:
            card = _card_there(kind, repo_id, commit, digests)
        except UserError:  # of a version that stays as it is
            if merged:
                raise
            card = ""
    return Content({name: digest for name, digest in digests.items() if name != CARD}, relied_on, card)


def check_card(place: Place, card: str) -> None:
    """Check that a card can be merged with the one on the Hub, before anything is sent.

    Raises:
        UserError: It cannot, and why; or the Hub does not answer.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    api = _api()
    with told(str(place)):
        try:
            head = _head(api, place.kind, place.repo_id)
        except RepositoryNotFoundError:
            return
        if head is not None:
            there = _digests(api, place.kind, place.repo_id, head)
            merge(_card_there(place.kind, place.repo_id, head, there), card)


def _head(api: HfApi, kind: hub.Kind, repo_id: str) -> str | None:
    # Only the hash: of a card whose keys are Python's own words the client cannot make anything.
    return api.repo_info(repo_id, repo_type=kind, revision="main", expand="sha").sha


def _card_there(kind: hub.Kind, repo_id: str, commit: str, names: Collection[str]) -> str:
    """Return the text of the card of a commit, empty where it has none.

    Raises:
        UserError: There is a folder of its name, or as of `read_card`.
    """
    where = f"the card of {kind} {repo_id} on the Hub"
    if any(name.startswith(f"{CARD}/") for name in names):
        raise UserError(f"{where}: {CARD} is a folder there, and must be a file; move it away")
    if CARD not in names:
        return ""
    with _files().open(f"{_prefix(kind)}{repo_id}@{commit}/{CARD}", "rb") as file:
        return read_card(file.read(LARGEST + 1), f"{where} (at {commit[:8]})")


def upload(place: Place, folder: Path, digests: Mapping[str, frozenset[str]], private: bool) -> str:
    """Send a folder to the Hub as one commit, and tag that.

    What people have written into the card on the Hub is brought into the folder's card first.

    Args:
        place: Where to.
        folder: The files.
        digests: Of every file but the card, as of `hub.content`.
        private: Make a repository that is not there yet a private one.

    Returns:
        The commit's full hash.

    Raises:
        UserError: Anything that stands in the way; what to do about it.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    api, kind, repo_id = _api(), place.kind, place.repo_id
    hub.files(folder)  # before a repository is made for what may not be sent
    with told(str(place), _NO_TAG, to="write"):
        api.create_repo(repo_id, repo_type=kind, private=True if private else None, exist_ok=True)
        if private and not api.repo_info(repo_id, repo_type=kind, expand="private").private:
            raise UserError(
                f"{kind} {repo_id} is public already; make it private in its settings ({constants.ENDPOINT}/"
                f"{_prefix(kind)}{repo_id}/settings), or leave --private away"
            )
        for _ in range(_TRIES):
            try:
                commit = _commit(api, place, folder)
            except HfHubHTTPError as error:
                if error.response.status_code not in (409, 412):
                    raise
                continue  # somebody else has committed in the meantime
            there = _digests(api, kind, repo_id, commit)
            expected = {name: digests.get(name) or hub.digests(path) for name, path in hub.files(folder).items()}
            if there.keys() == expected.keys() and all(there[name] <= expected[name] for name in there):
                api.create_tag(repo_id, tag=place.revision, revision=commit, repo_type=kind)
                return commit
    raise UserError(
        f"{place}: somebody else has changed the repository {_TRIES} times meanwhile; {_NO_TAG}, best in a quiet moment"
    )


def collect(title: str, places: Sequence[Place], private: bool) -> str:
    """Put repositories into the collection of a title in the namespace of the first, and return its address.

    Raises:
        UserError: The Hub refuses, or does not answer.
    """
    api, namespace = _api(), places[0].repo_id.partition("/")[0]
    with told(f"collection {title!r} of {namespace}", to="write"):
        made = api.create_collection(title, namespace=namespace, private=private, exists_ok=True)
        for place in places:
            api.add_collection_item(made.slug, place.repo_id, place.kind, exists_ok=True)
    return made.url


def _commit(api: HfApi, place: Place, folder: Path) -> str:
    """Make `main` hold a folder's files, its card merged with the one there; return the commit."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    kind, repo_id = place.kind, place.repo_id
    head = _head(api, kind, repo_id)
    assert head is not None
    there = _digests(api, kind, repo_id, head)
    if card := _card_there(kind, repo_id, head, there):
        files, root = _files(), f"{_prefix(kind)}{repo_id}@{head}"
        merged = merge(card, (folder / CARD).read_text(encoding="utf-8"))
        replace_card(folder, merged)
        for name in shown_files(merged):
            if name in there and not (folder / name).exists():
                _replace(folder, name, files.cat_file(f"{root}/{name}"))
    names = hub.files(folder)
    made = api.create_commit(
        repo_id,
        [
            *(CommitOperationAdd(name, path) for name, path in names.items()),
            *(CommitOperationDelete(name) for name in sorted(there.keys() - names.keys())),
        ],
        commit_message=place.revision,
        repo_type=kind,
        parent_commit=head,
    )
    return made.oid


def take(place: Place, commit: str, folder: Path, digests: Mapping[str, frozenset[str]]) -> None:
    """Make a folder that is the same revision as a commit the same files, too.

    They may differ in what makes no other revision: what people wrote, and how it was made.

    Args:
        place: What both are.
        commit: Its full hash.
        folder: The folder.
        digests: Of the commit's files but the card, as of `content`.

    Raises:
        UserError: The Hub does not answer.
    """
    files = _files()
    with told(str(place)):
        for name in [CARD, *(name for name in digests if not _is_there(folder / name, digests[name]))]:
            _replace(folder, name, files.cat_file(f"{_prefix(place.kind)}{place.repo_id}@{commit}/{name}"))
    for name, path in hub.files(folder).items():
        if name not in {CARD, *digests}:
            path.unlink()


def _is_there(file: Path, digests: frozenset[str]) -> bool:
    return file.exists() and bool(digests & hub.digests(file))


def replace_card(folder: Path, card: str) -> None:
    """Put a card into a revision's folder, whole or not at all."""
    _replace(folder, CARD, card.encode())


def _replace(folder: Path, name: str, content: bytes) -> None:
    file = folder / name
    if not file.exists() or file.read_bytes() != content:
        staging = folder.with_name(f".{folder.name}-{file.name}")  # outside of what is published
        staging.write_bytes(content)
        file.parent.mkdir(parents=True, exist_ok=True)
        staging.replace(file)


def _digests(api: HfApi, kind: hub.Kind, repo_id: str, commit: str) -> dict[str, frozenset[str]]:
    """Return the digest of every file of a commit, SHA-256 for one in LFS, else its name in git."""
    from huggingface_hub.hf_api import RepoFile

    return {
        entry.path: frozenset([entry.lfs.sha256 if entry.lfs else entry.blob_id])
        for entry in api.list_repo_tree(repo_id, recursive=True, revision=commit, repo_type=kind)
        if isinstance(entry, RepoFile) and entry.path != _OF_THE_HUB
    }


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(library_name="cot-distillery")


def _files() -> HfFileSystem:
    from huggingface_hub import HfFileSystem

    return HfFileSystem(skip_instance_cache=True)  # another one may have listed another server


def _prefix(kind: hub.Kind) -> str:
    return "datasets/" if kind == "dataset" else ""


@contextmanager
def told(what: str, then: str = _AGAIN, to: Literal["read", "write"] = "read") -> Iterator[None]:
    """Say what a failure of the Hub means, and what to do.

    Args:
        what: What it was about.
        then: What to do about one that passes.
        to: What the Hub was asked for.

    Raises:
        UserError: For whatever the Hub refused, or where it does not answer.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:  # of an upload in a thread the client says only that it failed
            if meaning := _meaning(cause, then, to):
                raise UserError(f"{what}: {meaning}") from None
            cause = cause.__cause__
        raise


def _meaning(error: BaseException, then: str, to: Literal["read", "write"]) -> str | None:
    """Return what a failure means, None for one that is not the Hub's."""
    import httpx2
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    where = constants.ENDPOINT
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, LocalTokenNotFoundError) or (status == 401 and get_token() is None):
        return f"nobody is logged in to {where}: `hf auth login`, or set HF_TOKEN"
    if isinstance(error, HfHubHTTPError):
        said = _first_line(error.server_message or error)
        return f"{where} {_refusal(error.response.status_code, said, then, to)}"
    if isinstance(error, OfflineModeIsEnabled):
        return f"HF_HUB_OFFLINE is set, and this asks {where}; unset it"
    if isinstance(error, ConnectionError) and "/xet-" in str(error):
        return f"{where} does not speak Xet ({_first_line(error)}): set HF_HUB_DISABLE_XET=1; {then}"
    if isinstance(error, httpx2.TransportError | ConnectionError):
        return f"{where} cannot be reached ({_first_line(error)}); {then}"
    if isinstance(error, ValueError) and "Invalid metadata" in str(error):
        return f"{where} refuses the card: {error}"
    return None


def _refusal(status: int, said: str, then: str, to: Literal["read", "write"]) -> str:
    if status == 401:
        return f"does not know the token ({said}): `hf auth login` with a valid one, or set HF_TOKEN to it"
    if status == 403:
        other = ", or name a namespace of your own with --to" if to == "write" else ""
        return f"refuses ({said}): the token must be allowed to {to} there; `hf auth login` with one that is{other}"
    if status == 409:
        return f"has it already ({said}), as somebody else is publishing it; {then}"
    if status == 429:
        return f"has had too many requests ({said}); {then}, later"
    return f"answers {status} ({said}); {then}"


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
