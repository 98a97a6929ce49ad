"""The loopback Hub, through the real clients: what it takes and gives, what it refuses, what goes wrong on demand."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    DatasetCard,
    HfApi,
    constants,
    errors,
    metadata_update,
)
from huggingface_hub.utils import _http

from tests.loopback_hub import LoopbackHub
from tests.prepared import prepared
from tests.records import saved_student
from toolkit.hub import publish_dataset

pytestmark = pytest.mark.slow

PARQUET = b"PAR1" + bytes(range(256)) * 20
CARD = b"---\nlicense: mit\n---\n\nWhat it is.\n"


@pytest.fixture(autouse=True)
def plain_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads by LFS, and no waiting before a client tries again."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    return HfApi(hub.url, token=hub.token)


def upload(api: HfApi, files: dict[str, bytes], repo: str = "org/cots", **more: Any) -> str:
    """Commit files to a dataset, made where it is not there; return the commit."""
    api.create_repo(repo, repo_type="dataset", exist_ok=True)
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit(repo, operations, commit_message="more", repo_type="dataset", **more).oid


def python(hub: LoopbackHub, code: str, *words: str, token: str | None = None) -> Any:
    """Run code in a process that knows nothing of this project; return what it prints, as JSON."""
    process = subprocess.run(
        [sys.executable, "-I", "-c", code, *words],
        env={"PATH": "", "OMP_NUM_THREADS": "1", **hub.environment(token)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.splitlines()[-1])


# --- repositories, commits, tags


def test_what_is_uploaded_is_there_under_its_commit_and_tag(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    files = {"README.md": CARD, "data/train.parquet": PARQUET, "empty.txt": b""}
    first = upload(api, files)
    api.create_tag("org/cots", tag="v1.0.0", revision=first, repo_type="dataset")
    second = upload(api, {"data/train.parquet": PARQUET * 2})
    assert [commit.oid for commit in hub.commits("datasets/org/cots")][:2] == [second, first]
    assert hub.tags("datasets/org/cots") == {"v1.0.0": first}
    attributes = hub.files("datasets/org/cots")[".gitattributes"]
    assert hub.files("datasets/org/cots", "v1.0.0") == {**files, ".gitattributes": attributes}
    assert hub.files("datasets/org/cots")["data/train.parquet"] == PARQUET * 2
    for revision, content in (("v1.0.0", PARQUET), (first, PARQUET), (first[:7], PARQUET), ("main", PARQUET * 2)):
        folder = Path(api.snapshot_download("org/cots", repo_type="dataset", revision=revision, cache_dir=tmp_path))
        assert (folder / "data" / "train.parquet").read_bytes() == content
        assert (folder / "README.md").read_bytes() == CARD


def test_a_commit_holds_all_of_its_changes(hub: LoopbackHub, api: HfApi) -> None:
    upload(api, {"a.txt": b"a", "old/b.txt": b"b", "old/c.txt": b"c"})
    operations = [CommitOperationAdd("a.txt", b"new"), CommitOperationDelete("old/")]
    api.create_commit("org/cots", operations, commit_message="tidy", repo_type="dataset")
    assert hub.files("datasets/org/cots").keys() == {".gitattributes", "a.txt"}
    operations = [CommitOperationAdd("d.txt", b"d"), CommitOperationDelete("nowhere.txt")]
    with pytest.raises(errors.EntryNotFoundError, match="A file with this name doesn't exist"):
        api.create_commit("org/cots", operations, commit_message="bad", repo_type="dataset")
    assert "d.txt" not in hub.files("datasets/org/cots")


def test_what_is_there_already_is_not_sent_again(hub: LoopbackHub, api: HfApi) -> None:
    first = upload(api, {"x.parquet": PARQUET, "README.md": CARD})
    assert upload(api, {"x.parquet": PARQUET, "README.md": CARD}) == first
    assert len(hub.named("lfs_upload")) == len(hub.named("commit")) == 1
    upload(api, {"x.parquet": PARQUET}, repo="org/other")
    assert len(hub.named("lfs_upload")) == 1


@pytest.mark.parametrize("page", [1, 2, 1000])
def test_trees_and_histories_come_in_pages(tmp_path: Path, page: int) -> None:
    with LoopbackHub(tmp_path, page=page) as hub:
        api = HfApi(hub.url, token=hub.token)
        upload(api, {"a/b/c.txt": b"c", "a/d.txt": b"d", "e.txt": b"e"})
        changed = upload(api, {"a/d.txt": b"D"})
        everything = api.list_repo_tree("org/cots", repo_type="dataset", recursive=True, expand=True)
        told = {entry.path: entry for entry in everything}
        top = {entry.path for entry in api.list_repo_tree("org/cots", repo_type="dataset")}
        inside = {entry.path for entry in api.list_repo_tree("org/cots", "a", repo_type="dataset")}
        titles = [commit.title for commit in api.list_repo_commits("org/cots", repo_type="dataset")]
    assert set(told) == {".gitattributes", "a", "a/b", "a/b/c.txt", "a/d.txt", "e.txt"}
    assert told["a"].last_commit.oid == told["a/d.txt"].last_commit.oid == changed != told["a/b"].last_commit.oid
    assert (top, inside) == ({".gitattributes", "a", "e.txt"}, {"a/b", "a/d.txt"})
    assert titles == ["more", "more", "initial commit"]


def test_a_commit_on_another_parent_is_refused(hub: LoopbackHub, api: HfApi) -> None:
    first = upload(api, {"README.md": CARD})
    hub.before("commit", lambda: hub.edit("datasets/org/cots", {"README.md": b"edited"}))
    with pytest.raises(errors.HfHubHTTPError) as raised:
        upload(api, {"README.md": CARD + b"more"}, parent_commit=first)
    assert raised.value.response.status_code == 412
    assert hub.files("datasets/org/cots")["README.md"] == b"edited"
    upload(api, {"README.md": CARD + b"more"}, parent_commit=hub.commits("datasets/org/cots")[0].oid)
    assert hub.files("datasets/org/cots")["README.md"] == CARD + b"more"


def test_tags_and_branches_are_made_once_and_deleted(hub: LoopbackHub, api: HfApi) -> None:
    first = upload(api, {"README.md": CARD})
    for make in (
        lambda **more: api.create_tag("org/cots", tag="v1.0.0", repo_type="dataset", **more),
        lambda **more: api.create_branch("org/cots", branch="try/it", repo_type="dataset", **more),
    ):
        make()
        with pytest.raises(errors.HfHubHTTPError, match="409"):
            make()
        make(exist_ok=True)
    upload(api, {"a.txt": b"a"}, revision="try/it")
    refs = api.list_repo_refs("org/cots", repo_type="dataset")
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("v1.0.0", first)]
    assert {branch.name for branch in refs.branches} == {"main", "try/it"}
    assert api.dataset_info("org/cots", revision="try/it").sha == hub.commits("datasets/org/cots", "try/it")[0].oid
    api.delete_tag("org/cots", tag="v1.0.0", repo_type="dataset")
    api.delete_branch("org/cots", branch="try/it", repo_type="dataset")
    with pytest.raises(errors.RevisionNotFoundError):
        api.delete_tag("org/cots", tag="v1.0.0", repo_type="dataset")
    with pytest.raises(errors.RevisionNotFoundError):
        api.create_tag("org/cots", tag="v1.0.0", revision="nowhere", repo_type="dataset")


def test_repositories_are_made_described_and_deleted(hub: LoopbackHub, api: HfApi) -> None:
    assert api.create_repo("org/student", private=True).repo_id == "org/student"
    with pytest.raises(errors.HfHubHTTPError, match="409"):
        api.create_repo("org/student")
    api.upload_file(path_or_fileobj=CARD, path_in_repo="README.md", repo_id="org/student")
    told = api.model_info("org/student", files_metadata=True)
    assert (told.private, told.gated, told.card_data.license) == (True, False, "mit")
    assert {file.rfilename: file.size for file in told.siblings}["README.md"] == len(CARD)
    assert api.model_info("org/student", expand=["sha"]).sha == told.sha
    api.update_repo_settings("org/student", private=False, gated="auto")
    assert (hub.repository("org/student").private, hub.repository("org/student").gated) == (False, True)
    api.delete_repo("org/student")
    assert not api.repo_exists("org/student")


def test_collections_hold_what_there_is(hub: LoopbackHub, api: HfApi) -> None:
    hub.create("org/student")
    hub.create("datasets/org/cots")
    slug = api.create_collection("Release 1", namespace="org", description="All of it").slug
    assert api.create_collection("Release 1", namespace="org", exists_ok=True).slug == slug
    api.add_collection_item(slug, "org/student", "model", note="the student")
    api.add_collection_item(slug, "org/cots", "dataset")
    api.add_collection_item(slug, "org/cots", "dataset", exists_ok=True)
    items = api.get_collection(slug).items
    assert [(item.item_id, item.item_type, item.note) for item in items] == [
        ("org/student", "model", "the student"),
        ("org/cots", "dataset", None),
    ]
    with pytest.raises(errors.HfHubHTTPError, match="404"):
        api.add_collection_item(slug, "org/nothing", "model")


# --- files


def test_a_file_that_is_known_is_not_fetched_again(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    upload(api, {"x.parquet": PARQUET, "a.txt": b"a"})
    fetch = lambda name: api.hf_hub_download("org/cots", name, repo_type="dataset", cache_dir=tmp_path)  # noqa: E731
    paths = [fetch("x.parquet"), fetch("a.txt")]
    upload(api, {"other.txt": b"o"})  # another commit, where both files are the same
    again = [fetch("x.parquet"), fetch("a.txt")]
    assert paths != again
    assert [Path(path).resolve() for path in paths] == [Path(path).resolve() for path in again]
    fetched = [request.name for request in hub.requests if request.method == "GET"]
    assert fetched == ["lfs_file", "file"]


@pytest.mark.parametrize("name", ["x.parquet", "x.txt"])
@pytest.mark.parametrize(("wanted", "start", "end"), [("10-19", 10, 20), ("5100-", 5100, None), ("-7", -7, None)])
def test_ranges_are_parts_of_the_file(
    hub: LoopbackHub, api: HfApi, name: str, wanted: str, start: int, end: int | None
) -> None:
    upload(api, {name: PARQUET.replace(b"\0", b" ")})
    url = f"{hub.url}/datasets/org/cots/resolve/main/{name}"
    got = httpx2.get(url, headers={"Range": f"bytes={wanted}"}, follow_redirects=True)
    content = PARQUET.replace(b"\0", b" ")
    assert (got.status_code, got.content) == (206, content[start:end])
    first = start % len(content)
    assert got.headers["Content-Range"] == f"bytes {first}-{first + len(got.content) - 1}/{len(content)}"
    assert httpx2.get(url, headers={"Range": "bytes=9999-"}, follow_redirects=True).status_code == 416


def test_metadata_of_cards_is_checked(hub: LoopbackHub, api: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    for front, message in (
        ("license: nobodys", "license"),
        ("license: [mit", "YAML Metadata Error"),
        ("size_categories: [huge]", "size_categories"),
        ("configs: [{data_files: x}]", "configs"),
    ):
        with pytest.raises(ValueError, match=message):
            upload(api, {"README.md": f"---\n{front}\n---\n".encode()})
    assert not hub.named("commit")
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    DatasetCard(CARD.decode()).validate()
    with pytest.raises(ValueError, match="license"):
        DatasetCard("---\nlicense: nobodys\n---\n").validate()
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        upload(api, {"README.md": b"no front matter"})


def test_metadata_of_a_card_on_the_hub_is_updated(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.be_the_hub(monkeypatch, hub.token)
    hub.create("datasets/org/cots")
    hub.edit("datasets/org/cots", {"README.md": CARD})
    metadata_update("org/cots", {"tags": ["chain-of-thought"]}, repo_type="dataset")
    card = DatasetCard(hub.files("datasets/org/cots")["README.md"].decode())
    assert (card.data.license, card.data.tags, card.text.strip()) == ("mit", ["chain-of-thought"], "What it is.")


# --- who may do what


def test_who_somebody_is(hub: LoopbackHub, api: HfApi) -> None:
    told = api.whoami()
    assert (told["name"], [org["name"] for org in told["orgs"]]) == ("maker", ["org"])
    assert [
        HfApi(hub.url, token=token).whoami()["auth"]["accessToken"]["role"] for token in (hub.token, hub.read_token)
    ] == [
        "write",
        "read",
    ]
    with pytest.raises(errors.HfHubHTTPError, match="Invalid"):
        HfApi(hub.url, token="hf_wrong").whoami()


def test_private_is_as_if_it_were_not_there(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.create("datasets/org/secret", private=True)
    fetch = lambda token, repo: HfApi(hub.url, token=token).hf_hub_download(  # noqa: E731
        repo, ".gitattributes", repo_type="dataset", cache_dir=tmp_path
    )
    assert Path(fetch(hub.read_token, "org/secret")).exists()
    for repo in ("org/secret", "org/nothing"):
        for token, status in ((hub.stranger_token, 404), (False, 401)):
            with pytest.raises(errors.RepositoryNotFoundError) as raised:
                HfApi(hub.url, token=token).dataset_info(repo)
            assert raised.value.response.status_code == status


def test_gated_is_seen_by_everybody_and_read_by_some(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.create("datasets/org/gated", gated=True)
    for token, status in ((hub.stranger_token, 403), (False, 401)):
        api = HfApi(hub.url, token=token)
        assert api.dataset_info("org/gated").gated == "auto"
        with pytest.raises(errors.GatedRepoError) as raised:
            api.hf_hub_download("org/gated", ".gitattributes", repo_type="dataset", cache_dir=tmp_path)
        assert raised.value.response.status_code == status
    HfApi(hub.url, token=hub.read_token).auth_check("org/gated", repo_type="dataset")


@pytest.mark.parametrize("token", ["read_token", "stranger_token"])
def test_nobody_writes_without_the_right_to(hub: LoopbackHub, token: str) -> None:
    hub.create("org/student")
    api = HfApi(hub.url, token=getattr(hub, token))
    for write in (
        lambda: api.create_repo("org/new"),
        lambda: api.upload_file(path_or_fileobj=b"a", path_in_repo="a.txt", repo_id="org/student"),
        lambda: api.create_tag("org/student", tag="v1.0.0"),
        lambda: api.delete_repo("org/student"),
    ):
        with pytest.raises(errors.HfHubHTTPError) as raised:
            write()
        assert raised.value.response.status_code == 403
    assert len(hub.commits("org/student")) == 1


# --- what goes wrong on demand


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 429, 500])
def test_a_status_on_demand(hub: LoopbackHub, api: HfApi, status: int) -> None:
    hub.fail("commit", status)
    with pytest.raises(errors.HfHubHTTPError) as raised:
        upload(api, {"a.txt": b"a"})
    assert raised.value.response.status_code == status
    assert len(hub.commits("datasets/org/cots")) == 1
    upload(api, {"a.txt": b"a"})


@pytest.mark.parametrize("status", [None, 500])
def test_an_upload_that_breaks_once_is_tried_again(
    hub: LoopbackHub, api: HfApi, tmp_path: Path, status: int | None
) -> None:
    big = tmp_path / "big.parquet"
    big.write_bytes(PARQUET * 2000)  # in many packets
    hub.fail("lfs_upload", status)
    api.create_repo("org/cots", repo_type="dataset")
    api.upload_file(path_or_fileobj=big, path_in_repo="big.parquet", repo_id="org/cots", repo_type="dataset")
    assert [request.status for request in hub.named("lfs_upload")] == [status or 0, 200]
    assert hub.files("datasets/org/cots")["big.parquet"] == PARQUET * 2000


def test_an_upload_that_stays_broken_commits_nothing(hub: LoopbackHub, api: HfApi) -> None:
    hub.fail("lfs_upload", times=100)
    with pytest.raises(RuntimeError, match=r"Error while uploading 'x\.parquet'"):
        upload(api, {"x.parquet": PARQUET, "a.txt": b"a"})
    assert not hub.named("commit")


def test_a_commit_whose_answer_is_lost_was_made(hub: LoopbackHub, api: HfApi) -> None:
    hub.fail("commit", served=True)
    with pytest.raises(httpx2.NetworkError):
        upload(api, {"a.txt": b"a"})
    assert hub.files("datasets/org/cots")["a.txt"] == b"a"


def test_faults_may_come_later_and_carry_headers(hub: LoopbackHub, api: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(_http.time, "sleep", waits.append)
    hub.fail("preupload", 429, after=1, times=2, headers={"Retry-After": "7"})
    upload(api, {"a.txt": b"a"})
    assert not waits
    upload(api, {"b.txt": b"b"})
    assert [request.status for request in hub.named("preupload")] == [200, 429, 429, 200]
    assert all(wait >= 7 for wait in waits)
    assert len(waits) == 2


def test_a_request_that_is_not_known_fails_the_test_by_name(tmp_path: Path) -> None:
    def likes(hub: LoopbackHub) -> None:
        with pytest.raises(errors.HfHubHTTPError, match="501"):
            next(iter(HfApi(hub.url, token=hub.token).list_repo_likers("org/student")))

    with (
        pytest.raises(AssertionError, match=r"GET /api/models/org/student/likers: .*no such route"),
        LoopbackHub(tmp_path) as hub,
    ):
        likes(hub)
    hub = LoopbackHub(tmp_path)
    hub.__enter__()
    likes(hub)
    hub.__exit__(ZeroDivisionError, None, None)  # the test's own failure goes first


def test_a_client_that_insists_on_xet_is_told_that_there_is_none(
    hub: LoopbackHub, api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So whoever uses a Hub without Xet must set HF_HUB_DISABLE_XET=1: the client does not find out by itself."""
    pytest.importorskip("hf_xet")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with pytest.raises(ConnectionError, match="xet-write-token"):
        upload(api, {"x.parquet": PARQUET})
    assert not hub.named("commit")
    upload(api, {"a.txt": b"what git keeps itself needs no Xet"})


