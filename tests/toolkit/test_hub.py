from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import pytest
from huggingface_hub import DatasetCard

from tests.prepared import prepared
from toolkit import hub
from toolkit.cards import document
from toolkit.errors import UserError

datasets.disable_progress_bars()
CARD = document({"license": "mit"}, "# Numbers\n\n<!-- generated:a -->\ntext\n<!-- /generated:a -->\n")


def rows(root: Path, *values: int, column: str = "n") -> dict[str, datasets.DatasetBuilder]:
    dataset = datasets.Dataset.from_dict({column: list(values), "nested": [{"a": [value]} for value in values]})
    return prepared({"default": {"train": dataset, "rejected": dataset}, "sft": {"train": dataset}}, root.parent)


def publish(root: Path, revision: str, *values: int, card: str = CARD, column: str = "n") -> hub.Published:
    return hub.publish_dataset(root, "org/numbers", revision, rows(root, *values, column=column), card)


def load(folder: Path, config: str, split: str, cache: Path) -> list[int]:
    return list(datasets.load_dataset(str(folder), config, split=split, cache_dir=str(cache))["n"])


def test_two_versions_stand_side_by_side_and_both_load(tmp_path: Path) -> None:
    old, new = publish(tmp_path, "v1.0.0", 1, 2), publish(tmp_path, "v1.1.0", 1, 2, 3)

    assert load(old.folder, "default", "train", tmp_path / "cache") == [1, 2]
    assert load(new.folder, "sft", "train", tmp_path / "cache") == [1, 2, 3]
    assert hub.revisions(tmp_path, "dataset", "org/numbers") == ["v1.0.0", "v1.1.0"]


def test_a_published_folder_loads_in_a_process_that_knows_nothing_of_this_project(tmp_path: Path) -> None:
    folder = publish(tmp_path / "hub", "v1.0.0", 1, 2).folder
    code = (
        "import sys, datasets; datasets.disable_progress_bars();"
        f"d = datasets.load_dataset({str(folder)!r}, 'default', cache_dir={str(tmp_path / 'cache')!r});"
        "print(d['train']['n'][:], len(d['rejected']), 'toolkit' in sys.modules, 'dataset_builders' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert done.stdout == "[1, 2] 2 False False\n"


def test_the_card_names_every_config_and_split(tmp_path: Path) -> None:
    data = DatasetCard.load(publish(tmp_path, "v1.0.0", 1).folder / "README.md").data.to_dict()

    assert {entry["config_name"]: [file["split"] for file in entry["data_files"]] for entry in data["configs"]} == {
        "default": ["train", "rejected"],
        "sft": ["train"],
    }
    assert {info["config_name"] for info in data["dataset_info"]} == {"default", "sft"}


def test_the_same_content_again_changes_nothing_and_says_so(tmp_path: Path) -> None:
    first = publish(tmp_path, "v1.0.0", 1)
    stamps = {name: (first.folder / name).stat().st_mtime_ns for name in first.files}

    again = publish(tmp_path, "v1.0.0", 1)

    assert (first.is_new, again.is_new) == (True, False)
    assert {name: (first.folder / name).stat().st_mtime_ns for name in again.files} == stamps


@pytest.mark.parametrize(
    ("change", "free"),
    [
        ({"column": "m"}, "major version is v2.0.0"),
        ({"values": (1, 2)}, "minor version is v1.2.0"),
        ({"card": CARD.replace("text", "other text")}, "patch version is v1.0.1"),
    ],
)
def test_other_content_under_a_revision_is_refused_with_the_next_free_one(
    tmp_path: Path, change: dict[str, object], free: str
) -> None:
    publish(tmp_path, "v1.0.0", 1)
    publish(tmp_path, "v1.1.0", 1)
    values = change.pop("values", (1,))

    with pytest.raises(UserError, match=free):
        publish(tmp_path, "v1.0.0", *values, **change)  # type: ignore[misc, arg-type]

    assert load(tmp_path / "datasets/org/numbers/v1.0.0", "default", "train", tmp_path / "cache") == [1]


def test_a_failure_while_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        hub.publish(tmp_path, "model", "student", "v1.0.0", write)

    assert hub.revisions(tmp_path, "model", "student") == []
    assert kept(tmp_path) == []


def kept(folder: Path) -> list[Path]:
    """Files below a folder but for the lock of publishers."""
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".publishing"]


