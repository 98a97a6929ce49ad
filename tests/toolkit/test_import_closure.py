"""Which modules another one can reach, and which edits of them change its digest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataset_builders import BUILDERS
from tests.tiny_recipe import ROOT, environment
from toolkit import import_closure
from toolkit.import_closure import closure_digest, modules_reached

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes modules of a package `own_code`, by their dotted names below it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def files(**modules: str) -> None:
        for name, source in {"__init__": "", **modules}.items():
            path = tmp_path / "own_code" / f"{name.replace('_in_', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            if name != "__init__" or not path.exists() or source:
                path.write_text(source)
        for cached in (import_closure._read, import_closure._source_of, import_closure.closure_digest):
            cached.cache_clear()

    return files


def reached(entry: str = "own_code.entry") -> list[str]:
    return [name.removeprefix("own_code.") for name in modules_reached(entry) if name.startswith("own_code.")]


@pytest.mark.parametrize(
    "source",
    [
        "import own_code.other",
        "import own_code.other as another",
        "from own_code import other",
        "from own_code.other import name",
        "from . import other",
        "from .other import name",
        "def use():\n    from own_code import other",
        "class C:\n    def use(self):\n        import own_code.other",
        "try:\n    import own_code.other\nexcept ImportError:\n    pass",
        "import importlib\nimportlib.import_module('own_code.other')",
        "import sys, subprocess\nsubprocess.run([sys.executable, '-m', 'own_code.other'])",
        "from pathlib import Path\nSCRIPT = Path(__file__).with_name('other.py')",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import own_code.other",
    ],
)
def test_a_module_is_reached_by_every_way_to_import_or_run_it(write: Write, source: str) -> None:
    write(entry=source, other="name = 1", unrelated="")
    assert reached() == ["entry", "other"]


@pytest.mark.parametrize(
    "source",
    [
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import own_code.other",
        "import typing\nif typing.TYPE_CHECKING:\n    from own_code.other import name",
        "'''See own_code.other.'''",
        "# import own_code.other",
        "import json.decoder, os.path",
    ],
)
def test_what_is_only_named_is_not_reached(write: Write, source: str) -> None:
    write(entry=source, other="name = 1")
    assert reached() == ["entry"]


def test_imports_are_followed_to_their_end_through_packages_and_circles(write: Write) -> None:
    write(
        entry="from own_code.deep.inner import leaf",
        deep_in___init__="from own_code import above",
        deep_in_inner_in___init__="",
        deep_in_inner_in_leaf="from ... import sideways\nfrom .. import brother",
        deep_in_brother="",
        deep_in_cousin="",
        above="import own_code.entry",
        sideways="",
    )
    expected = ["above", "deep", "deep.brother", "deep.inner", "deep.inner.leaf", "entry", "sideways"]
    assert reached() == expected


def test_a_module_elsewhere_reaches_those_of_this_project(write: Write) -> None:
    write(entry="from toolkit.alignment import key_steps")
    assert set(modules_reached("toolkit.alignment")) < set(modules_reached("own_code.entry"))


def test_an_entry_that_is_not_there_is_told() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"toolkit\.stage_s"):
        modules_reached("toolkit.stage_s")


CODE = '''"""What it is for."""
LIMIT = 1


def double(value: int) -> int:
    """Twice."""
    # a comment
    return value + value  # to the right
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("What it is for.", "What else it is for.", True),
        ("Twice.", "Two times.", True),
        ("# a comment\n    ", "", True),
        ("  # to the right", "", True),
        ("value + value", "(value\n        + value)", True),
        ("LIMIT = 1", "LIMIT = 1\n'''Of what.'''", True),
        ("LIMIT = 1", "LIMIT = 2", False),
        ("LIMIT = 1", "LIMIT = 1.0", False),
        ("LIMIT = 1", "LIMIT = '1'", False),
        ("LIMIT = 1", "LIMIT = None", False),
        ("value + value", "value - value", False),
        ("def double", "def twice", False),
        ("value: int)", "value: int = 3)", False),
        ("LIMIT = 1\n", "LIMIT = 1\nimport json\n", False),
    ],
)
def test_comments_docstrings_and_layout_do_not_count_and_all_else_does(
    write: Write, old: str, new: str, same: bool
) -> None:
    assert CODE.count(old) == 1
    write(entry="from own_code import other", other=CODE)
    before = closure_digest("own_code.entry")
    write(other=CODE.replace(old, new))
    assert (closure_digest("own_code.entry") == before) is same


def test_a_module_more_or_under_another_name_counts(write: Write) -> None:
    write(entry="import own_code.other", other="")
    digests = {closure_digest("own_code.entry")}
    write(entry="import own_code.other, own_code.missing")
    digests.add(closure_digest("own_code.entry"))
    write(missing="")
    digests.add(closure_digest("own_code.entry"))
    assert len(digests) == 3


# --- the project's own code

STUDENTS = ("toolkit.starting", "toolkit.stages")
ROWS = {
    name: (where.partition(":")[0], "dataset_builders.parts", "dataset_builders.recordings")
    for name, where in BUILDERS.items()
}
ENTRIES = {"students": STUDENTS, "scores": ("toolkit.scoring",), **ROWS}

# File, beginning of a line, what is put in its place; what has to notice, and what must not.
EDITS: dict[str, tuple[str, str, str, list[str], list[str]]] = {
    name: (file, old, new, notices, [entry for entry in ENTRIES if entry not in (*notices, *may_notice)])
    for name, file, old, new, notices, may_notice in [
        (
            "share of test questions",
            "toolkit/problem_sources.py",
            "TEST_SHARE = 0.2",
            "TEST_SHARE = 1",
            [*BUILDERS],
            [],
        ),
        ("encoding", "toolkit/encoding.py", "import", "X = 1\nimport", ["students"], ["scores", "key_tokens"]),
        ("the loss", "toolkit/objective.py", "import", "X = 1\nimport", ["students"], []),
        ("decoding", "toolkit/evaluation.py", "import", "X = 1\nimport", ["scores"], []),
        ("reading answers", "toolkit/answers.py", "import", "X = 1\nimport", ["scores", *BUILDERS], []),
        ("the jail", "toolkit/program_in_jail.py", "import", "X = 1\nimport", ["scores", "cot_pot_mix"], [*BUILDERS]),
        ("teachers' parts", "dataset_builders/parts.py", "import", "X = 1\nimport", [*BUILDERS], []),
        ("a student's card", "toolkit/student_card.py", "import", "X = 1\nimport", [], []),
        ("a dataset's card", "dataset_builders/card.py", "import", "X = 1\nimport", [], []),
        ("publishing", "toolkit/publishing.py", "import", "X = 1\nimport", [], []),
        ("money", "toolkit/spending.py", "import", "X = 1\nimport", [], []),
        ("a comment", "toolkit/encoding.py", "import", "# no effect\nimport", [], []),
    ]
}

SCRIPT = """
import json, sys
from pathlib import Path
from toolkit import import_closure
from toolkit.import_closure import closure_digest
entries, edits = json.loads(sys.argv[1])
known, read = {}, import_closure._read.__wrapped__
def reread(path, name):  # what has not been edited is not read again: eleven times everything takes its time
    key = name, path.read_bytes()
    return known[key] if key in known else known.setdefault(key, read(path, name))