# --- datasets and transformers


LOAD = """
import json, sys
import datasets
tell = lambda revision, **more: datasets.load_dataset("org/cots", revision=revision, split="train", **more)
print(json.dumps({revision: [list(tell(revision)["id"]), [row["id"] for row in tell(revision, streaming=True)]]
                  for revision in sys.argv[1:]}))
"""


def test_each_tag_of_a_dataset_has_its_rows(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    import datasets

    rows = {"v1.0.0": ["a", "b"], "v1.1.0": ["a", "b", "c"]}
    commits = {}
    api.create_repo("org/cots", repo_type="dataset")
    for tag, ids in rows.items():
        tables = prepared({"default": {"train": datasets.Dataset.from_dict({"id": ids})}}, tmp_path)
        folder = publish_dataset(tmp_path / "local", "cots", tag, tables, CARD.decode()).folder
        commits[tag] = api.upload_folder(repo_id="org/cots", repo_type="dataset", folder_path=folder).oid
        api.create_tag("org/cots", tag=tag, revision=commits[tag], repo_type="dataset")
    loaded = python(hub, LOAD, *rows, *commits.values(), "main")
    wanted = {revision: [ids, ids] for tag, ids in rows.items() for revision in (tag, commits[tag])}
    assert loaded == {**wanted, "main": [rows["v1.1.0"]] * 2}


ANSWER = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("org/student", revision=sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained("org/student", revision=sys.argv[1])
output = model.generate(**tokenizer("Q: 1 + 1?", return_tensors="pt"), max_new_tokens=2, do_sample=False)
print(json.dumps([model.config.num_hidden_layers, output.shape[0]]))
"""


def test_a_private_student_loads_at_its_revision(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    api.create_repo("org/student", private=True)
    for layers, tag in ((1, "v1.0.0"), (2, "v1.1.0")):
        folder = saved_student(tmp_path / tag, num_hidden_layers=layers)
        commit = api.upload_folder(repo_id="org/student", folder_path=folder).oid
        api.create_tag("org/student", tag=tag, revision=commit)
    assert python(hub, ANSWER, "v1.0.0", token=hub.read_token) == [1, 1]