def test_what_a_killed_publisher_has_left_goes_with_the_next_one(tmp_path: Path) -> None:
    code = (
        "import os, signal; from toolkit import hub\n"
        "def write(folder):\n    (folder / 'half').write_text('x'); os.kill(os.getpid(), signal.SIGKILL)\n"
        f"hub.publish({str(tmp_path)!r}, 'model', 'student', 'v1.0.0', write)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert [path.name for path in kept(tmp_path)] == ["half"]

    published = hub.publish(tmp_path, "model", "student", "v1.0.0", lambda folder: None)

    assert published.is_new
    assert kept(tmp_path) == []


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_disk_leaves_nothing_behind_and_is_told(tmp_path: Path, wrapped: bool) -> None:
    def write(folder: Path) -> None:
        (folder / "half").write_text("x")
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise shutil.Error([("from", "to", str(full))]) if wrapped else full

    with pytest.raises(UserError, match=r"v1.0.0: no space is left on its disk; nothing of the revision was kept"):
        hub.publish(tmp_path, "model", "student", "v1.0.0", write)
    assert kept(tmp_path) == []

    assert hub.publish(tmp_path, "model", "student", "v1.0.0", lambda folder: None).is_new


def test_a_version_that_rises_less_than_its_content_changed_is_refused(tmp_path: Path) -> None:
    publish(tmp_path, "v1.0.0", 1)

    with pytest.raises(UserError, match=r"v1.0.1 is a patch version after v1.0.0, but default.* the next major"):
        publish(tmp_path, "v1.0.1", 1, 2)
    with pytest.raises(UserError, match=r"v1.1.0 is a minor version after v1.0.0, but column n of .* is gone"):
        publish(tmp_path, "v1.1.0", 1, column="m")

    assert hub.revisions(tmp_path, "dataset", "org/numbers") == ["v1.0.0"]
    assert publish(tmp_path, "v1.0.1", 1, card=CARD.replace("text", "other text")).is_new


@pytest.mark.parametrize(("other_card", "told"), [("keep", "text"), ("take", "other text")])
def test_another_card_may_be_kept_out_or_taken(tmp_path: Path, other_card: hub.OtherCard, told: str) -> None:
    folder = publish(tmp_path, "v1.0.0", 1).folder
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nMy note.\n")
    (folder / "old.png").write_bytes(b"a picture")

    card = CARD.replace("text", "other text")
    hub.publish_dataset(tmp_path, "org/numbers", "v1.0.0", rows(tmp_path, 1), card, other_card=other_card)

    written = (folder / "README.md").read_text()
    assert f"-->\n{told}\n<!--" in written
    assert "My note." in written
    assert (folder / "old.png").exists() == (other_card == "keep")
    with pytest.raises(UserError, match="has other content"):
        hub.publish_dataset(tmp_path, "org/numbers", "v1.0.0", rows(tmp_path, 2), card, other_card=other_card)


def test_of_several_that_publish_the_same_at_once_one_writes(tmp_path: Path) -> None:
    together = threading.Barrier(4)

    writing = threading.Lock()

    def write(folder: Path) -> None:
        assert writing.acquire(blocking=False), "two at once"
        (folder / "weights").write_bytes(b"same")
        writing.release()

    def run() -> hub.Published:
        together.wait(timeout=60)
        return hub.publish(tmp_path, "model", "student", "v1.0.0", write)

    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(run) for _ in range(4)]

    assert sorted(run.result().is_new for run in runs) == [False, False, False, True]


