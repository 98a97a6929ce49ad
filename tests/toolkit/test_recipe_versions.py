"""A recipe's version rises when its results may move."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.recipe_versions import FILE, ROOT, identity, recipes

KNOWN = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", recipes(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_recipe_does_changes_with_its_version_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COT_DATA", raising=False)
    known, now = KNOWN.get(str(path.relative_to(ROOT))), identity(path)
    assert known is not None, "a new recipe: run `python -m tests.recipe_versions`"
    if now["digest"] != known["digest"]:
        assert now["version"] > known["version"], "its results may move: raise recipe.version"
    assert now == known, "run `python -m tests.recipe_versions`"
