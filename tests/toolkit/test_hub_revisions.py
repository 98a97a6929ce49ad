from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi, constants

from dataset_builders import attributions
from dataset_builders.key_tokens_settings import Attributor
from tests.loopback_hub import LoopbackHub
from tests.tiny_recipe import EDIT, written
from toolkit import runs
from toolkit.cli import open_recipe
from toolkit.errors import UserError
from toolkit.hub_revisions import commit_of, is_on_hub, load_rows, pinned_arguments
from toolkit.problem_sources import DatasetProblems, ProceduralProblems, source_commit
from toolkit.runs import Run


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A Hub with a dataset of two versions, after which `main` went on, and a student that two branches have."""
    with LoopbackHub(tmp_path / "hub") as hub:
        hub.be_the_hub(monkeypatch)
        cots = hub.create("datasets/org/cots")
        for tag in ("v1.0.0", "v1.1.0"):
            cots.tags[tag] = hub.edit("datasets/org/cots", {"README.md": tag.encode()}).oid
        hub.edit("datasets/org/cots", {"README.md": b"later"})
        student = hub.create("org/student")
        student.branches["wide"] = hub.edit("org/student", {"config.json": b"{}"}).oid
        hub.edit("org/student", {"README.md": b"a card"})
        commit_of.cache_clear()
        yield hub
        commit_of.cache_clear()


@pytest.mark.parametrize("revision", ["v1.0.0", "v1.1.0", "main", None])
def test_a_revision_is_the_commit_it_stands_for(hub: LoopbackHub, revision: str | None) -> None:
    known = hub.tags("datasets/org/cots") | {"main": hub.commits("datasets/org/cots")[0].oid}
    assert commit_of("dataset", "org/cots", revision) == known[revision or "main"]


def test_a_full_hash_stands_for_itself_and_is_looked_for(hub: LoopbackHub) -> None:
    commit = hub.tags("datasets/org/cots")["v1.0.0"]
    assert commit_of("dataset", "org/cots", commit) == commit
    with pytest.raises(UserError, match=rf"dataset org/cots has no revision '{'0' * 40}'"):
        commit_of("dataset", "org/cots", "0" * 40)


def test_a_branch_is_asked_for_once(hub: LoopbackHub) -> None:
    first = commit_of("model", "org/student", "main")
    hub.edit("org/student", {"more.txt": b"more"})
    assert commit_of("model", "org/student", "main") == first != hub.commits("org/student")[0].oid
    assert commit_of("model", "org/student", "wide") == hub.repository("org/student").branches["wide"]


def test_an_unknown_revision_names_those_there_are(hub: LoopbackHub) -> None:
    with pytest.raises(UserError) as raised:
        commit_of("dataset", "org/cots", "v1.0.1")
    assert str(raised.value) == (
        "dataset org/cots has no revision 'v1.0.1' (did you mean 'v1.0.0'?); "
        "it has the tags ['v1.0.0', 'v1.1.0'] and the branches ['main']"
    )


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (None, "log in with `hf auth login`, or set HF_TOKEN, and accept its terms at {url}/datasets/org/cots"),
        ("hf_stranger", "is gated: accept its terms at {url}/datasets/org/cots by the account of the token"),
    ],
)
def test_a_gated_dataset_says_where_its_terms_are(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, token: str | None, message: str
) -> None:
    hub.be_the_hub(monkeypatch, token)
    hub.repository("datasets/org/cots").gated = True
    with pytest.raises(UserError) as raised:
        commit_of("dataset", "org/cots", "v1.0.0")
    assert message.format(url=hub.url) in str(raised.value)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (None, "if it is a private one, log in with `hf auth login`, or set HF_TOKEN"),
        ("hf_stranger", "if it is a private one, use the token of an account that may see it"),
        ("hf_mistyped", "does not know the token; log in with `hf auth login`, or set HF_TOKEN to a valid one"),
    ],
)
def test_a_private_student_says_how_to_get_at_it(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, token: str | None, message: str
) -> None:
    hub.be_the_hub(monkeypatch, token)
    hub.repository("org/student").private = True
    with pytest.raises(UserError) as raised:
        commit_of("model", "org/student", None)
    assert message in str(raised.value)
    assert hub.url in str(raised.value)


@pytest.mark.parametrize("token", ["hf_reads", "hf_writes"])
def test_who_may_read_gets_the_commit(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    hub.be_the_hub(monkeypatch, token)
    hub.repository("datasets/org/cots").gated = True
    hub.repository("org/student").private = True
    assert commit_of("dataset", "org/cots", "v1.0.0") == hub.tags("datasets/org/cots")["v1.0.0"]
    assert commit_of("model", "org/student", None) == hub.commits("org/student")[0].oid


def test_a_model_that_is_nowhere_is_no_folder_either(hub: LoopbackHub) -> None:
    with pytest.raises(UserError, match=r"there is no model org/nothing on http://.*, and there is no such folder"):
        commit_of("model", "org/nothing", None)


@pytest.mark.parametrize("way", ["offline", "down", "unreachable"])
def test_without_the_hub_a_revision_is_what_it_was(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    known = commit_of("dataset", "org/cots", "v1.0.0")
    commit_of.cache_clear()
    if way == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif way == "down":
        hub.fail("info", 500, times=9)
        hub.fail("resolve", 503, times=9)
    else:
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert commit_of("dataset", "org/cots", "v1.0.0") == known
    message = "HF_HUB_OFFLINE is set: unset it once" if way == "offline" else "cannot be reached"
    with pytest.raises(UserError, match=f"dataset org/cots at v1.1.0.*{message}"):
        commit_of("dataset", "org/cots", "v1.1.0")


def test_a_server_that_refuses_says_so(hub: LoopbackHub) -> None:
    hub.fail("info", 429)
    with pytest.raises(UserError, match="answers 429; try again later"):
        commit_of("dataset", "org/cots", "v1.0.0")


@pytest.mark.parametrize(
    ("name", "expected"), [("org/student", True), ("gpt2", True), ("a/b/c", False), ("../x", False), ("/x/y", False)]
)
def test_names_of_the_hub(name: str, expected: bool) -> None:
    assert is_on_hub(name) is expected


def test_a_folder_here_is_not_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "student").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_on_hub("org/student")


def test_another_base_is_another_run(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else students of a base that was pushed over would pass for those of the new one."""
    monkeypatch.setattr(runs, "code_digest", lambda: "code")  # imports all that trains
    student = {"model_name_or_path": "org/student", "model_revision": "main"}
    recipe = open_recipe(str(written(tmp_path, EDIT | {"student": student})))
    places = []
    for text in (b"one", b"two"):
        commit = hub.edit("org/student", {"README.md": text}).oid
        commit_of.cache_clear()
        assert recipe.student is not None
        assert pinned_arguments(recipe.student)["model_revision"] == commit
        run = Run(recipe, "rows")
        places.append((run.folder, run.chain(recipe.stages)[0].folder))
    assert places[0][0] != places[1][0]
    assert places[0][1] != places[1][1]