def test_what_a_person_wrote_into_a_card_reaches_the_next_version(tmp_path: Path) -> None:
    folder = publish(tmp_path, "v1.0.0", 1).folder
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nMy note.\n")

    assert publish(tmp_path, "v1.0.0", 1).is_new is False
    assert publish(tmp_path, "v1.1.0", 2).folder.joinpath("README.md").read_text().endswith("\nMy note.\n")


def test_a_published_folder_can_be_read_by_others(tmp_path: Path) -> None:
    assert publish(tmp_path, "v1.0.0", 1).folder.stat().st_mode & 0o055 == 0o055


@pytest.mark.parametrize("repo_id", ["../etc", "a/b/c", "", "/abs", "a b"])
def test_a_name_that_is_no_repository_is_refused(tmp_path: Path, repo_id: str) -> None:
    with pytest.raises(UserError, match="repo_id"):
        hub.folder(tmp_path, "dataset", repo_id, "v1.0.0")


@pytest.mark.parametrize("revision", ["main", "v1", "../v1.0.0", ""])
def test_a_revision_that_is_no_version_is_refused(tmp_path: Path, revision: str) -> None:
    with pytest.raises(UserError, match="revision"):
        hub.folder(tmp_path, "dataset", "a", revision)


def test_a_revision_that_is_not_there_is_an_error_that_names_those_that_are(tmp_path: Path) -> None:
    publish(tmp_path, "v1.0.0", 1)
    with pytest.raises(UserError, match=r"has the revisions \['v1.0.0'\]"):
        hub.find(tmp_path, "dataset", "org/numbers", "v1.0.1")
    with pytest.raises(UserError, match="the repository is not there"):
        hub.find(tmp_path, "dataset", "org/other", "v1.0.1")


def test_versions_are_ordered_as_numbers(tmp_path: Path) -> None:
    for revision in ("v1.10.0", "v1.9.0", "v2.0.0"):
        (tmp_path / "models/student" / revision).mkdir(parents=True)

    assert hub.revisions(tmp_path, "model", "student") == ["v1.9.0", "v1.10.0", "v2.0.0"]


def test_the_same_data_rebuilt_by_another_command_is_the_same_revision(tmp_path: Path) -> None:
    told = "{}\n<!-- generated:rebuild -->\n{}\n<!-- /generated:rebuild -->\n"
    first = publish(tmp_path, "v1.0.0", 1, card=told.format(CARD, "distill build recipes/a.yaml, datasets 5.2.0"))

    again = publish(tmp_path, "v1.0.0", 1, card=told.format(CARD, "distill build a.yaml, datasets 5.3.0"))

    assert not again.is_new
    assert "5.2.0" in (first.folder / "README.md").read_text()


def test_a_damaged_file_of_a_revision_is_named(tmp_path: Path) -> None:
    published = publish(tmp_path, "v1.0.0", 1)
    next(published.folder.rglob("*.parquet")).write_bytes(b"junk")

    with pytest.raises(UserError, match=r"parquet: published, but no Parquet file any more"):
        publish(tmp_path, "v1.0.0", 1)


# --- links


def filled(folder: Path) -> Path:
    """Make a folder of plain files, with a secret beside it."""
    (folder / "rows" / "inner").mkdir(parents=True)
    (folder / "README.md").write_text("card")
    (folder / "rows" / "a.txt").write_text("a")
    (folder.parent / "outside").mkdir()
    (folder.parent / "outside" / "secret.txt").write_text("open sesame")
    return folder


