"""From the local hub to the loopback Hub by the real client: what arrives, and what every fault leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from huggingface_hub import constants

from tests.hostile_cards import DAMAGED, READABLE
from tests.loopback_hub import LoopbackHub
from tests.prepared import prepared
from toolkit import hub, hub_remote
from toolkit.cards import document
from toolkit.errors import UserError
from toolkit.hub_remote import Place, replace_card

pytestmark = pytest.mark.slow

datasets.disable_progress_bars()
REPO = "datasets/org/numbers"
CARD = document({"license": "mit"}, "# Numbers\n\n<!-- generated:a -->\n{}\n<!-- /generated:a -->\n")


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub(tmp_path / "remote") as server:
        server.be_the_hub(monkeypatch, server.token)
        yield server


def folder_of(root: Path, revision: str, *values: int, what: str = "text") -> Path:
    table = datasets.Dataset.from_dict({"n": list(values)})
    tables = prepared({"default": {"train": table}, "sft": {"train": table}}, root)
    return hub.publish_dataset(root / "hub", "org/numbers", revision, tables, CARD.format(what)).folder


def upload(folder: Path, private: bool = False) -> str:
    place = Place("dataset", "org/numbers", folder.name)
    return hub_remote.upload(place, folder, hub.content(folder).files, private)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def uploaded(remote: LoopbackHub, revision: str) -> dict[str, bytes]:
    """Return the files of a revision, but for the one that the Hub has made."""
    found = remote.files(REPO, revision)
    del found[".gitattributes"]
    return found


def test_the_folder_is_one_commit_and_the_tag_is_at_it(remote: LoopbackHub, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "v1.0.0", 1, 2)

    commit = upload(folder)

    assert remote.tags(REPO) == {"v1.0.0": commit}
    assert [one.title for one in remote.commits(REPO)][:-1] == ["v1.0.0"]
    assert uploaded(remote, "v1.0.0") == files(folder)


def test_the_next_version_takes_the_place_of_the_last_one_and_leaves_its_tag(
    remote: LoopbackHub, tmp_path: Path
) -> None:
    first = upload(folder_of(tmp_path, "v1.0.0", 1, 2))
    remote.edit(REPO, {"notes.txt": b"of the first version"})
    folder = folder_of(tmp_path, "v1.1.0", 1, 2, 3)

    second = upload(folder)

    assert remote.tags(REPO) == {"v1.0.0": first, "v1.1.0": second}
    assert uploaded(remote, "main") == uploaded(remote, "v1.1.0") == files(folder)


def test_only_what_has_changed_is_sent(remote: LoopbackHub, tmp_path: Path) -> None:
    upload(folder_of(tmp_path, "v1.0.0", 1, 2))
    sent = len(remote.named("lfs_upload"))

    upload(folder_of(tmp_path, "v1.0.1", 1, 2, what="other text"))

    assert len(remote.named("lfs_upload")) == sent


def test_what_people_wrote_on_the_hub_stays_and_comes_back(remote: LoopbackHub, tmp_path: Path) -> None:
    upload(folder_of(tmp_path, "v1.0.0", 1, what="first"))
    written = remote.files(REPO)["README.md"].replace(b"---\n\n#", b"---\n#") + b"\nMy note.\n"
    remote.edit(REPO, {"README.md": written.replace(b"license: mit", b"license: mit\narxiv: '2405.19737'")})
    folder = folder_of(tmp_path, "v1.1.0", 1, 2, what="second")

    upload(folder)

    card = uploaded(remote, "v1.1.0")["README.md"].decode()
    assert "\nMy note.\n" in card
    assert "arxiv: '2405.19737'" in card
    assert "second" in card
    assert "first" not in card
    assert uploaded(remote, "v1.1.0") == files(folder)


@pytest.mark.parametrize("status", [409, 412])
def test_a_card_that_is_edited_meanwhile_is_merged_with(remote: LoopbackHub, tmp_path: Path, status: int) -> None:
    upload(folder_of(tmp_path, "v1.0.0", 1))
    folder = folder_of(tmp_path, "v1.1.0", 1, 2)

    def edit() -> None:
        remote.edit(REPO, {"README.md": remote.files(REPO)["README.md"] + b"\nIn this very moment.\n"})

    remote.before("commit", edit)  # the parent that the client names is no longer the head: 412
    if status == 409:
        remote.fail("commit", 409)
    upload(folder)

    assert "In this very moment." in uploaded(remote, "v1.1.0")["README.md"].decode()
    assert uploaded(remote, "v1.1.0") == files(folder)


def test_a_picture_that_people_show_in_the_card_stays_and_comes_back(remote: LoopbackHub, tmp_path: Path) -> None:
    upload(folder_of(tmp_path, "v1.0.0", 1))
    shown = remote.files(REPO)["README.md"] + b"\n![Ours](pictures/ours.jpg)\n"
    remote.edit(REPO, {"README.md": shown, "pictures/ours.jpg": b"a picture", "other.jpg": b"shown nowhere"})
    folder = folder_of(tmp_path, "v1.0.1", 1, what="other text")

    upload(folder)

    assert uploaded(remote, "v1.0.1")["pictures/ours.jpg"] == b"a picture"
    assert "other.jpg" not in uploaded(remote, "v1.0.1")
    assert uploaded(remote, "v1.0.1") == files(folder)


def written(remote: LoopbackHub) -> list[str]:
    """Return the names of the requests so far that change anything."""
    return [one.name for one in remote.requests if one.name in ("create_repo", "preupload", "commit", "tag")]


def test_a_card_that_cannot_be_merged_with_is_named_before_anything_is_sent(
    remote: LoopbackHub, tmp_path: Path
) -> None:
    upload(folder_of(tmp_path, "v1.0.0", 1))
    folder, place = folder_of(tmp_path, "v1.1.0", 1, 2), Place("dataset", "org/numbers", "v1.1.0")
    digests = hub.content(folder).files
    for card, reason in DAMAGED.values():
        remote.edit(REPO, {"README.md": card})
        before = len(written(remote))

        with pytest.raises(UserError, match="the card of dataset org/numbers on the Hub") as raised:
            hub_remote.check_card(place, CARD.format("text"))
        assert reason in str(raised.value)
        assert len(written(remote)) == before
        with pytest.raises(UserError, match="the card of dataset org/numbers on the Hub"):
            hub_remote.upload(place, folder, digests, private=False)

        assert written(remote)[before:] == ["create_repo"]  # which is there already
        assert remote.files(REPO)["README.md"] == card
        assert remote.tags(REPO).keys() == {"v1.0.0"}


def test_a_folder_in_the_place_of_the_card_is_named(remote: LoopbackHub, tmp_path: Path) -> None:
    upload(folder_of(tmp_path, "v1.0.0", 1))
    remote.edit(REPO, {"README.md": None, "README.md/notes.txt": b"notes"})

    with pytest.raises(UserError, match=r"README\.md is a folder there"):
        hub_remote.check_card(Place("dataset", "org/numbers", "v1.1.0"), CARD.format("text"))


def test_a_card_of_another_program_is_merged_with(remote: LoopbackHub, tmp_path: Path) -> None:
    upload(folder_of(tmp_path, "v1.0.0", 1))
    for number, card in enumerate(READABLE.values()):
        remote.edit(REPO, {"README.md": card})
        folder = tmp_path / "hub/datasets/org/numbers" / f"v1.1.{number}"
        folder.mkdir()
        (folder / "README.md").write_text(CARD.format("text"))

        upload(folder)

        merged = uploaded(remote, folder.name)["README.md"].decode()
        assert merged.startswith("---\nlicense: mit\n")
        assert "\nmine: kept\n" in merged
        assert "\n# Words\n" in merged


def test_the_damaged_card_of_an_older_version_stands_in_no_ones_way(remote: LoopbackHub, tmp_path: Path) -> None:
    commit = remote.create(REPO) and remote.edit(REPO, {"README.md": b"\xff\0", "data.txt": b"x"})
    found = hub_remote.content("dataset", "org/numbers", commit.oid)
    assert (found.card, found.files.keys()) == ("", {"data.txt"})
    with pytest.raises(UserError, match="is not UTF-8"):
        hub_remote.content("dataset", "org/numbers", commit.oid, merged=True)


def test_a_damaged_card_in_the_local_hub_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    card = folder_of(tmp_path, "v1.0.0", 1) / "README.md"
    for content, reason in DAMAGED.values():
        card.write_bytes(content)

        with pytest.raises(UserError) as raised:
            hub.publish(
                tmp_path / "hub",
                "dataset",
                "org/numbers",
                "v1.1.0",
                lambda folder: replace_card(folder, CARD.format("text")),
            )

        assert str(raised.value).startswith(f"{card}: ")
        assert reason in str(raised.value)
        assert card.read_bytes() == content
        assert [path.name for path in card.parent.parent.iterdir() if not path.name.startswith(".")] == ["v1.0.0"]


def test_a_folder_in_the_place_of_the_local_card_is_named(tmp_path: Path) -> None:
    card = folder_of(tmp_path, "v1.0.0", 1) / "README.md"
    card.unlink()
    card.mkdir()

    with pytest.raises(UserError, match=r"v1\.0\.0/README\.md: is no file"):
        folder_of(tmp_path, "v1.1.0", 1, 2)


def test_a_repository_that_never_rests_is_given_up(remote: LoopbackHub, tmp_path: Path) -> None:
    remote.fail("commit", 412, times=100)

    with pytest.raises(UserError, match="somebody else has changed the repository 5 times"):
        upload(folder_of(tmp_path, "v1.0.0", 1))

    assert remote.tags(REPO) == {}


# --- faults: nothing under a tag, and the same again completes it

FAULTS = {
    "reset while the repository is made": ("create_repo", None, {}),
    "reset while a file is sent": ("lfs_upload", None, {"times": 100}),
    "500 while a file is sent": ("lfs_upload", 500, {"times": 100}),
    "reset at the commit": ("commit", None, {}),
    "500 at the commit": ("commit", 500, {}),
    "500 once the commit is made": ("commit", 500, {"served": True}),
    "reset once the commit is made": ("commit", None, {"served": True}),
    "500 at the tag": ("tag", 500, {}),
    "reset at the tag": ("tag", None, {}),
    "too many requests": ("commit", 429, {}),
    "503 for the tree": ("tree", 503, {"times": 100}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_fault_nothing_is_under_a_tag_and_the_same_again_completes_it(
    remote: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    name, status, more = FAULTS[fault]
    folder = folder_of(tmp_path, "v1.0.0", 1, 2)
    remote.fail(name, status, **more)

    with pytest.raises(UserError, match="it has no tag yet; the same command goes on from here"):
        upload(folder)
    left = {tag for repository in remote.repositories.values() for tag in repository.tags}
    remote._faults.clear()
    commit = upload(folder)

    assert left == set()
    assert remote.tags(REPO) == {"v1.0.0": commit}
    assert uploaded(remote, "v1.0.0") == files(folder)
    assert len(remote.commits(REPO)) == 2


def test_killed_between_commit_and_tag_the_same_again_only_tags(remote: LoopbackHub, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "v1.0.0", 1, 2)
    code = (
        "import sys; from pathlib import Path; from toolkit import hub, hub_remote; folder = Path(sys.argv[1]);"
        "place = hub_remote.Place('dataset', 'org/numbers', folder.name);"
        "hub_remote.upload(place, folder, hub.content(folder).files, False)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], env={**os.environ, **remote.environment(remote.token)}
    )
    remote.before("tag", process.kill)
    remote.fail("tag", 500)  # it was on its way
    process.wait(timeout=60)
    head = remote.commits(REPO)[0].oid

    commit = upload(folder)

    assert process.returncode < 0
    assert commit == head
    assert remote.tags(REPO) == {"v1.0.0": head}


# --- who may


def test_a_token_that_may_only_read_is_refused_by_the_hub(
    remote: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.be_the_hub(monkeypatch, remote.read_token)
    with pytest.raises(UserError, match="the token must be allowed to write there"):
        upload(folder_of(tmp_path, "v1.0.0", 1))
    assert remote.repositories == {}


def test_nobody_publishes_into_the_organisation_of_others(
    remote: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path, "v1.0.0", 1)
    upload(folder)
    remote.be_the_hub(monkeypatch, remote.stranger_token)
    with pytest.raises(UserError, match="name a namespace of your own with --to"):
        upload(folder_of(tmp_path, "v1.1.0", 1, 2))
    assert remote.tags(REPO).keys() == {"v1.0.0"}


@pytest.mark.parametrize(("token", "says"), [("hf_wrong", "does not know the token"), (None, "nobody is logged in")])
def test_without_a_valid_token_the_message_says_how_to_log_in(
    remote: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, says: str
) -> None:
    remote.be_the_hub(monkeypatch, token)
    for ask in (hub_remote.user, lambda: upload(folder_of(tmp_path, "v1.0.0", 1))):
        with pytest.raises(UserError, match=says) as error:
            ask()
        assert "hf auth login" in str(error.value)


def test_who_is_logged_in_is_told(remote: LoopbackHub) -> None:
    assert hub_remote.user() == "maker"


def test_a_reader_is_told_before_anything_is_sent(remote: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    remote.be_the_hub(monkeypatch, remote.read_token)
    with pytest.raises(UserError, match="may only read"):
        hub_remote.user()


def test_a_private_repository_is_made_private_and_a_public_one_is_not_taken_for_one(
    remote: LoopbackHub, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, "v1.0.0", 1)
    upload(folder, private=True)
    assert remote.repository(REPO).private
    remote.repository(REPO).private = False

    with pytest.raises(UserError, match="is public already"):
        upload(folder_of(tmp_path, "v1.1.0", 1, 2), private=True)

    assert remote.tags(REPO).keys() == {"v1.0.0"}


def test_a_server_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"http://127.0.0.1:9 cannot be reached"):
        hub_remote.tags("dataset", "org/numbers")


def test_who_may_not_read_is_told_nothing_of_writing(remote: LoopbackHub) -> None:
    remote.fail("refs", 403)
    with pytest.raises(UserError, match=r"allowed to read there; `hf auth login` with one that is$"):
        hub_remote.tags("dataset", "org/numbers")


def test_a_hub_without_xet_is_told(remote: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with pytest.raises(UserError, match=r"does not speak Xet .*: set HF_HUB_DISABLE_XET=1; it has no tag yet"):
        upload(folder_of(tmp_path, "v1.0.0", 1))
    assert remote.tags(REPO) == {}


def test_offline_mode_is_named(remote: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        hub_remote.tags("dataset", "org/numbers")


def test_a_card_that_the_hub_refuses_is_told(remote: LoopbackHub, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "v1.0.0", 1)
    (folder / "README.md").write_text((folder / "README.md").read_text().replace("license: mit", "license: nobody's"))

    with pytest.raises(UserError, match="refuses the card"):
        upload(folder)

    assert remote.tags(REPO) == {}


# --- what is there


def test_a_commit_holds_what_its_folder_does(remote: LoopbackHub, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "v1.0.0", 1, 2)
    commit = upload(folder)

    here, there = hub.content(folder), hub_remote.content("dataset", "org/numbers", commit)

    assert there.interface == here.interface != {}
    assert there.card == here.card
    assert there.files.keys() == here.files.keys()
    assert all(there.files[name] < here.files[name] for name in there.files)


def test_a_repository_that_is_not_there_has_no_tags(remote: LoopbackHub) -> None:
    assert hub_remote.tags("dataset", "org/none") == {}


def test_what_a_link_out_of_the_folder_leads_to_is_never_sent(remote: LoopbackHub, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "v1.0.0", 1, 2)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key.txt").write_text("open sesame")
    (folder / "key.txt").symlink_to(tmp_path / "secrets" / "key.txt")
    (folder / "more").symlink_to(tmp_path / "secrets")
    with pytest.raises(UserError) as caught:
        upload(folder)
    assert "key.txt is a symbolic link that leads out of it" in str(caught.value)
    assert "more is a symbolic link that leads out of it" in str(caught.value)
    (folder / "key.txt").unlink()
    (folder / "more").unlink()
    upload(folder)
    assert not any("key.txt" in name for name in uploaded(remote, "v1.0.0"))
