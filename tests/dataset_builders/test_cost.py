"""What a build says that it cost, and that a cap ends it before more is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from dataset_builders import load_builder
from dataset_builders.asking import written_tokens
from dataset_builders.building import BuildReport, build_dataset, settings_digest
from toolkit.cli import open_recipe
from toolkit.collect import CostCapReached
from toolkit.errors import UserError
from toolkit.prices import Price
from toolkit.spending import bound
from toolkit.store import Store
from toolkit.store_rows import request_of
from toolkit.teachers.protocol import Completion, Request
from toolkit.testing.fault_server import FaultServer
from toolkit.testing.replies import TRUNCATED, Ask, Reply, completion, fault

PROBLEMS = {"source": "procedural", "tasks": ["chained_arithmetic"], "n": 10, "n_test": 2}
PRICE = {"input": 1000.0, "output": 10_000.0, "date": "2026-01-02", "source": "a page"}
ANSWER = 7 * 0.001 + 3 * 0.01  # the loopback server bills 7 tokens of a prompt and 3 of a completion


def chain(ask: Ask) -> Reply:
    return completion(f"Step {ask.number}. Therefore, the answer is 5.")


def build(folder: Path, server: FaultServer, price: dict[str, Any] | None, **collect: Any) -> BuildReport:
    teacher = {"kind": "openai", "model": "m", "base_url": server.url, "price": price}
    config = {
        "problems": PROBLEMS,
        "teacher": teacher,
        "keep": "all",
        "sampling": {"max_tokens": 3},
        "collect": collect,
    }
    settings = load_builder("teacher_cots").SETTINGS.model_validate(config)
    return build_dataset(
        "teacher_cots",
        settings,
        folder / "store.sqlite",
        hub_dir=folder / "hub",
        repo_id="numbers",
        revision="v1.0.0",
        command="",
        cache_dir=folder / "cache",
        show_progress=False,
    )


def card(report: BuildReport) -> str:
    return (report.published.folder / "README.md").read_text()


def test_the_card_and_the_summary_say_what_the_rows_cost(tmp_path: Path) -> None:
    with FaultServer(chain) as server:
        report = build(tmp_path, server, PRICE)
    cost = "0.37 USD at 1000 USD per million tokens of prompts, 10000 of completions (2026-01-02, a page)"
    assert f"What they cost: {cost}." in card(report)
    assert f"cost: {cost}\nthis run: 0.37 USD, 0.00 USD of them lost" in report.summary()
    assert report.ledger.spent == pytest.approx(10 * ANSWER)


def test_a_second_build_spends_nothing_and_says_the_same(tmp_path: Path) -> None:
    with FaultServer(chain) as server:
        first = build(tmp_path, server, PRICE)
        second = build(tmp_path, server, PRICE)
    assert not second.published.is_new
    assert second.cost == first.cost
    assert second.ledger.spent == second.ledger.remembered == pytest.approx(10 * ANSWER)
    assert "this run" not in second.summary()


def test_a_try_that_may_have_been_billed_is_lost_and_no_part_of_the_rows_cost(tmp_path: Path) -> None:
    def script(ask: Ask) -> Reply:
        return TRUNCATED if ask.number == 1 else fault(503) if ask.number == 2 else chain(ask)

    with FaultServer(script) as server:
        report = build(tmp_path, server, PRICE, backoff=0, concurrency=1)
    assert report.ledger.lost > 0
    assert report.ledger.spent == pytest.approx(10 * ANSWER + report.ledger.lost)
    assert report.cost.startswith("0.37 USD at")


def test_what_was_lost_counts_below_the_cap_of_later_runs(tmp_path: Path) -> None:
    with FaultServer(lambda ask: TRUNCATED if ask.number <= 10 else chain(ask)) as server:
        with pytest.raises(UserError, match="10 of 10 requests"):
            build(tmp_path, server, PRICE, max_attempts=1)
        lost = sum(bound(request, Price(**PRICE)) for request in failed(tmp_path / "store.sqlite"))
        with pytest.raises(CostCapReached):
            build(tmp_path, server, PRICE, max_cost_usd=lost)
        assert server.requests_seen == 10
        report = build(tmp_path, server, PRICE, max_cost_usd=2 * lost)
    assert report.ledger.remembered == pytest.approx(lost)
    assert report.ledger.spent == pytest.approx(lost + 10 * ANSWER)
    assert report.cost.startswith("0.37 USD at")


def failed(path: Path) -> list[Request]:
    with Store(path, read_only=True) as store:
        return [request_of(packed) for (packed,) in store.select("SELECT request FROM failures")]


def test_an_unknown_price_is_said_to_be_unknown(tmp_path: Path) -> None:
    with FaultServer(chain) as server:
        report = build(tmp_path, server, None)
    assert "What they cost: not known, as no price is stated for this teacher." in card(report)
    assert "cost: not known" in report.summary()


def test_completions_without_token_counts_are_named(tmp_path: Path) -> None:
    def script(ask: Ask) -> Reply:
        return completion(f"Step {ask.number}. Therefore, the answer is 5.", usage=(7, 3) if ask.number > 4 else None)

    with FaultServer(script) as server:
        report = build(tmp_path, server, PRICE)
    assert report.cost.startswith("0.22 USD at")
    assert report.cost.endswith(", without 4 completions whose tokens were not counted")


def rows(report: BuildReport) -> list[dict[str, Any]]:
    """Return the provenance of every chain."""
    files = report.published.folder.glob("default/*.parquet")
    return [row["chain"]["provenance"] for file in files for row in parquet.read_table(file).to_pylist()]


def test_token_counts_that_nobody_told_are_null_and_unknown(tmp_path: Path) -> None:
    def script(ask: Ask) -> Reply:
        return completion(f"Step {ask.number}. Therefore, the answer is 5.", usage=None)

    with FaultServer(script) as server:
        report = build(tmp_path, server, PRICE)
    assert report.cost == "unknown, as the teacher did not count tokens"
    assert "completions were read; how many tokens they have is unknown" in card(report)
    assert {(one["prompt_tokens"], one["completion_tokens"]) for one in rows(report)} == {(None, None)}


def test_token_counts_that_some_answers_lack_are_told_apart(tmp_path: Path) -> None:
    def script(ask: Ask) -> Reply:
        return completion(f"Step {ask.number}. Therefore, the answer is 5.", usage=(7, 3) if ask.number > 4 else None)

    with FaultServer(script) as server:
        report = build(tmp_path, server, PRICE)
    assert "of completions as the teacher counted them, and 4 completions whose tokens are unknown." in card(report)
    assert {(one["prompt_tokens"], one["completion_tokens"]) for one in rows(report)} == {(None, None), (7, 3)}


@pytest.mark.parametrize(
    ("text", "prompt", "written", "told"),
    [("a", 7, 3, 3), ("a", 0, 0, None), ("a", 7, 0, None), ("", 7, 0, 0), ("", 0, 0, None), ("a", 0, 3, 3)],
)
def test_a_completion_of_no_tokens_is_one_without_text(text: str, prompt: int, written: int, told: int | None) -> None:
    answer = Completion(text=text, finish_reason="stop", model="m", prompt_tokens=prompt, completion_tokens=written)
    assert written_tokens(answer) == told


def test_a_cap_ends_the_build_before_it_is_exceeded_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    with FaultServer(chain) as server:
        with pytest.raises(CostCapReached, match="max_cost_usd"):
            build(tmp_path, server, PRICE, max_cost_usd=0.6)
        before = len(server.asks)
        report = build(tmp_path, server, PRICE, max_cost_usd=5)
        assert 0 < before < 10
        assert before * ANSWER <= 0.6
        assert len(server.asks) == 10
    assert report.ledger.remembered == pytest.approx(before * ANSWER)


def test_a_cap_without_a_price_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with FaultServer(chain) as server:
        with pytest.raises(UserError, match=r"max_cost_usd.*teacher\.price"):
            build(tmp_path, server, None, max_cost_usd=1)
        assert server.asks == []
        assert server.models_seen == 0


def test_a_price_is_no_part_of_what_a_build_starts_from() -> None:
    def digest(price: dict[str, Any] | None, cap: float | None) -> str:
        teacher = {"kind": "openai", "model": "m", "price": price}
        config = {"problems": PROBLEMS, "teacher": teacher, "collect": {"max_cost_usd": cap}}
        return settings_digest("teacher_cots", load_builder("teacher_cots").SETTINGS.model_validate(config))

    assert digest(None, None) == digest(PRICE, 3.0)


@pytest.mark.parametrize("money", ["teacher.price={input: 1, output: 2}", "collect.max_cost_usd=3"])
def test_money_is_no_part_of_a_recipes_digest(money: str) -> None:
    recipe = str(Path(__file__).parents[2] / "recipes" / "paper" / "std_cot.yaml")
    assert open_recipe(recipe, [f"dataset.config.{money}"]).digest == open_recipe(recipe).digest