LEADS = {
    "a file out of the folder": ("leak.txt", "../outside/secret.txt", "leads out of it (../outside/secret.txt)"),
    "an absolute path": ("leak.txt", "/etc/hostname", "leads out of it (/etc/hostname)"),
    "a folder out of the folder": ("leak", "../outside", "leads out of it (../outside)"),
    "the root of the disk": ("leak", "/", "leads out of it (/)"),
    "deep in a folder": ("rows/inner/leak.txt", "../../../outside/secret.txt", "leads out of it"),
    "under the card's name": ("README.md", "../outside/secret.txt", "leads out of it"),
    "out and in again": ("again", "../outside/../cots/rows", "leads to a folder (../outside/../cots/rows)"),
    "a neighbour whose name starts alike": ("leak.txt", "../cots-2/x.txt", "leads out of it (../cots-2/x.txt)"),
    "nothing outside": ("gone.txt", "../nothing", "leads out of it (../nothing)"),
    "nothing inside": ("gone.txt", "nothing", "leads nowhere (nothing)"),
    "itself": ("loop", "loop", "leads nowhere (loop)"),
    "a folder within": ("rows2", "rows", "leads to a folder (rows)"),
    "its own folder": ("rows/here", ".", "leads to a folder (.)"),
    "the folder itself": ("all", ".", "leads to a folder (.)"),
    "by way of another link": ("hop", "rows/inner/next", "leads out of it (rows/inner/next)"),
}


@pytest.mark.parametrize("case", LEADS)
def test_a_link_that_leaves_a_folder_or_would_be_left_out_is_refused_by_name(case: str, tmp_path: Path) -> None:
    folder = filled(tmp_path / "cots")
    name, target, told = LEADS[case]
    (tmp_path / "cots-2").mkdir()
    (tmp_path / "cots-2" / "x.txt").write_text("x")
    if case == "by way of another link":
        (folder / "rows" / "inner" / "next").symlink_to("../../../outside/secret.txt")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)
    with pytest.raises(UserError, match=f"  - {re.escape(name)} is a symbolic link that {re.escape(told)}"):
        hub.files(folder)


def test_a_link_to_a_file_within_the_folder_is_that_file(tmp_path: Path) -> None:
    folder = filled(tmp_path / "cots")
    (folder / "b.txt").symlink_to("rows/a.txt")
    assert {name: path.read_text() for name, path in hub.files(folder).items()} == {
        "README.md": "card",
        "b.txt": "a",
        "rows/a.txt": "a",
    }


def test_a_folder_may_itself_be_reached_through_a_link(tmp_path: Path) -> None:
    filled(tmp_path / "cots")
    (tmp_path / "link").symlink_to("cots")
    assert sorted(hub.files(tmp_path / "link")) == ["README.md", "rows/a.txt"]


def test_a_named_pipe_in_a_folder_is_refused_by_name(tmp_path: Path) -> None:
    folder = filled(tmp_path / "cots")
    os.mkfifo(folder / "rows" / "pipe")
    with pytest.raises(UserError, match="rows/pipe is neither a file nor a folder"):
        hub.files(folder)


def test_a_writer_that_leaves_a_link_out_of_its_folder_publishes_nothing(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("open sesame")

    def write(folder: Path) -> None:
        (folder / "rows.txt").write_text("a")
        (folder / "more.txt").symlink_to(tmp_path / "secret.txt")

    with pytest.raises(UserError, match=r"more\.txt is a symbolic link that leads out of it"):
        hub.publish(tmp_path / "hub", "dataset", "cots", "v1.0.0", write)
    assert hub.revisions(tmp_path / "hub", "dataset", "cots") == []


def test_a_picture_of_an_earlier_version_is_not_taken_through_a_link(tmp_path: Path) -> None:
    root, card = tmp_path / "hub", "# Cots\n\n![mine](mine.png)\n"
    (tmp_path / "secret.txt").write_text("open sesame")
    first = hub.publish(root, "dataset", "cots", "v1.0.0", lambda to: void((to / "README.md").write_text(card))).folder
    (first / "mine.png").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(UserError, match=r"mine\.png is a symbolic link"):
        hub.publish(root, "dataset", "cots", "v1.0.1", lambda to: void((to / "README.md").write_text("# Cots\n")))


def void(_: object) -> None:
    """Drop what an expression gives."""
