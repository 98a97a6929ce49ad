from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import UserError
from toolkit.store import Store, StoreDamaged, collector_file, holder
from toolkit.teachers.protocol import Completion, Request, Sampling


def ask(question: str = "1 + 1?", model: str = "gpt", sample_index: int = 0, **sampling: float) -> Request:
    return Request(model, (("user", question),), Sampling(**sampling), sample_index, template="cot@1")


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path / "made" / "completions.db") as opened:
        yield opened


def test_a_completion_comes_back_as_it_was_put(store: Store) -> None:
    completion = Completion(
        "2", "one and one", "length", "gpt-0613", 12, 34, 5, True, {"id": "x", "choices": [{"nan": None}]}
    )
    store.put(ask(), completion)
    assert store.get(ask()) == completion


@pytest.mark.parametrize(
    "text",
    ["", "a\0b\0", "\ud800 alone", "\udcff\ud83d", "\U0001f600 e\u0301 \u2028\r\n", "x" * 2**20, "{{ 7 * 7 }}'; --"],
    ids=["empty", "NUL", "surrogate", "two surrogates", "unicode", "1 MB", "markup"],
)
def test_any_text_survives_in_every_field(store: Store, text: str) -> None:
    completion = Completion(text, text, text, text, raw={"text": text, text: [text]})
    store.put(ask(text), completion)
    assert store.get(ask(text)) == completion


@settings(max_examples=60, derandomize=True, database=None)
@given(text=st.text(st.characters()), question=st.text(st.characters()))
def test_random_text_survives(tmp_path_factory: pytest.TempPathFactory, text: str, question: str) -> None:
    with Store(tmp_path_factory.getbasetemp() / "fuzzed.db") as store:
        request = ask(question + text)
        store.put(request, Completion(text, question))
        assert store.get(request) == Completion(text, question)


@pytest.mark.parametrize(
    "other",
    [ask("2 + 2?"), ask(model="llama"), ask(sample_index=1), ask(temperature=0.9), ask(max_tokens=5)],
    ids=["prompt", "model", "sample", "temperature", "max_tokens"],
)
def test_another_request_is_not_answered(store: Store, other: Request) -> None:
    store.put(ask(), Completion("2"))
    assert store.get(other) is None


def test_the_template_name_is_no_part_of_the_identity(store: Store) -> None:
    store.put(ask(), Completion("2"))
    assert store.get(Request("gpt", (("user", "1 + 1?"),), template="renamed@2")) == Completion("2")


def test_the_first_completion_of_a_request_is_kept(store: Store) -> None:
    store.put(ask(), Completion("first"))
    store.put(ask(), Completion("second"))
    assert store.get(ask()) == Completion("first")


