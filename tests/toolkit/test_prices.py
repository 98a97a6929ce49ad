"""Prices: from the recipe, from the table by host and exact name, or unknown."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from toolkit.errors import UserError
from toolkit.prices import FREE, Price, price_of
from toolkit.teachers.kinds import TeacherConfig


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("COT_DISTILLERY_PRICES", raising=False)


def price(model: str = "gpt-4.1-mini", kind: str = "openai", **config: Any) -> Price | None:
    return price_of(TypeAdapter(TeacherConfig).validate_python({"kind": kind, "model": model, **config}))


def numbers(found: Price | None) -> tuple[float, float | None, float, float]:
    assert found is not None
    return found.input, found.cached_input, found.output, found.batch


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-4.1-mini", (0.4, 0.1, 1.6, 0.5)),
        ("gpt-4.1-mini-2025-04-14", (0.4, 0.1, 1.6, 0.5)),
        ("gpt-4o-2024-08-06", (2.5, 1.25, 10.0, 0.5)),
        ("gpt-4o-2024-05-13", (5.0, None, 15.0, 0.5)),  # a version with a price of its own
    ],
)
def test_a_model_or_its_dated_version_has_the_price_of_the_table(model: str, expected: tuple[float, ...]) -> None:
    assert numbers(price(model)) == expected


@pytest.mark.parametrize("model", ["gpt-4.1-min", "gpt-4.1-mini-long", "gpt-4.1-mini-2025", "GPT-4.1-mini", "x"])
def test_a_name_that_is_not_in_the_table_has_no_price(model: str) -> None:
    assert price(model) is None


def test_every_price_of_the_table_says_when_and_where_it_was_read() -> None:
    from toolkit.prices import _read_table

    found = [entry for models in _read_table().values() for entry in models.values()]
    assert found
    assert all(isinstance(entry.date, datetime.date) and entry.source.startswith("https://") for entry in found)
    assert all(entry.output > entry.input > (entry.cached_input or 0) for entry in found)


@pytest.mark.parametrize(
    "address", ["http://localhost:8000/v1", "https://example.org/v1", "https://eu.api.openai.com/v1"]
)
def test_the_same_name_on_another_host_has_no_price(address: str) -> None:
    assert price(base_url=address) is None


def test_the_provider_by_its_own_address_has_its_price() -> None:
    assert numbers(price(base_url="https://api.openai.com/v1")) == (0.4, 0.1, 1.6, 0.5)


def test_the_address_of_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1")
    assert price() is None


def test_a_price_in_the_recipe_comes_first() -> None:
    own = {"input": 1, "output": 2}
    assert price(price=own) == Price(input=1, output=2)
    assert price(base_url="http://localhost:8000/v1", price=own) == Price(input=1, output=2)


@pytest.mark.parametrize(
    "config", [{"kind": "procedural"}, {"kind": "recorded", "store": "x"}, {"kind": "transformers"}]
)
def test_teachers_without_a_bill_are_free(config: dict[str, Any]) -> None:
    named = {"model": "m"} if config["kind"] == "transformers" else {}
    assert price_of(TypeAdapter(TeacherConfig).validate_python({**config, **named})) is FREE
    assert FREE.is_free


def test_a_table_of_ones_own_is_read_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "prices.yaml"
    table.write_text("openrouter.ai:\n  some/model: {input: 0.2, output: 1, date: 2026-01-02, source: their page}\n")
    monkeypatch.setenv("COT_DISTILLERY_PRICES", str(table))
    found = price("some/model", base_url="https://openrouter.ai/api/v1")
    assert str(found) == "0.2 USD per million tokens of prompts, 1 of completions (2026-01-02, their page)"
    assert price() is None


@pytest.mark.parametrize(
    "text", ["- a list", "host: 3", "host: {m: {input: -1, output: 2}}", "host: {m: 1", "host: {m: 3}"]
)
def test_a_table_that_is_none_is_named(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "prices.yaml"
    table.write_text(text)
    monkeypatch.setenv("COT_DISTILLERY_PRICES", str(table))
    with pytest.raises(UserError, match=r"prices\.yaml"):
        price()


def test_a_missing_table_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COT_DISTILLERY_PRICES", str(tmp_path / "none.yaml"))
    with pytest.raises(UserError, match=r"none\.yaml"):
        price()