import_closure._read = reread
def digests():
    closure_digest.cache_clear()
    return {name: closure_digest(*modules) for name, modules in entries.items()}
before, told = digests(), {}
for name, (file, old, new, *_) in edits.items():
    path = Path(file)
    source = path.read_text()
    lines = source.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith(old))
    path.write_text("\\n".join([*lines[:place], lines[place].replace(old, new, 1), *lines[place + 1 :]]))
    told[name] = [entry for entry, digest in digests().items() if digest != before[entry]]
    path.write_text(source)
assert digests() == before
print(json.dumps([told, sorted(name for name in sys.modules if name.partition(".")[0] in ("toolkit", "torch", "trl"))]))
"""


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What each edit of a copy of the project changes, and the modules that were imported to find it."""
    folder = tmp_path_factory.mktemp("copy")
    for package in ("toolkit", "dataset_builders"):
        for path in (ROOT / package).rglob("*.py"):
            copied = folder / path.relative_to(ROOT)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(path.read_bytes())
    words = [sys.executable, "-c", SCRIPT, json.dumps([ENTRIES, EDITS])]
    surroundings = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(words, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_changes_what_its_code_decides_and_nothing_else(edited: Any, edit: str) -> None:
    *_, notices, must_not = EDITS[edit]
    assert set(notices) <= set(edited[0][edit])
    assert not set(must_not) & set(edited[0][edit])


def test_closures_are_found_without_importing_what_they_hold(edited: Any) -> None:
    assert edited[1] == ["toolkit", "toolkit.import_closure"]


def test_every_module_that_runs_when_a_builder_is_imported_is_in_its_closure() -> None:
    """Python's own bookkeeping against ours: a process of its own for each, forked once `datasets` is there."""
    script = """
import json, os, sys, datasets
from importlib import import_module
for entry in sys.argv[1:]:
    if not (child := os.fork()):
        import_module(entry)
        ours = [name for name in sys.modules if name.partition(".")[0] in ("toolkit", "dataset_builders")]
        print(json.dumps([entry, ours]))
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
"""
    entries = [modules[0] for modules in ROWS.values()] + [
        "toolkit.scoring",
        "toolkit.starting",
        "dataset_builders.parts",
    ]
    words = [sys.executable, "-c", script, *entries]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = [json.loads(line) for line in done.stdout.splitlines()]
    assert [entry for entry, _ in loaded] == entries
    for entry, names in loaded:
        assert entry in names
        assert set(names) <= set(modules_reached(entry)), entry
