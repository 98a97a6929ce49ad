"""What is looked for in a folder before it is published."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from toolkit.errors import UserError
from toolkit.publishing import check_secrets


def recipe(*teachers: SimpleNamespace) -> Any:
    """Return as much of a recipe as the search asks for; without teachers its dataset is one that is loaded."""
    return SimpleNamespace(dataset=SimpleNamespace(config=SimpleNamespace(teachers=teachers) if teachers else None))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    (tmp_path / "README.md").write_text("one\nopen sesame\n")
    return tmp_path


def test_the_token_that_one_is_logged_in_with_is_looked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_secrets(recipe(), folder)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "open sesame")
    found = r"README\.md, line 2: the token you are logged in to the Hub with$"
    with pytest.raises(UserError, match=rf"^nothing was sent: there are secrets in .*\n  - {found}"):
        check_secrets(recipe(), folder)


def test_the_keys_of_all_teachers_are_looked_for_whatever_they_are_called(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers = SimpleNamespace(kind="procedural"), SimpleNamespace(api_key_env="A"), SimpleNamespace(api_key_env="B")
    monkeypatch.setenv("B", "open sesame")
    check_secrets(recipe(*teachers[:2]), folder)
    with pytest.raises(UserError, match=r"README\.md, line 2: the value of B$"):
        check_secrets(recipe(*teachers), folder)


def test_of_many_secrets_the_first_ones_are_told_and_how_many_more_there_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "README.md").write_text("open sesame\n" * 100)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "open sesame")
    with pytest.raises(UserError) as refused:
        check_secrets(recipe(), folder)
    lines = str(refused.value).splitlines()[1:]
    shown = sum(line.startswith("  - ") for line in lines)
    assert 0 < shown < 100
    assert lines[shown:] == [f"  and {100 - shown} more"]
