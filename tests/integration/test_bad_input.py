"""What a user may do wrong on the command line: told in words, with exit code 2, no traceback, and nothing lost."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tiny_recipe import EDIT, ROOT
from toolkit.cli import main
from toolkit.testing.fault_server import FaultServer
from toolkit.testing.replies import Ask, Reply, completion, fault

pytestmark = pytest.mark.slow

KEY = "sk-never-to-be-seen"

Told = Callable[..., str]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Run a command that must end with exit code 2, and return what it says."""

    def run(*words: str) -> str:
        code = main(words)
        shown = "".join(capsys.readouterr())
        assert code == 2, shown
        assert "Traceback" not in shown
        assert KEY not in shown
        return shown

    return run


def write(path: str = "recipe.yaml", **dataset: Any) -> str:
    """Write the tiny recipe with other settings of its dataset's builder."""
    recipe = copy.deepcopy(EDIT)
    recipe["dataset"]["config"].update(dataset)
    Path(path).write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def from_rows(*rows: Any) -> dict[str, Any]:
    """Write rows to a file and return the source of problems that reads it."""
    Path("rows.jsonl").write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return {"source": "jsonl", "path": "rows.jsonl", "columns": {"question": "q", "answer": "a"}}


def asked_of(server: FaultServer) -> dict[str, Any]:
    """Return settings of a builder that asks a server on the loopback interface."""
    return {
        "problems": from_rows(*({"q": f"{n} + {n}?", "a": str(2 * n)} for n in range(1, 13))),
        "teacher": {"kind": "openai", "model": "m", "base_url": server.url},
        "collect": {"backoff": 0.0, "max_attempts": 2},
    }


# --- recipes


def test_every_fault_of_a_recipe_is_told_at_once_with_its_line(told: Told) -> None:
    text = Path(write()).read_text()
    for right, wrong in {
        "version: 1": "version: one",
        "builder: dual_cots": "builder: dual_cotz",
        "revision: v1.0.0": "revision: latest",
        "vocab_size: ": "vocab_size: -",
        "num_hidden_layers: ": "num_hiden_layers: ",
        "learning_rate: ": "lerning_rate: ",
        "save_steps: ": "save_steps: -",
        "coefficient: -0.025": "coefficient: 0",
        "view: cot": "view: cto",
        "by: example": "by: exampel",
    }.items():
        assert right in text, right
        text = text.replace(right, wrong, 1)
    Path("faulty.yaml").write_text(text)

    lines = told("train", "faulty.yaml").splitlines()

    assert len(lines) >= 10
    assert all(re.match(r"faulty\.yaml:\d+ [\w.]+: ", line) for line in lines), lines
    for meant in ("dual_cots", "num_hidden_layers", "learning_rate", "cot", "example"):
        assert any(f"did you mean {meant!r}?" in line for line in lines), meant


def test_the_key_steps_of_one_view_alone_are_refused(told: Told) -> None:
    shown = told("validate", write(), "stages.key_steps.views.wrong.token_weights=uniform")
    assert "allowed on two views of a stage or on none" in shown


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("student.from_config.hidden_size=33", "not a multiple of the number of attention heads"),
        ("student.from_config.num_attention_heads=0", "student.from_config"),
        ("student.from_config.hidden_size=-4", "student.from_config"),
    ],
)
def test_a_student_that_cannot_be_made_is_told_in_words(told: Told, override: str, named: str) -> None:
    assert named in told("train", write(), override)


# --- problems


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([], "rows.jsonl: the file is empty"),
        ([{"q": "1 + 1?", "a": "2"}, {"q": "2 + 2?"}], "rows.jsonl:2: no column 'a'"),
        ([{"q": "1 + 1?", "a": None}], "rows.jsonl:1: no gold answer"),
        (['{"q": "1 + 1?", "a": 1e999}'], "rows.jsonl:1: no gold answer"),
        (['{"q": "1 + 1?", "a": ' + "9" * 5000 + "}"], "rows.jsonl:1: is not JSON"),
        (['{"q": "1 + 1?", "a"'], "rows.jsonl:1: is not JSON"),
        ([{"q": "nul \0", "a": "1"}], "rows.jsonl:1: column 'q' holds a NUL byte"),
        ([{"q": "half \ud800", "a": "1"}], "rows.jsonl:1: column 'q' is not valid Unicode"),
        ([{"q": "1 + 1?", "a": "2"}], "no train problems"),
        ([{"q": "1 + 1?", "a": "2"}] * 9, "no train problems"),
    ],
    ids=["empty", "no gold", "null", "infinite", "huge", "cut", "NUL", "surrogate", "one row", "one question"],
)
def test_bad_rows_are_told_with_file_and_line(told: Told, rows: list[Any], named: str) -> None:
    assert named in told("build", write(problems=from_rows(*rows)))


