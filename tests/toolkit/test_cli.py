"""The `distill` command: what it prints, how it exits, and what it does not import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from toolkit import cli
from toolkit.compare import Order
from toolkit.errors import UserError

ROOT = Path(__file__).parents[2]
COMMANDS = ("validate", "explain", "build", "train", "evaluate", "compare", "store")
HEAVY = ("torch", "trl", "transformers")

GOOD = r"""
recipe: {name: edit, version: 1}
dataset:
  builder: dual_cots
  repo_id: dual-cots
  revision: v1.0.0
  config: {problems: {source: procedural, n: 20}, teacher: {kind: procedural}}
student: {from_config: {model_type: llama, hidden_size: 64}}
stages:
  - name: imitate
    views:
      cot: {prompt: "Q: {question}\nA:", target: [" {right.rationale}", "\nTherefore, the answer is {right.answer}."]}
decode: {view: cot}
evaluation: {sets: {in_domain: {split: test}}}
"""
BAD = (
    GOOD.replace("version: 1", "version: 0").replace("right.answer", "right.answr").replace("{view: cot}", "{view: c}")
)


def run(*words: str, loaded: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own; its last line of output names those of `loaded` it has imported."""
    code = f"""
import sys
from toolkit.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as exited:
    code = exited.code
print([name for name in {loaded!r} if name in sys.modules])
sys.exit(code)
"""
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD)
    return str(path)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Replace what the commands call, and return what they were called with."""
    made: list[tuple[Any, ...]] = []
    for module, functions in {"pipeline": ("build", "train", "evaluate"), "explain": ("explain",)}.items():
        stub = ModuleType(f"toolkit.{module}")
        for name in functions:
            setattr(stub, name, lambda *args, name=name: made.append((name, *args)))
        monkeypatch.setitem(sys.modules, f"toolkit.{module}", stub)
    return made


# --- help


@pytest.mark.parametrize(
    "words", [[], *([command] for command in COMMANDS)], ids=lambda words: " ".join(words) or "distill"
)
def test_help_imports_nothing_that_takes_time(words: list[str]) -> None:
    done = run(*words, "--help", loaded=("pydantic", "datasets", "omegaconf", "yaml", "numpy", *HEAVY))
    assert done.returncode == 0
    assert done.stdout.startswith("usage: distill")
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_names_every_command() -> None:
    assert all(f"\n    {command} " in cli.parser().format_help() for command in COMMANDS)


# --- validate


def test_validate_names_what_is_deprecated_and_where_and_takes_it(
    recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    override = "stages.0.training.gradient_checkpointing=true"
    assert cli.main(["validate", recipe, override]) == 0
    summary, note = capsys.readouterr().out.splitlines()
    assert summary.startswith(f"{recipe}: ")
    assert note == (
        f"note: override {override!r} stages.0.training.activation_checkpointing: gradient_checkpointing is deprecated "
        "by transformers; write activation_checkpointing"
    )
    assert cli.main(["validate", recipe, override.replace("gradient", "activation")]) == 0
    assert capsys.readouterr().out.splitlines() == [summary]


def test_a_good_recipe_is_one_line_and_loads_neither_torch_nor_trl(recipe: str) -> None:
    done = run("validate", recipe, loaded=HEAVY)
    assert (done.returncode, done.stderr) == (0, "")
    line, loaded = done.stdout.splitlines()
    assert line.startswith(
        f"{recipe}: edit version 1; dataset dual-cots@v1.0.0 by dual_cots; student llama from its configuration; "
        "stages imitate; scored on in_domain; digest "
    )
    assert loaded == "[]"


def test_every_fault_of_every_file_is_listed_without_a_traceback(recipe: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)
    done = run("validate", f"{tmp_path}/bad.yaml", recipe, f"{tmp_path}/recip.yaml")
    assert done.returncode == 2
    assert done.stdout.startswith(f"{recipe}: edit version 1; ")
    assert [line.replace(f"{tmp_path}/", "").partition(" found")[0] for line in done.stderr.splitlines()] == [
        "bad.yaml:2 recipe.version:",
        "bad.yaml:12 stages.0.views.cot.target.1:",
        "bad.yaml:13 decode.view:",
        "recip.yaml: there is no such file (did you mean 'recipe.yaml'?)",
    ]


def test_validate_takes_overrides(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", recipe, "stages.imitate.training.learning_rate=-1"]) == 2
    assert capsys.readouterr().err == (
        "override 'stages.imitate.training.learning_rate=-1' stages.0.training.learning_rate: "
        "found -1, allowed a number > 0\n"
    )


@pytest.mark.parametrize(
    "path", sorted((ROOT / "recipes").rglob("*.yaml")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_every_recipe_of_the_repository_is_valid(path: Path) -> None:
    assert cli.open_recipe(str(path)).recipe.version >= 1


# --- the other commands


@pytest.mark.parametrize(
    ("words", "called"),
    [
        (["build"], ("build", False, "local")),
        (["build", "--dry-run"], ("build", True, "local")),
        (["build", "--engine", "ray"], ("build", False, "ray")),
        (["train"], ("train",)),
        (["evaluate"], ("evaluate",)),
        (["explain"], ("explain", 3, None)),
        (["explain", "--n", "5", "--html", "page.html"], ("explain", 5, Path("page.html"))),
    ],
    ids=lambda words: " ".join(map(str, words)),
)
def test_a_command_passes_the_recipe_on(
    words: list[str], called: tuple[Any, ...], recipe: str, calls: list[tuple[Any, ...]]
) -> None:
    command, *options = words
    assert cli.main([command, recipe, "student.seed=3", *options]) == 0
    ((name, loaded, *others),) = calls
    assert (name, *others) == called
    assert loaded.student.seed == 3


@pytest.mark.parametrize("options", [[], ["--retry-failed"]])
def test_what_failed_for_good_is_asked_again_by_an_option(
    options: list[str], recipe: str, calls: list[tuple[Any, ...]]
) -> None:
    assert cli.main(["build", recipe, *options]) == 0
    ((_, loaded, *_),) = calls
    assert loaded.dataset.config.collect.retry_failed is bool(options)


def test_overrides_may_stand_behind_an_option(recipe: str, calls: list[tuple[Any, ...]]) -> None:
    assert cli.main(["explain", recipe, "--n", "2", "student.seed=3"]) == 0
    ((_, loaded, n, _),) = calls
    assert (loaded.student.seed, n) == (3, 2)


@pytest.mark.parametrize(
    "words",
    [
        ["a.yaml", "b.yaml", "k=1", "--seeds", "0", "2", "--baseline", "b", "--tokens", "9", "--output", "o"],
        ["a.yaml", "--seeds", "0", "2", "b.yaml", "k=1", "--baseline", "b", "--tokens", "9", "--output", "o"],
        ["a.yaml", "--baseline", "b", "--tokens", "9", "--output", "o", "b.yaml", "--seeds", "0", "2", "k=1"],
    ],
    ids=lambda words: " ".join(words),
)
def test_recipes_and_overrides_of_a_comparison_may_stand_behind_its_options(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[Any] = []
    monkeypatch.setattr("toolkit.compare.compare", lambda order, load: orders.append(order))
    assert cli.main(["compare", *words]) == 0
    assert orders == [Order(["a.yaml", "b.yaml"], ["k=1"], [0, 2], "b", 9, Path("o"))]


def test_a_faulty_recipe_reaches_no_command(tmp_path: Path, calls: list[tuple[Any, ...]]) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)
    assert cli.main(["train", f"{tmp_path}/bad.yaml"]) == 2
    assert calls == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "a.yaml", "b.yaml"], "found 2 recipes (a.yaml, b.yaml), allowed one"),
        (["train", "student.seed=1"], "found student.seed=1, but no recipe; name its file first"),
        (["train", "r.yaml", "a=" + "9" * 500], "r.yaml: there is no such file"),
        (["train", "."], ".: found a folder, allowed the file of a recipe"),
    ],
)
def test_words_that_are_no_recipe_are_a_mistake(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["trian"],
        ["train"],
        ["explain", "r.yaml", "--n", "0"],
        ["train", "r.yaml", "--fast"],
        ["compare", "r.yaml", "--seeds"],
        ["compare", "r.yaml", "--seeds", "0", "-1"],
        ["compare", "r.yaml", "--seeds", "1.5"],
        ["compare", "r.yaml", "--tokens", "0"],
    ],
)
def test_a_wrong_command_line_exits_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main(words)
    assert exited.value.code == 2


@pytest.mark.parametrize(
    ("raised", "code", "printed"),
    [
        (UserError("data.jsonl:3 answer: missing"), 2, "data.jsonl:3 answer: missing\n"),
        (KeyboardInterrupt(), 130, "interrupted; `distill train` with the same words goes on from here\n"),
    ],
    ids=["mistake", "interrupt"],
)
def test_what_stops_a_command_is_a_line_and_an_exit_code(
    raised: BaseException,
    code: int,
    printed: str,
    recipe: str,
    calls: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(recipe: Any) -> None:
        raise raised

    monkeypatch.setattr(sys.modules["toolkit.pipeline"], "train", stop)
    assert cli.main(["train", recipe]) == code
    assert capsys.readouterr().err == printed


def test_a_fault_of_ours_is_not_dressed_as_a_mistake_of_the_user(
    recipe: str, calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(recipe: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys.modules["toolkit.pipeline"], "train", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["train", recipe])
