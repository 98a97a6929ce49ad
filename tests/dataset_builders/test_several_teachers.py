"""A build with several teachers: what each of them wrote is what it would have written alone, under one cap."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from pydantic import ValidationError

from dataset_builders import collecting, load_builder
from dataset_builders.building import BuildReport, build_dataset, settings_digest
from dataset_builders.estimate import estimate, told
from dataset_builders.parts import NoAnswers
from toolkit.cli import open_recipe
from toolkit.collect import Collection, CostCapReached, TeacherUnavailable
from toolkit.errors import UserError
from toolkit.store import Store, StoreDamaged
from toolkit.teachers.protocol import Request
from toolkit.testing.fault_server import FaultServer
from toolkit.testing.replies import RESET, Ask, Reply, completion, fault

pytestmark = pytest.mark.slow  # whole pipelines

PROBLEMS = {"source": "procedural", "tasks": ["chained_arithmetic"], "n": 10, "n_test": 2}
CAREFUL = {"kind": "procedural", "error_rate": 0.1}
CARELESS = {"kind": "procedural", "seed": 1, "error_rate": 0.7}
ANSWER = 3 * 0.01  # what the loopback server bills


SHORT = {"sampling": {"max_tokens": 3}}  # so that the cap sets no more aside than an answer costs


def chain(ask: Ask) -> Reply:
    model = ask.body["model"]
    return completion(f"{model} says {ask.prompt[-60:]!r}. Therefore, the answer is 5.", model=model)


def served(server: FaultServer, model: str, dearer: int = 1, **config: Any) -> dict[str, Any]:
    """Return a teacher on a server, so many times as dear as `ANSWER` says."""
    price = {"input": 0.0, "output": 10_000.0 * dearer}
    return {"kind": "openai", "model": model, "base_url": server.url, "price": price} | config


def settings_of(teacher: Any, builder: str = "teacher_cots", **config: Any) -> Any:
    given = {"problems": PROBLEMS, "teacher": teacher} | config
    return load_builder(builder).SETTINGS.model_validate(given)


def build(
    folder: Path, teacher: Any, builder: str = "teacher_cots", name: str = "numbers", **config: Any
) -> BuildReport:
    return build_dataset(
        builder,
        settings_of(teacher, builder, **({"keep": "all"} if builder == "teacher_cots" else {}), **config),
        folder / "store.sqlite",
        hub_dir=folder / "hub",
        repo_id=name,
        revision="v1.0.0",
        command="",
        cache_dir=folder / "cache",
        show_progress=False,
    )


def rows(report: BuildReport, split: str = "train") -> list[dict[str, Any]]:
    folder = str(report.published.folder)
    if not list(report.published.folder.glob(f"default/{split}-*")):
        return []
    return list(datasets.load_dataset(folder, "default", split=split, cache_dir=f"{folder}-read"))


def card(report: BuildReport) -> str:
    return (report.published.folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("builder", "config"),
    [
        ("teacher_cots", {"samples": 2}),
        ("teacher_cots", {"demonstrations": 2, "problems": PROBLEMS | {"n": 20}}),
        ("dual_cots", {}),
        ("counterfactual_rationales", {}),
        ("socratic_steps", {}),
    ],
)
def test_the_records_are_those_of_every_teacher_alone(builder: str, config: dict[str, Any], tmp_path: Path) -> None:
    both = build(tmp_path / "both", [CAREFUL, CARELESS], builder, **config)
    alone = [build(tmp_path / f"{n}", each, builder, **config) for n, each in enumerate((CAREFUL, CARELESS))]
    assert both.collected.asked == sum(report.collected.asked for report in alone)
    for split in ("train", "rejected"):
        found = rows(both, split)
        expected = [row for report in alone for row in rows(report, split)]
        assert [row["id"].rpartition("@procedural-v1@")[0] for row in found] == [row["id"] for row in expected]
        assert [row | {"id": ""} for row in found] == [row | {"id": ""} for row in expected]
    ids = [row["id"] for split in ("train", "rejected") for row in rows(both, split)]
    assert len(set(ids)) == len(ids)
    assert len({name.rpartition("@")[2] for name in ids}) == 2
    counted = [(step.name, step.reasons) for report in alone for step in report.outcome.steps]
    assert [(step.name, step.reasons) for step in both.outcome.steps] == counted


def test_a_list_of_one_is_that_teacher(tmp_path: Path) -> None:
    one, listed = build(tmp_path / "a", CAREFUL), build(tmp_path / "b", [CAREFUL])
    assert rows(one) == rows(listed)


def test_a_record_names_its_teacher_and_another_build_asks_nobody(tmp_path: Path) -> None:
    with FaultServer(chain) as server:
        teachers = [served(server, "one"), served(server, "two")]
        first = build(tmp_path, teachers)
        assert Counter(ask.body["model"] for ask in server.asks) == {"one": 10, "two": 10}
        again = build(tmp_path, teachers)
        assert server.requests_seen == 20
        third = build(tmp_path, [*teachers, served(server, "three")], name="more")
        assert server.requests_seen == 30
    assert (again.collected.asked, again.published.is_new) == (0, False)
    assert again.ledger.spent == first.ledger.spent == pytest.approx(20 * ANSWER)
    assert len(rows(third)) == 30
    for row in rows(third):
        model = row["id"].rpartition("@")[2]
        assert row["chain"]["provenance"]["model"] == model
        assert row["chain"]["rationale"].startswith(f"{model} says")
    assert rows(third)[:20] == rows(first), "a further teacher changes nothing of the others"


def test_the_card_has_the_yields_and_the_cost_of_every_teacher(tmp_path: Path) -> None:
    with FaultServer(chain) as server:
        report = build(tmp_path, [served(server, "one"), CAREFUL, served(server, "two", dearer=10)])
    text = card(report)
    assert "\n| cot of one | a chain of thought for every question | 10 | 10 (10 wrong) |" in text
    assert "\n| cot of two | a chain of thought for every question | 10 | 10 (10 wrong) |" in text
    assert "\n| openai | one | cot |" in text
    assert "\n| openai | two | cot |" in text
    assert "**Some of the chains were written by this project's embedded, procedural teacher" in text
    assert "What they cost: one: 0.30 USD at 0 USD per million tokens of prompts, 10000 of completions; pro" in text
    assert "; two: 3.00 USD at 0 USD per" in text
    assert "of completions; together 3.30 USD.\n" in text
    assert "30 completions were read" in text
    assert report.ledger.spent == pytest.approx(11 * 10 * ANSWER)
    assert "this run: 3.30 USD" in report.summary()


def test_the_cost_of_one_that_is_not_known_hides_no_other(tmp_path: Path) -> None:
    with FaultServer(chain) as server:
        report = build(tmp_path, [served(server, "one"), served(server, "two", price=None)])
    assert report.cost.startswith("one: 0.30 USD at")
    assert report.cost.endswith("two: not known, as no price is stated for this teacher; together unknown")
    assert "this run" not in report.summary()


# One cap


def test_the_cap_is_one_for_all(tmp_path: Path) -> None:
    with FaultServer(chain) as server:
        teachers = [served(server, "one"), served(server, "two", dearer=2)]
        with pytest.raises(UserError, match="max_cost_usd"):
            build(tmp_path, teachers, **SHORT, collect={"max_cost_usd": 0.5})
        asked = Counter(ask.body["model"] for ask in server.asks)
        spent = ANSWER * (asked["one"] + 2 * asked["two"])
        assert 0.5 - 2 * ANSWER < spent <= 0.5
        report = build(tmp_path, teachers, **SHORT, collect={"max_cost_usd": 9.0})
        assert set(server.asked_per_prompt().values()) == {2}  # once of either
    assert report.ledger.spent == pytest.approx(30 * ANSWER)


def test_the_cap_counts_answers_of_a_teacher_whose_turn_is_later(tmp_path: Path) -> None:
    with FaultServer(chain) as server:
        later = served(server, "later", dearer=10)
        build(tmp_path, later, name="alone", **SHORT)  # for 3 USD
        with pytest.raises(CostCapReached, match=r"max_cost_usd: 3\.1800 of 3\.2 US"):
            build(tmp_path, [served(server, "first"), later], **SHORT, collect={"max_cost_usd": 3.2})
        assert Counter(ask.body["model"] for ask in server.asks) == {"first": 6, "later": 10}


def test_a_cap_needs_every_price_before_anybody_is_asked(tmp_path: Path) -> None:
    with FaultServer(chain) as server:
        with pytest.raises(UserError, match=r"max_cost_usd.*teacher\.price"):
            build(tmp_path, [served(server, "one"), served(server, "two", price=None)], collect={"max_cost_usd": 9})
        assert (server.requests_seen, server.models_seen) == (0, 0)


@pytest.mark.parametrize("teacher", [{"kind": "openai", "model": "m"}, [{"kind": "openai", "model": "m"}, CAREFUL]])
def test_prices_are_no_part_of_what_a_build_starts_from(teacher: Any) -> None:
    priced = {"kind": "openai", "model": "m", "price": {"input": 1.0, "output": 2.0}}
    other = [priced, *teacher[1:]] if isinstance(teacher, list) else priced
    assert settings_digest("teacher_cots", settings_of(teacher)) == settings_digest("teacher_cots", settings_of(other))


def test_prices_are_no_part_of_a_recipes_digest() -> None:
    recipe = str(Path(__file__).parents[2] / "recipes" / "std_cot.yaml")
    listed = "dataset.config.teacher=[{kind: openai, model: m}, {kind: procedural}]"
    priced = "dataset.config.teacher.0.price={input: 1, output: 2}"
    assert open_recipe(recipe, [listed, priced]).digest == open_recipe(recipe, [listed]).digest
    assert open_recipe(recipe, [listed]).digest != open_recipe(recipe).digest


# Side by side


@pytest.mark.parametrize("mode", ["online", "batch"])
def test_whoever_is_paid_is_asked_side_by_side(mode: str, tmp_path: Path) -> None:
    asked = {"one": threading.Event(), "two": threading.Event()}

    def waits_for_the_other(ask: Ask) -> Reply:
        model = ask.body["model"]
        asked[model].set()
        assert all(event.wait(60) for event in asked.values())  # for ever, if one came after the other
        return chain(ask)

    with FaultServer(waits_for_the_other) as first, FaultServer(waits_for_the_other) as second:
        teachers = [served(first, "one"), served(second, "two")]
        report = build(tmp_path, teachers, collect={"mode": mode, "poll_seconds": 0.01})
    assert report.collected.answered == 20
    assert report.ledger.spent == pytest.approx(20 * ANSWER)


def test_a_rest_below_the_cap_that_another_one_holds_is_waited_for(tmp_path: Path) -> None:
    # Each sets aside a third more than an answer costs: one request at a time fits below the cap at the end.
    longer = {"sampling": {"max_tokens": 4}}
    with FaultServer(chain) as server:
        teachers = [served(server, "one"), served(server, "two")]
        report = build(tmp_path, teachers, **longer, collect={"max_cost_usd": 20 * ANSWER + 0.011})
    assert report.collected.answered == 20


def test_when_one_stops_the_other_is_asked_to_its_end(tmp_path: Path) -> None:
    with FaultServer(chain) as server, FaultServer(lambda _: fault(401)) as closed:
        with pytest.raises(TeacherUnavailable, match=r"teacher \(two\) cannot answer: key refused"):
            build(tmp_path, [served(server, "one"), served(closed, "two")])
        assert set(server.asked_per_prompt().values()) == {1}
        assert len(server.asks) == 10


def test_when_both_stop_both_are_told_of(tmp_path: Path) -> None:
    both = r"teacher \(one\)[^\n]*\n[^\n]*teacher \(two\)"
    with FaultServer(lambda _: fault(401)) as server, pytest.raises(UserError, match=both):
        build(tmp_path, [served(server, "one"), served(server, "two")])


@pytest.mark.parametrize("lossy", ["one", "two"])
def test_what_each_lost_is_noted_for_itself(lossy: str, tmp_path: Path) -> None:
    def broken_once(ask: Ask) -> Reply:
        return RESET if ask.body["model"] == lossy and ask.attempt == 1 else chain(ask)

    with FaultServer(broken_once) as server:
        build(tmp_path, [served(server, "one"), served(server, "two")], **SHORT, collect={"backoff": 0.0})
    with Store(tmp_path / "store.sqlite") as store:
        assert store.lost(lossy) == pytest.approx(10 * ANSWER)
        assert store.lost("two" if lossy == "one" else "one") == 0


def test_what_stops_both_alike_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(store: Store) -> Any:
        raise StoreDamaged(store.path, "a page")

    monkeypatch.setattr(Store, "collecting", damaged)
    with FaultServer(chain) as server, pytest.raises(StoreDamaged, match="damaged: a page") as told:
        build(tmp_path, [served(server, "one"), served(server, "two")])
    assert "\n" not in str(told.value)


def test_a_mistake_of_ours_is_not_hidden_behind_one_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(collection: Collection, _: Any) -> None:
        raise UserError("a typing mistake") if collection.teacher.model == "one" else ZeroDivisionError

    monkeypatch.setattr(Collection, "collect", fails)
    with FaultServer() as server, pytest.raises(ZeroDivisionError):
        build(tmp_path, [served(server, "one"), served(server, "two")])


def test_those_in_this_process_share_its_machine_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[list[str]] = []
    asking = collecting._ask

    def noted(asked: Any, *arguments: Any, **named: Any) -> Any:
        groups.append([part.kind for part, _, _ in asked])
        return asking(asked, *arguments, **named)

    monkeypatch.setattr(collecting, "_ask", noted)
    with FaultServer(chain) as server:
        build(tmp_path, [served(server, "one"), CAREFUL, served(server, "two"), CARELESS])
    assert groups == [["procedural"], ["procedural"], ["openai", "openai"]]


def test_a_round_is_drawn_while_other_answers_are_waited_for() -> None:
    answered = threading.Event()

    def rounds() -> Iterator[list[Request]]:
        yield []
        assert answered.wait(60)  # for ever, if nothing else went on
        yield []

    async def drawn() -> list[Any]:
        found = []
        async for requests in collecting._drawn_aside(rounds(), asyncio.Lock(), collecting._Reading(NoAnswers())):
            found.append(requests)
            asyncio.get_running_loop().call_later(0.01, answered.set)
        return found

    assert asyncio.run(drawn()) == [[], []]


def test_a_draw_that_nobody_waits_for_ends_at_its_next_look() -> None:
    reading = collecting._Reading(NoAnswers())
    begun, looks = threading.Event(), Counter[str]()

    def rounds() -> Iterator[list[Request]]:
        begun.set()
        while True:  # for ever, if nothing stopped it
            reading.get(Request("m", ()))
            reading.failure(Request("m", ()))
            looks["all"] += 1
        yield []

    async def interrupted() -> None:
        drawing = asyncio.create_task(anext(collecting._drawn_aside(rounds(), asyncio.Lock(), reading)))
        await asyncio.to_thread(begun.wait)
        drawing.cancel()
        await asyncio.gather(drawing, return_exceptions=True)

    asyncio.run(interrupted())  # which waits for its threads
    assert reading.is_over


# Before anything is paid


def test_a_refused_key_of_one_is_found_before_another_is_paid(tmp_path: Path) -> None:
    with FaultServer(chain) as server, FaultServer(chain, key="sk-right") as closed:
        with pytest.raises(TeacherUnavailable, match=r"teacher \(two\) cannot answer.*No teacher was asked yet"):
            build(tmp_path, [served(server, "one"), served(closed, "two")])
        assert server.requests_seen == closed.requests_seen == 0


def test_a_server_whose_answers_are_there_need_not_run(tmp_path: Path) -> None:
    with FaultServer(chain) as gone:
        build(tmp_path, served(gone, "one"), name="alone")
    with FaultServer(chain) as server:
        report = build(tmp_path, [served(gone, "one"), served(server, "two")])
    assert report.collected.asked == 10
    assert len(report.outcome.train) == 20


def test_whoever_is_not_paid_is_asked_first(tmp_path: Path) -> None:
    build(tmp_path / "other", CAREFUL, problems=PROBLEMS | {"n": 5})
    recorded = {"kind": "recorded", "store": tmp_path / "other" / "store.sqlite"}
    with FaultServer(chain) as server:
        with pytest.raises(UserError, match="5 of 10 requests to the recorded teacher"):
            build(tmp_path, [served(server, "one"), recorded])
        assert server.requests_seen == 0
        report = build(tmp_path, [served(server, "one"), recorded], collect={"max_failure_rate": 0.5})
    made = ["openai"] * 10 + ["recorded"] * 5
    assert [row["chain"]["provenance"]["teacher"] for row in rows(report)] == made
    assert [row["reason"] for row in rows(report, "rejected")] == ["not recorded"] * 5


# A dry run


def test_a_dry_run_tells_of_each_and_of_all(tmp_path: Path) -> None:
    with FaultServer(chain) as server:
        one, two = served(server, "one"), served(server, "two", dearer=2)
        build(tmp_path, one, name="alone")
        seen = server.requests_seen
        settings = settings_of([one, two, CAREFUL], collect={"max_cost_usd": 9.0})
        each = estimate("teacher_cots", settings, tmp_path / "store.sqlite")
        assert [found.requests for found in each] == [(0, 0), (10, 10), (10, 10)]
        assert [found.mean_tokens for found in each] == [3, 0, 0]
        assert server.requests_seen == seen
    text = told(each, whole=False)
    dear = each[1].text(whole=False)
    cost = next(line for line in dear.splitlines() if line.startswith("cost"))
    assert text.endswith(
        f"\n\nall teachers\nto ask        20 requests\n{cost}\n"
        "cap           9.00 USD, with what the answers in the store have cost"
    )
    assert text.count("cap  ") == 1
    headings = [line for line in text.splitlines() if line.startswith("teacher")]
    assert headings == [f"teacher {number} of 3" for number in (1, 2, 3)]
    assert "to ask        two: 10 requests" in text


def test_a_dry_run_without_a_store_and_with_an_unknown_price(tmp_path: Path) -> None:
    teachers = [{"kind": "openai", "model": name, "base_url": "http://localhost:1/v1"} for name in ("one", "two")]
    text = told(estimate("dual_cots", settings_of(teachers, "dual_cots"), tmp_path / "none.sqlite"), whole=False)
    assert "\nto ask        40 to 80 requests\ncost          unknown, as the price of one teacher is" in text


def test_the_sum_of_nothing_is_nothing(tmp_path: Path) -> None:
    build(tmp_path, [CAREFUL, CARELESS])
    text = told(estimate("teacher_cots", settings_of([CAREFUL, CARELESS]), tmp_path / "store.sqlite"), whole=False)
    assert text.endswith("\n\nall teachers\nto ask        nothing")


# Mistakes


@pytest.mark.parametrize("second", [CAREFUL, {**CAREFUL, "seed": 0}])
def test_two_teachers_that_are_one_are_refused(second: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"found 2 teachers that go by the model 'procedural-v1@\w{8}'"):
        build(tmp_path, [CAREFUL, second])


def test_one_model_under_two_addresses_is_one_teacher(tmp_path: Path) -> None:
    with FaultServer(chain) as one, FaultServer(chain) as two:
        with pytest.raises(UserError, match=r"by the model 'm'.*base_url is several servers of one"):
            build(tmp_path, [served(one, "m"), served(two, "m")])
        assert one.requests_seen == two.requests_seen == 0


OPENAI = {"kind": "openai", "model": "m"}
RECORDED = {"kind": "recorded", "store": "store.sqlite"}


@pytest.mark.parametrize(
    ("teachers", "config", "reason"),
    [
        ([], {}, "at least 1"),
        ([OPENAI, CAREFUL], {"collect": {"mode": "batch"}}, "not 'procedural'"),
        ([OPENAI, {**OPENAI, "base_url": ["http://a", "http://b"]}], {"collect": {"mode": "batch"}}, "one base_url"),
        ([OPENAI, CAREFUL], {"recordings": [{"path": "a"}]}, "and this one is not"),
        ([RECORDED, {**RECORDED, "model": "n"}], {"recordings": [{"path": "a"}]}, "found 2 of them"),
        ([{"kind": "transformers", "model": "m"}, CAREFUL], {"contrastive": True}, "not 'procedural'"),
    ],
)
def test_what_one_of_them_cannot_do_is_refused(teachers: list[Any], config: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        settings_of(teachers, "counterfactual_rationales", **config)


def test_another_kind_of_one_teacher_of_a_list_starts_its_section_afresh() -> None:
    recipe = str(Path(__file__).parents[2] / "recipes" / "std_cot.yaml")
    listed = "dataset.config.teacher=[{kind: procedural, seed: 3}, {kind: procedural, seed: 4}]"
    changed = open_recipe(recipe, [listed, "dataset.config.teacher.1={kind: recorded, store: s.sqlite}"])
    assert [teacher.kind for teacher in changed.dataset.config.teachers] == ["procedural", "recorded"]