def test_a_missing_file_is_told_whole_with_the_nearest(told: Told) -> None:
    source = from_rows({"q": "1 + 1?", "a": "2"})
    shown = told("build", write(problems={**source, "path": "row.jsonl"}))
    assert "'row.jsonl'" in shown
    assert "did you mean 'rows.jsonl'?" in shown


# --- teachers


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("asdf qwer", "no answer clause"),
        ("", "empty completion"),
        ("<think>Therefore, the answer is 2.", "empty completion"),
        ("x " * 500_000 + "Therefore, the answer is 2.", "longer than 20000 characters"),
        ("\0Therefore, the answer is 2.", "NUL"),
    ],
    ids=["garbage", "empty", "thinking", "1 MB", "NUL"],
)
def test_a_teacher_that_says_nothing_of_use_leaves_its_words_in_the_store(told: Told, text: str, reason: str) -> None:
    with FaultServer(lambda _: completion(text)) as server:
        recipe = write(**asked_of(server))
        assert reason in told("build", recipe)
        asks = len(server.asks)
        assert reason in told("build", recipe)
        assert len(server.asks) == asks


@pytest.mark.parametrize(
    ("reply", "named"),
    [
        (fault(401, f"Incorrect API key provided: {KEY}"), "key refused"),
        (fault(404, f"no model m for {KEY}"), "unknown model"),
        (fault(500, f"oops {KEY}"), "max_failure_rate"),
    ],
    ids=["wrong key", "no such model", "broken"],
)
def test_a_server_that_refuses_is_told_without_the_key(told: Told, reply: Reply, named: str) -> None:
    with FaultServer(lambda _: reply) as server:
        assert named in told("build", write(**asked_of(server)))
    files = [path for path in Path().rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    "teacher",
    [{"base_url": f"http://user:{KEY}@host/v1"}, {"api_key_env": KEY}, {"api_key": KEY}],
    ids=["in the address", "in place of its variable", "as a setting"],
)
def test_a_key_that_was_written_into_a_recipe_is_not_repeated(told: Told, teacher: dict[str, str]) -> None:
    assert "recipe.yaml:" in told("build", write(teacher={"kind": "openai", "model": "m", **teacher}))


def test_what_a_teacher_writes_is_never_read_as_a_template_or_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    words = "<script>alert(1)</script> {{ 7 * 7 }} {question} {% for %} ${oc.env:OPENAI_API_KEY} \ud800"

    def script(ask: Ask) -> Reply:
        query = ask.prompt.rsplit("Q: ", 1)[1]
        number = int(query.split(" ")[0])
        is_right = "H: The correct answer" in query
        tail = "\n\nQ: 3 + 3?\nA: Therefore, the answer is 6."  # runs on with a question of its own
        return completion(f"{words} {is_right}.\nTherefore, the answer is {2 * number + (not is_right)}.{tail}")

    with FaultServer(script) as server:
        assert main(["build", write(**asked_of(server))]) == 0
        assert main(["explain", "recipe.yaml", "--n", "1", "--html", "page.html"]) == 0
    shown = "".join(capsys.readouterr())
    page = Path("page.html").read_text()
    assert "{{ 7 * 7 }} {question}" in shown
    assert "3 + 3?" not in shown
    assert KEY not in shown + page
    assert "<script>alert" not in page


# --- files


def test_a_place_that_cannot_be_written_is_told_and_loses_nothing(told: Told) -> None:
    Path("occupied").write_text("mine")
    assert "occupied" in told("build", write(), "hub_dir=occupied")
    assert Path("occupied").read_text() == "mine"


def test_a_store_that_is_none_is_told_and_left_alone(told: Told) -> None:
    store = Path("hub/stores/tiny-cots.sqlite")
    store.parent.mkdir(parents=True)
    store.write_bytes(b"no database" * 500)
    assert "tiny-cots.sqlite: damaged: file is not a database" in told("build", write())
    assert store.read_bytes() == b"no database" * 500


def test_a_revision_built_from_other_settings_is_refused_and_stays(told: Told) -> None:
    assert main(["build", write()]) == 0
    before = {path: path.read_bytes() for path in Path("hub/datasets").rglob("*") if path.is_file()}
    assert "set dataset.revision=v1.1.0" in told("build", "recipe.yaml", "dataset.config.problems.n=70")
    assert before == {path: path.read_bytes() for path in Path("hub/datasets").rglob("*") if path.is_file()}


def test_a_recipe_in_another_folder_with_blanks_a_mark_and_windows_line_ends_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "my dír = ✓"
    folder.mkdir()
    text = Path(write()).read_bytes().replace(b"\n", b"\r\n")
    (folder / "a=b.yaml").write_bytes(b"\xef\xbb\xbf" + text)
    assert main(["validate", str(folder / "a=b.yaml")]) == 0


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m toolkit.cli validate {write()} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.stdout.strip() in ("0", "141")
    assert not done.stderr
