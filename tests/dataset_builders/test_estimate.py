"""What a dry run says: rounds drawn as far as the store goes, ranges behind them, and what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataset_builders import load_builder
from dataset_builders.building import build_dataset
from dataset_builders.estimate import Estimate, estimate
from toolkit.errors import UserError
from toolkit.prices import Price

PROBLEMS = {"source": "procedural", "tasks": ["chained_arithmetic", "ordering"], "n": 30, "n_test": 10}
PROCEDURAL = {"kind": "procedural", "error_rate": 0.4, "garble_rate": 0.3}
PRICED = {"kind": "openai", "model": "m", "base_url": "http://localhost:1/v1", "price": {"input": 1.0, "output": 10.0}}


def told(folder: Path, builder: str = "dual_cots", **config: Any) -> Estimate:
    settings = load_builder(builder).SETTINGS.model_validate({"problems": PROBLEMS, "teacher": PROCEDURAL} | config)
    (found,) = estimate(builder, settings, folder / "store.sqlite")
    return found


def build(folder: Path, builder: str = "dual_cots", **config: Any) -> int:
    """Build and return how many requests it took."""
    settings = load_builder(builder).SETTINGS.model_validate({"problems": PROBLEMS, "teacher": PROCEDURAL} | config)
    report = build_dataset(
        builder,
        settings,
        folder / "store.sqlite",
        hub_dir=folder / "hub",
        repo_id="numbers",
        revision="v1.0.0",
        command="",
        cache_dir=folder / "cache",
        show_progress=False,
    )
    return report.collected.asked


# Requests of every builder for n records, and the most they can become: the sums are those of their pages.
@pytest.mark.parametrize(
    ("builder", "config", "expected"),
    [
        ("teacher_cots", {"samples": 3}, (90, 90)),
        ("dual_cots", {"tries": 3}, (60, 120)),
        ("dual_cots", {"samples": 2, "tries": 1}, (120, 120)),
        ("counterfactual_rationales", {"tries": 2}, (60, 120)),
        ("socratic_steps", {"tries": 4}, (30, 120)),
    ],
)
def test_the_requests_of_every_builder(
    builder: str, config: dict[str, Any], expected: tuple[int, int], tmp_path: Path
) -> None:
    assert told(tmp_path, builder, **config).requests == expected


@pytest.mark.parametrize("builder", ["teacher_cots", "dual_cots", "counterfactual_rationales", "socratic_steps"])
def test_a_build_takes_no_more_than_the_range_allows_and_then_nothing(builder: str, tmp_path: Path) -> None:
    before = told(tmp_path, builder)
    asked = build(tmp_path, builder)
    after = told(tmp_path, builder)
    assert asked <= before.requests[1]
    assert after.requests == (0, 0)
    assert sum(each.kinds.total() for each in after.rounds) == asked
    assert after.text(whole=False).endswith("to ask        nothing")


def test_the_first_round_is_counted_against_the_store(tmp_path: Path) -> None:
    build(tmp_path)
    found = told(tmp_path, problems=PROBLEMS | {"n": 40})
    assert [(each.kinds["cot"], each.to_ask) for each in found.rounds] == [(40, 10)]
    assert found.later.requests == (40, 120)
    assert "round 1       40 cot requests, 30 of them answered in the store" in found.text(whole=False)


def test_the_prompts_shown_are_the_first_that_would_be_sent(tmp_path: Path) -> None:
    build(tmp_path, "teacher_cots")
    found = told(tmp_path, "teacher_cots", problems=PROBLEMS | {"n": 31})
    assert len(found.prompts) == 1
    prompt = found.prompts[0].messages[0][1]
    assert f"\n{prompt}\n---\n" in found.text(whole=False)


def estimated(**changes: Any) -> Estimate:
    from collections import Counter

    from dataset_builders.estimate import Later, Round
    from toolkit.teachers.protocol import Request

    values: dict[str, Any] = {
        "teacher": "m",
        "prompts": [Request("m", (("user", "a" * 1000 + "middle" + "z" * 1000),), template="cot@1")],
        "rounds": [Round(Counter(cot=10), 10, 4000)],
        "later": Later((10, 30), (400.0, 800.0), shown=2),
        "max_tokens": 100,
        "mean_tokens": 0.0,
        "price": Price(input=1.0, output=10.0, batch=0.5),
        "batched": False,
        "max_cost_usd": None,
    }
    return Estimate(**(values | changes))


def test_tokens_and_cost_by_hand() -> None:
    found = estimated()
    assert found.requests == (20, 40)
    # (4000 + 10 * 400) / 4; (4000 + 30 * 800) / 4 and two completions of 100 in each of 30
    assert found.prompt_tokens(100) == (2000, 13_000)
    assert found.cost(0, 100) == (pytest.approx(2000 / 1e6), pytest.approx((13_000 + 40 * 100 * 10) / 1e6))


def test_a_batch_is_estimated_at_its_prices() -> None:
    online, batch = estimated(), estimated(batched=True)
    assert batch.cost(0, 100) == pytest.approx([amount / 2 for amount in online.cost(0, 100)])
    assert "20 to 40 requests, in batches" in batch.text(whole=True)


def test_the_mean_of_the_store_narrows_the_cost() -> None:
    text = estimated(mean_tokens=50.0).text(whole=True)
    # 20 and 40 completions of 50 tokens at 10, prompts of 2000 and of (4000 + 24000) / 4 + 30 * 2 * 50 at 1
    assert "0.012 USD to 0.03 USD with 50 tokens a completion, the mean in the store" in text


def test_a_long_prompt_is_shortened_in_the_middle_and_says_so() -> None:
    short, whole = estimated().text(whole=False), estimated().text(whole=True)
    assert "[506 characters are left out on a terminal, not in a file]" in short
    assert "middle" not in short
    assert "a" * 1000 + "middle" + "z" * 1000 in whole


def test_an_unknown_price_is_said_and_no_amount(tmp_path: Path) -> None:
    text = told(tmp_path, teacher={"kind": "openai", "model": "m", "base_url": "http://localhost:1/v1"}).text(
        whole=True
    )
    assert "no price known for m; set dataset.config.teacher.price" in text
    assert "USD" not in text


def test_a_price_and_a_cap_are_told(tmp_path: Path) -> None:
    text = told(tmp_path, teacher=PRICED, collect={"max_cost_usd": 3}).text(whole=True)
    assert "price         1 USD per million tokens of prompts, 10 of completions" in text
    assert "cap           3.00 USD" in text


def test_a_cap_without_a_price_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="max_cost_usd"):
        told(
            tmp_path,
            teacher={"kind": "openai", "model": "m", "base_url": "http://localhost:1/v1"},
            collect={"max_cost_usd": 3},
        )


def test_teachers_that_nobody_pays_cost_nothing(tmp_path: Path) -> None:
    assert told(tmp_path).text(whole=True).endswith("cost          nothing")


def test_ready_made_chains_ask_nobody(tmp_path: Path) -> None:
    settings = load_builder("dual_cots").SETTINGS.model_validate({"pairs": {"path": "none.jsonl"}})
    assert estimate("dual_cots", settings, tmp_path / "store.sqlite") == []
