"""`distill publish` against the loopback Hub: what it checks, what it refuses, and what it leaves on both sides."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from tests.loopback_hub import LoopbackHub
from tests.tiny_recipe import EDIT, written
from toolkit import cli, pipeline, publishing
from toolkit.cli import open_recipe
from toolkit.errors import UserError

pytestmark = pytest.mark.slow

datasets.disable_progress_bars()
REPO = "datasets/org/tiny-cots"
TERMS = "dataset.config.source_terms=The provider allows this."
OTHERS = "dataset.config.teacher={kind: openai, model: m, base_url: 'http://127.0.0.1:9/v1'}"


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub(tmp_path / "remote") as server:
        server.be_the_hub(monkeypatch, server.token)
        yield server


def data_alone(folder: Path, **config: Any) -> Path:
    """Write a recipe that only builds."""
    dataset = copy.deepcopy(EDIT["dataset"]) | {"repo_id": "org/tiny-cots"}
    dataset["config"]["problems"] |= {"n": 12, "n_test": 4}
    dataset["config"] |= {"license": "apache-2.0"} | config
    return written(folder, {"recipe": EDIT["recipe"], "dataset": dataset})


def publish(file: Path, *overrides: str, dry_run: bool = False, yes: bool = True) -> None:
    publishing.publish(open_recipe(str(file), overrides), (), dry_run=dry_run, yes=yes)


def built(file: Path, *overrides: str) -> None:
    pipeline.build(open_recipe(str(file), overrides))


def local(folder: Path, revision: str) -> dict[str, bytes]:
    root = folder / "hub/datasets/org/tiny-cots" / revision
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def there(remote: LoopbackHub, revision: str) -> dict[str, bytes]:
    found = remote.files(REPO, revision)
    del found[".gitattributes"]
    return found


def sent(remote: LoopbackHub) -> list[str]:
    """Return the names of the requests that write."""
    return [one.name for one in remote.requests if one.name in ("create_repo", "preupload", "commit", "tag")]


def test_a_rehearsal_lists_every_file_and_sends_nothing(
    remote: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = data_alone(tmp_path)
    built(file)
    capsys.readouterr()

    publish(file, dry_run=True)

    said = capsys.readouterr().out
    for name, content in local(tmp_path, "v1.0.0").items():
        assert f"{len(content):>15,}  {name}\n" in said
    assert f"would publish {remote.url}/datasets/org/tiny-cots/tree/v1.0.0" in said
    assert sent(remote) == []


def test_published_again_there_is_nothing_to_do(
    remote: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = data_alone(tmp_path)
    built(file)
    publish(file)
    before = sent(remote)

    publish(file)

    assert "nothing to do, published already" in capsys.readouterr().out
    assert sent(remote) == before


def test_another_machine_gets_the_folder_that_is_published(remote: LoopbackHub, tmp_path: Path) -> None:
    file = data_alone(tmp_path)
    built(file)
    publish(file)
    remote.edit(REPO, {"README.md": there(remote, "main")["README.md"] + b"\nA note by somebody.\n"})
    publish(file, "dataset.revision=v1.1.0")
    shutil.rmtree(tmp_path / "hub/datasets")

    publish(file, "dataset.revision=v1.1.0")

    assert b"A note by somebody." in local(tmp_path, "v1.1.0")["README.md"]
    assert local(tmp_path, "v1.1.0") == there(remote, "v1.1.0")


# --- versions, where this machine knows nothing of what was published


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (None, r"on the Hub has a revision v1.0.0 already, and default/train.* next free minor version is v1.1.0"),
        (
            "dataset.revision=v1.0.1",
            r"v1.0.1 is a patch version after v1.0.0, but default/train.* set dataset.revision",
        ),
        ("dataset.revision=v0.9.0", r"has a revision v1.0.0 already, whose place v0.9.0 would take"),
    ],
)
def test_a_version_that_will_not_do_is_refused_before_anything_is_sent(
    remote: LoopbackHub, tmp_path: Path, override: str | None, says: str
) -> None:
    first = data_alone(tmp_path / "one")
    built(first)
    publish(first)
    before, overrides = sent(remote), [override] if override else []
    second = data_alone(tmp_path / "two")
    built(second, "dataset.config.problems.n=14", *overrides)

    with pytest.raises(UserError, match=says):
        publish(second, "dataset.config.problems.n=14", *overrides)

    assert sent(remote) == before
    assert remote.tags(REPO).keys() == {"v1.0.0"}


# --- what a person must have said


@pytest.mark.parametrize(
    ("overrides", "missing"),
    [
        (["dataset.config.license=null"], ["dataset.config.license"]),
        ([OTHERS], ["dataset.config.source_terms"]),
        ([OTHERS, "dataset.config.license=null"], ["dataset.config.license", "dataset.config.source_terms"]),
        ([OTHERS, TERMS], []),
        ([], []),
    ],
)
def test_licence_and_the_terms_of_a_foreign_teacher_must_be_stated(
    tmp_path: Path, overrides: list[str], missing: list[str]
) -> None:
    recipe = open_recipe(str(data_alone(tmp_path)), overrides)
    if not missing:
        publishing.check_terms(recipe, ["dataset"])
        return
    with pytest.raises(UserError, match="nothing was sent") as error:
        publishing.check_terms(recipe, ["dataset"])
    assert [line.split(":")[0].strip(" -") for line in str(error.value).splitlines()[1:]] == missing


def test_the_student_of_a_foreign_teacher_needs_its_terms_as_well(tmp_path: Path) -> None:
    recipe = open_recipe(str(written(tmp_path, EDIT)), [OTHERS, "publish.license=null"])
    with pytest.raises(UserError, match=r"(?s)source_terms: missing.*publish.license: missing"):
        publishing.check_terms(recipe, ["model"])


def test_terms_that_are_filled_in_later_reach_the_card_of_the_same_version(remote: LoopbackHub, tmp_path: Path) -> None:
    file = data_alone(tmp_path)
    built(file, "dataset.config.license=null")
    with pytest.raises(UserError, match="license: missing"):
        publish(file, "dataset.config.license=null")

    publish(file, TERMS)

    assert b"The provider allows this." in there(remote, "v1.0.0")["README.md"]
    assert b"license: apache-2.0" in there(remote, "v1.0.0")["README.md"]
    assert local(tmp_path, "v1.0.0") == there(remote, "v1.0.0")


def test_a_card_that_a_published_version_does_not_take_is_told(
    remote: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = data_alone(tmp_path)
    built(file)
    publish(file)
    before = there(remote, "v1.0.0")

    publish(file, "dataset.config.title=Another title")

    assert "note: its card was kept, and would be another one now" in capsys.readouterr().out
    assert local(tmp_path, "v1.0.0") == there(remote, "v1.0.0") == before


def test_a_secret_in_a_row_is_named_without_being_shown(
    remote: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = data_alone(tmp_path)
    built(file)
    secret = "Therefore, the answer"  # in every completion
    monkeypatch.setenv("SOME_API_KEY", secret)

    with pytest.raises(UserError, match="nothing was sent: there are secrets in") as error:
        publish(file)

    said = str(error.value)
    assert re.search(r"train-.*parquet, row 1, column right.provenance.completion: the value of SOME_API_KEY", said)
    assert "more" in said.splitlines()[-1]
    assert secret not in said
    assert sent(remote) == []


def test_nobody_is_asked_for_an_answer(remote: LoopbackHub, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tiny-cots.sqlite lacks the answers to 12 of 12 requests; `distill build`"):
        publish(data_alone(tmp_path), OTHERS, TERMS)
    assert sent(remote) == []


def test_an_answer_that_was_paid_for_under_one_name_is_there_under_another(remote: LoopbackHub, tmp_path: Path) -> None:
    file = data_alone(tmp_path)
    built(file, "dataset.repo_id=tiny-cots")
    publish(file)
    assert remote.tags(REPO).keys() == {"v1.0.0"}
    assert [path.name for path in (tmp_path / "hub/stores").glob("*.sqlite")] == ["tiny-cots.sqlite"]


# --- who, where, and whether


def test_without_a_terminal_it_must_be_told_not_to_ask(remote: LoopbackHub, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no terminal to ask on"):
        publish(data_alone(tmp_path), yes=False)
    assert remote.requests == []


@pytest.mark.parametrize(("answer", "tags"), [("y", {"v1.0.0"}), ("", set()), ("no", set())])
def test_it_is_sent_if_the_answer_is_yes(
    remote: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, tags: set[str]
) -> None:
    file = data_alone(tmp_path)
    built(file)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt: answer)

    publish(file, yes=False)

    assert {tag for repository in remote.repositories.values() for tag in repository.tags} == tags


@pytest.mark.parametrize(
    ("words", "repository"), [([], "datasets/maker/tiny-cots"), (["--to", "org"], "datasets/org/tiny-cots")]
)
def test_a_name_without_an_organisation_is_the_publishers_own(
    remote: LoopbackHub, tmp_path: Path, words: list[str], repository: str
) -> None:
    file = data_alone(tmp_path)
    built(file, "dataset.repo_id=tiny-cots")

    code = cli.main(["publish", str(file), "dataset.repo_id=tiny-cots", "--dataset", "--yes", "--private", *words])

    assert code == 0
    assert remote.tags(repository).keys() == {"v1.0.0"}
    assert remote.repository(repository).private


def test_a_collection_gets_what_was_published_once(remote: LoopbackHub, tmp_path: Path) -> None:
    file = data_alone(tmp_path)
    built(file)
    words = ["publish", str(file), "--yes", "--collection", "Tiny, release 1"]

    assert [cli.main(words), cli.main(words)] == [0, 0]

    (made,) = remote.collections.values()
    assert (made.owner, made.title) == ("org", "Tiny, release 1")
    assert [item["id"] for item in made.items] == ["org/tiny-cots"]


def test_a_mistake_ends_with_2_and_one_message(
    remote: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = data_alone(tmp_path)
    assert cli.main(["publish", str(file), "--student", "--yes"]) == 2
    assert capsys.readouterr().err == "publish: missing, so the recipe has no student to publish\n"


@pytest.mark.parametrize("option", ["--to", "--collection"])
def test_a_variable_of_the_shell_that_is_not_set_is_no_name_left_out(
    remote: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["publish", str(data_alone(tmp_path)), "--yes", option, ""])
    assert f"argument {option}: found '', allowed a name" in capsys.readouterr().err
    assert remote.requests == []


def test_a_rehearsal_notices_a_token_that_may_only_read(
    remote: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    remote.be_the_hub(monkeypatch, remote.read_token)
    assert cli.main(["publish", str(data_alone(tmp_path)), "--to", "org", "--dry-run"]) == 2
    assert "may only read" in capsys.readouterr().err
    assert not (tmp_path / "hub").exists()