def test_problems_and_an_attributor_are_read_at_their_commits(hub: LoopbackHub, tmp_path: Path) -> None:
    problems = DatasetProblems(source="dataset", path="org/cots", revision="v1.0.0")
    assert source_commit(problems) == hub.tags("datasets/org/cots")["v1.0.0"]
    assert source_commit(ProceduralProblems(source="procedural", tasks=["dates"], n=1)) is None
    assert source_commit(DatasetProblems(source="dataset", path="json", data_files="x.json")) is None
    wide = hub.repository("org/student").branches["wide"]
    assert attributions._source(Attributor(model="org/student", revision="wide"), tmp_path) == ("org/student", wide)


def test_rows_of_another_commit_are_refused(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """`load_dataset` gives what it prepared last, with a warning, where the Hub fails while it loads."""
    import datasets

    wanted, other = (hub.tags("datasets/org/cots")[tag] for tag in ("v1.0.0", "v1.1.0"))
    asked: list[Any] = []

    def load_dataset(path: str, config: str, revision: str, **_: Any) -> Any:
        asked.append((path, revision))
        return SimpleNamespace(cache_files=[{"filename": f"/cache/org___cots/{config}/0.0.0/{wanted}/train.arrow"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    load_rows("org/cots", "v1.0.0", "default", "train")
    assert asked == [("org/cots", wanted)]
    with pytest.raises(UserError, match=r"dataset org/cots at v1\.1\.0: the Hub did not answer"):
        load_rows("org/cots", "v1.1.0", "default", "train")
    assert asked[1:] == [("org/cots", other)]


def test_resolving_leaves_the_repository_alone(hub: LoopbackHub) -> None:
    commit_of("dataset", "org/cots", "v1.0.0")
    assert {request.method for request in hub.requests} == {"GET", "HEAD"}
    assert HfApi(hub.url).dataset_info("org/cots", revision="v1.0.0").sha == commit_of("dataset", "org/cots", "v1.0.0")