def test_a_completion_is_on_disk_when_put_returns(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    code = (
        "import os, sys; from toolkit.store import Store; from toolkit.teachers.protocol import *\n"
        "Store(sys.argv[1]).put(Request('m', (('user', 'q'),)), Completion('kept')); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -signal.SIGKILL
    with Store(path) as store:
        assert store.get(Request("m", (("user", "q"),))) == Completion("kept")


def test_put_many_stores_all_or_nothing(store: Store) -> None:
    with pytest.raises(TypeError):
        store.put_many([(ask("good"), Completion("fine")), (ask("bad"), Completion("", raw={"x": object()}))])
    assert store.get(ask("good")) is None


def test_a_failure_is_no_answer(store: Store) -> None:
    store.put_failure(ask(), "HTTP 400: too long", permanent=True)
    assert store.get(ask()) is None
    assert store.get_recorded(ask()) is None
    assert store.failure(ask()) == "HTTP 400: too long"


def test_a_completion_ends_the_failure_before_it(store: Store) -> None:
    store.put_failure(ask(), "HTTP 503")
    store.put(ask(), Completion("2"))
    assert store.failure(ask()) is None


def test_standing_tells_answered_failed_and_refused_apart(store: Store) -> None:
    store.put(ask("a"), Completion("2"))
    store.put_failure(ask("b"), "HTTP 503 (6 tries)")
    store.put_failure(ask("c"), "HTTP 400", permanent=True)
    assert [store.standing(ask(q)) for q in "abcd"] == ["answered", "failed", "refused", None]


def test_the_whole_request_stands_in_the_file(store: Store) -> None:
    store.put(ask("why \0?", sample_index=3), Completion("2"))
    (kept,) = sqlite3.connect(store.path).execute("SELECT request FROM completions").fetchone()
    assert json.loads(kept) == {
        "model": "gpt",
        "messages": [["user", "why \0?"]],
        "sampling": {
            "temperature": 0.2,
            "top_p": 1.0,
            "max_tokens": 1024,
            "stop": [],
            "seed": None,
            "top_logprobs": 0,
        },
        "sample_index": 3,
        "template": "cot@1",
        "contrast": None,
    }


def test_a_recorded_completion_is_found_whatever_model_and_sampling_ask(store: Store) -> None:
    store.put(ask(model="gpt", temperature=0.0), Completion("2"))
    assert store.get_recorded(ask(model="other", temperature=1.0)) == Completion("2")
    assert store.get_recorded(ask(sample_index=1)) is None


def test_of_several_recorded_completions_the_exact_one_comes_first(store: Store) -> None:
    for number in range(8):
        store.put(ask(model=f"m{number}"), Completion(str(number)))
    assert [store.get_recorded(ask(model=f"m{n}")) for n in range(8)] == [Completion(str(n)) for n in range(8)]


def test_recorded_completions_can_be_narrowed_to_one_model(store: Store) -> None:
    store.put(ask(model="gpt"), Completion("2"))
    assert store.get_recorded(ask(model="new"), model="gpt") == Completion("2")
    assert store.get_recorded(ask(model="new"), model="llama") is None


def test_two_readers_see_what_a_writer_adds(store: Store) -> None:
    with Store(store.path, read_only=True) as first, Store(store.path, read_only=True) as second:
        store.put(ask(), Completion("2"))
        assert first.get(ask()) == second.get(ask()) == Completion("2")


def test_a_reader_that_came_before_any_writer_sees_what_is_added(tmp_path: Path) -> None:
    """Nobody has the store open, so there is no log beside it, and yet somebody may write to it."""
    path = tmp_path / "s.db"
    Store(path).close()
    assert [file.name for file in tmp_path.iterdir()] == ["s.db"]
    with Store(path, read_only=True) as reader:
        assert reader.get(ask()) is None
        with Store(path) as writer:
            writer.put(ask(), Completion("2"))
            assert reader.get(ask()) == Completion("2")


def test_a_reader_leaves_nothing_in_a_folder_that_it_cannot_write_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.db"
    with Store(path) as writer:
        writer.put(ask(), Completion("2"))
        monkeypatch.setattr(os, "access", lambda folder, mode: (folder, mode) != (tmp_path, os.W_OK))
        with Store(path, read_only=True) as reader:  # the answer is in the log, which a store that is still has not
            assert reader.get(ask()) == Completion("2")
    with Store(path, read_only=True) as reader:
        assert reader.get(ask()) == Completion("2")
        assert [file.name for file in tmp_path.iterdir()] == ["s.db"]


def test_a_request_that_cannot_be_read_is_damage_and_not_passed_over(store: Store) -> None:
    store.put_many([(ask("a"), Completion("x")), (ask("b"), Completion("x"))])
    with sqlite3.connect(store.path) as other:
        other.execute("UPDATE completions SET request = '{}' WHERE rowid = 1")
    with pytest.raises(StoreDamaged, match=r"damaged: a row holds what is not a request: 'sampling'"):
        list(store.uncounted("gpt"))


def test_an_answer_of_another_model_that_cannot_be_read_is_damage_too(store: Store) -> None:
    store.put(ask(model="gpt"), Completion("2"))
    with sqlite3.connect(store.path) as other:
        other.execute("UPDATE completions SET text = '\"3\"'")
    with pytest.raises(StoreDamaged, match="is not what was stored"):
        store.get_recorded(ask(model="other"))


def test_of_several_recorded_completions_that_of_the_lowest_digest_is_read_whatever_came_first(tmp_path: Path) -> None:
    requests = [ask(model=f"m{number}") for number in range(6)]
    lowest = min(requests, key=lambda request: request.digest)
    for order in (requests, requests[::-1]):
        with Store(tmp_path / order[0].model) as store:
            store.put_many([(request, Completion(request.model)) for request in order])
            assert store.get_recorded(ask(model="other")) == Completion(lowest.model)


def test_a_later_failure_takes_the_place_of_an_earlier_one(store: Store) -> None:
    store.put_failure(ask(), "HTTP 400", permanent=True)
    store.put_failure(ask(), "HTTP 503")
    assert (store.failure(ask()), store.standing(ask())) == ("HTTP 503", "failed")


def test_a_read_only_store_cannot_be_written(store: Store) -> None:
    with Store(store.path, read_only=True) as reader, pytest.raises(UserError, match="readonly"):
        reader.put(ask(), Completion("2"))


def test_what_was_billed_is_summed_per_model_and_batches_apart(store: Store) -> None:
    told = Completion("x", prompt_tokens=5, completion_tokens=2, cached_tokens=9)  # more cached than there is
    store.put_many([(ask("a"), told), (ask("b"), told), (ask("c"), replace(told, batched=True))])
    store.put(ask("d", model="llama"), told)
    store.put_failure(ask("e"), "HTTP 503")
    both = Completion("", prompt_tokens=10, completion_tokens=4, cached_tokens=10)
    batched = Completion("", prompt_tokens=5, completion_tokens=2, cached_tokens=5, batched=True)
    assert list(store.billed(ask("a").model)) == [both, batched]
    assert list(store.billed("nobody")) == []


def test_answers_that_told_no_tokens_are_yielded_with_their_requests(store: Store) -> None:
    unknown = Completion("x", completion_tokens=7)
    store.put_many(
        [(ask("a"), unknown), (ask("b"), replace(unknown, batched=True)), (ask("c"), Completion("", prompt_tokens=1))]
    )
    store.put(ask("d", model="llama"), unknown)
    found = dict(store.uncounted(ask("a").model))
    assert found == {ask("a"): Completion(""), ask("b"): Completion("", batched=True)}
    assert list(store.billed(ask("a").model)) == [Completion("", prompt_tokens=1)]


def test_two_that_collect_with_one_store_hold_it_until_both_have_ended(store: Store) -> None:
    first, second = store.collecting(), store.collecting()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with Store(store.path) as other, pytest.raises(UserError, match=f"process {os.getpid()} .* is collecting into it"):
        other.collecting().__enter__()
    second.__exit__(None, None, None)
    assert holder(store.path) is None
    with Store(store.path) as other, other.collecting():
        pass


def test_losses_add_up_per_model_and_an_older_store_has_none(store: Store) -> None:
    assert store.lost("gpt") == 0
    store.add_loss("gpt", 0.25)
    store.add_loss("llama", 4.0)
    store.add_loss("gpt", 0.5)
    with Store(store.path, read_only=True) as reader:
        assert (reader.lost("gpt"), reader.lost("llama"), reader.lost("nobody")) == (0.75, 4.0, 0.0)


def test_stats_count_completions_failures_and_tokens(store: Store) -> None:
    store.put(ask("a"), Completion("x", prompt_tokens=5, completion_tokens=2))
    store.put(ask("b", model="llama"), Completion("x", prompt_tokens=1))
    store.put_failure(ask("c"), "HTTP 503")
    stats = store.stats()
    assert (stats.completions, stats.failures, stats.prompt_tokens, stats.completion_tokens) == (2, 1, 6, 2)
    assert stats.models == {"gpt": 1, "llama": 1}


def test_models_are_named_once_and_sorted_without_reading_the_rows(store: Store) -> None:
    store.put_many([(ask(str(n), model=model), Completion("x")) for n in range(3) for model in ("b", "\ud800", "a")])
    assert store.models() == ["a", "b", "\ud800"]
    plan, *_ = (
        sqlite3.connect(store.path).execute("EXPLAIN QUERY PLAN SELECT DISTINCT model FROM completions").fetchall()
    )
    assert "COVERING INDEX" in plan[3]


def test_an_empty_store_counts_nothing(store: Store) -> None:
    assert store.stats().completions == store.stats().completion_tokens == 0


def test_a_text_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("These are my notes, and not at all a database.\n" * 100)
    with pytest.raises(UserError, match=r"notes\.txt.*not a database"):
        Store(path)
    assert path.read_text().startswith("These are my notes")


def test_another_sqlite_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (x)")
    before = path.read_bytes()
    with pytest.raises(UserError, match="another kind of SQLite database"):
        Store(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("table", ["completions", "failures"])
def test_a_row_of_another_content_is_never_read(store: Store, table: str) -> None:
    store.put(ask("a"), Completion("2"))
    store.put_failure(ask("b"), "HTTP 503")
    column = "text" if table == "completions" else "reason"
    with sqlite3.connect(store.path) as other:
        other.execute(f"UPDATE {table} SET {column} = '\"3\"'")
    with pytest.raises(StoreDamaged, match=r"is not what was stored.*`distill store recover .*completions\.db NEW`"):
        store.get(ask("a")) if table == "completions" else store.failure(ask("b"))


def test_an_answered_request_does_not_fail_afterwards(store: Store) -> None:
    store.put(ask(), Completion("2"))
    store.put_failure(ask(), "HTTP 503")
    assert (store.standing(ask()), store.failure(ask())) == ("answered", None)


def test_one_thread_writes_while_another_reads(store: Store) -> None:
    batches = [[(ask(f"{batch} {n}"), Completion(f"{n}")) for n in range(20)] for batch in range(20)]
    with ThreadPoolExecutor(1) as writer:
        for batch in batches:
            written = writer.submit(store.put_many, batch)
            while not written.done():
                standings = [store.standing(request) for request, _ in reversed(batch)]
                # Once the last of a batch is there all are: nobody sees half a commit.
                assert "answered" not in standings or None not in standings[standings.index("answered") :]
            written.result()
            assert [store.get(request) for request, _ in batch] == [completion for _, completion in batch]


# --- the right to collect

HOLD = """
import sys, time
from toolkit.store import Store
from toolkit.teachers.protocol import Completion, Request
with Store(sys.argv[1]) as store, store.collecting():
    for n in range(10**6):
        store.put(Request("m", (("user", str(n)),)), Completion(str(n)))
        print(n, flush=True)
        time.sleep(0.001)
"""


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which is collecting into `s.db`."""
    words = [sys.executable, "-c", HOLD, str(tmp_path / "s.db")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        yield process
        process.kill()


def test_a_second_collector_is_refused_by_name_until_the_first_is_killed(
    tmp_path: Path, collecting: subprocess.Popen[str]
) -> None:
    with Store(tmp_path / "s.db") as store:
        refused = rf"s\.db: process {collecting.pid} \(since 2.*Z\) is collecting into it\. Wait for it, or end it"
        for _ in range(2):
            with pytest.raises(UserError, match=refused), store.collecting():
                pass
        collecting.kill()
        collecting.wait()
        assert holder(store.path) is None
        with store.collecting():
            assert holder(store.path) is not None


def test_two_processes_read_while_a_third_collects(tmp_path: Path, collecting: subprocess.Popen[str]) -> None:
    code = """
import sys
from toolkit.store import Store
from toolkit.teachers.protocol import Completion, Request
with Store(sys.argv[1], read_only=True) as store:
    seen = store.stats().completions
    while store.stats().completions < seen + 20:
        pass
    assert all(store.get(Request("m", (("user", str(n)),))) == Completion(str(n)) for n in range(seen + 20))
"""
    readers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "s.db")]) for _ in range(2)]
    assert collecting.stdout is not None
    while any(reader.poll() is None for reader in readers):
        collecting.stdout.readline()
    assert [reader.returncode for reader in readers] == [0, 0]
    assert collecting.poll() is None


def test_a_store_may_enter_its_own_right_again(store: Store) -> None:
    with store.collecting():
        with store.collecting():
            pass
        assert holder(store.path) is not None
        with Store(store.path) as other, pytest.raises(UserError, match="is collecting"), other.collecting():
            pass
    assert holder(store.path) is None
    with Store(store.path) as other, other.collecting():
        pass


def test_a_number_that_belongs_to_a_younger_process_is_nobody_s(store: Store) -> None:
    collector_file(store.path).write_text(json.dumps({"pid": os.getpid(), "since": "2020-01-01T00:00:00.000Z"}))
    assert holder(store.path) is None


def test_an_older_store_is_refused_with_what_to_do(store: Store) -> None:
    sqlite3.connect(store.path).execute("PRAGMA user_version = 1")
    with pytest.raises(UserError, match=r"a store of version 1; this release reads version 2\. .*build anew"):
        Store(store.path)


def test_a_newer_store_is_refused(store: Store) -> None:
    sqlite3.connect(store.path).execute("PRAGMA user_version = 99")
    with pytest.raises(UserError, match="version 99"):
        Store(store.path)


def test_a_missing_store_is_not_made_for_a_reader(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such store"):
        Store(tmp_path / "none.db", read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be used as a store"):
        Store(tmp_path)


def test_a_corrupt_store_is_named_in_the_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.db"
    with Store(path) as store:
        store.put_many([(ask(str(n)), Completion("x" * 500)) for n in range(50)])
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 40_000)
    with pytest.raises(UserError, match=r"broken\.db"), Store(path) as store:
        store.get(ask("1"))


def test_a_row_that_somebody_edited_is_named_as_the_store_s(store: Store) -> None:
    store.put(ask(), Completion("2"))
    with sqlite3.connect(store.path) as other:
        other.execute("UPDATE completions SET text = '{not json'")
    with pytest.raises(UserError, match=r"completions\.db"):
        store.get(ask())


class Refusing:
    """A connection whose first statements are refused."""

    def __init__(self, *codes: int) -> None:
        self._codes, self.asked = list(codes), 0

    def execute(self, statement: str) -> None:
        assert statement == "PRAGMA journal_mode = WAL"
        self.asked += 1
        if self._codes:
            error = sqlite3.OperationalError("refused")
            error.sqlite_errorcode = self._codes.pop(0)
            raise error


def test_the_log_is_asked_for_again_while_another_process_is_busy_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = iter([0.0, 1.0, 59.0, 0.0, 61.0])
    monkeypatch.setattr("toolkit.store.time.monotonic", lambda: next(seconds))
    monkeypatch.setattr("toolkit.store.time.sleep", lambda _: None)
    store = Store.__new__(Store)
    writer = Refusing(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY)
    monkeypatch.setattr(store, "_writer", writer, raising=False)
    store._keep_a_log()
    assert writer.asked == 3
    monkeypatch.setattr(store, "_writer", Refusing(sqlite3.SQLITE_BUSY))
    with pytest.raises(sqlite3.OperationalError):  # a minute later
        store._keep_a_log()
    monkeypatch.setattr("toolkit.store.time.monotonic", lambda: 0.0)
    other = Refusing(sqlite3.SQLITE_CORRUPT)
    monkeypatch.setattr(store, "_writer", other)
    with pytest.raises(sqlite3.OperationalError):
        store._keep_a_log()
    assert other.asked == 1


def test_a_commit_waits_for_the_disk(store: Store) -> None:
    assert store._writer.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_whoever_comes_while_a_store_is_being_made_waits_for_it(tmp_path: Path) -> None:
    for attempt in range(20):
        path = tmp_path / f"{attempt}.db"
        with ThreadPoolExecutor(6) as pool:
            stats = list(pool.map(lambda _, path=path: Store(path).stats().completions, range(6)))
        assert stats == [0] * 6


COUNTS: list[tuple[object, int]] = [
    (7, 7),
    (0, 0),
    (7.0, 7),
    (-0.0, 0),
    (True, 0),
    (False, 0),
    (-1, 0),
    (7.5, 0),
    (float("nan"), 0),
    (float("inf"), 0),
    (1e300, 0),
    ("7", 0),
    (None, 0),
    ([7], 0),
    (2**53, 0),
    (2**63, 0),
    (2**70, 0),
    (10**12, 10**12),
    (10**5000, 0),
]


@pytest.mark.parametrize(("said", "kept"), COUNTS, ids=[str(place) for place in range(19)])
@pytest.mark.parametrize("field", ["prompt_tokens", "completion_tokens", "cached_tokens"])
def test_a_count_comes_back_as_a_count_and_damages_nothing(store: Store, field: str, said: object, kept: int) -> None:
    store.put(ask(), replace(Completion("2"), **{field: said}))  # type: ignore[arg-type]
    found = store.get(ask())
    assert found is not None
    assert (getattr(found, field), type(getattr(found, field))) == (kept, int)
    assert store.stats().completions == 1


@settings(max_examples=100, derandomize=True, database=None)
@given(
    values=st.tuples(*[st.one_of(st.integers(), st.booleans(), st.floats(), st.text(), st.none())] * 3),
    batched=st.one_of(st.booleans(), st.integers(0, 1)),
    raw=st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
)
def test_whatever_is_put_is_healthy_when_it_is_read(
    tmp_path_factory: pytest.TempPathFactory, values: tuple[object, ...], batched: object, raw: object
) -> None:
    path = tmp_path_factory.mktemp("any") / "s.db"
    with Store(path) as store:
        store.put(ask(), Completion("\ud800\0", "", "stop", "m", *values, batched, {"raw": raw}))  # type: ignore[arg-type]
        found = store.get(ask())
        assert found is not None
        assert found.raw == {"raw": raw}
        store.stats()


def test_many_large_counts_have_a_sum(store: Store) -> None:
    most = Completion("2", prompt_tokens=10**12, completion_tokens=10**12)
    store.put_many((ask(str(number)), most) for number in range(1000))
    assert store.stats().prompt_tokens == 10**15
