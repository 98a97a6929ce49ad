"""Stores merged, checked, salvaged, pruned, exported and imported; damage is real: bytes of real files."""

from __future__ import annotations

import json
import random
import re
import shutil
import sqlite3
import tracemalloc
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit import cli, store_exports, store_files
from toolkit.errors import UserError
from toolkit.store import PAGE_BYTES, Store, StoreDamaged
from toolkit.store_exports import export, import_rows
from toolkit.store_files import contents, merge, prune, recover, verify
from toolkit.store_pages import log_of, rows_of_file
from toolkit.store_rows import COMPLETION_COLUMNS, FAILURE_COLUMNS, row_digest
from toolkit.teachers.protocol import Completion, Request, Sampling

NASTY = ["", "a\0b\0", "\ud800 alone", "\udcff\ud83d", "\U0001f600 \u2028\r\n", "x" * 20_000, "{{ 7 * 7 }}'; --", '"\\']


def ask(question: str, model: str = "gpt", **sampling: float) -> Request:
    return Request(model, (("user", question),), Sampling(**sampling), template="cot@1")


def filled(path: Path, number: int = 300, failures: int = 2, length: int = 400) -> dict[Request, Completion]:
    """Fill a store whose rows differ in length, some of them longer than a page; return what was put."""
    rng = random.Random(7)
    answers = {
        ask(f"question {n}"): Completion(f"{n} " * rng.randrange(length), prompt_tokens=n, raw={"n": [n]})
        for n in range(number)
    }
    with Store(path) as store:
        store.put_many(answers.items())
        for n in range(failures):
            store.put_failure(ask(f"failed {n}"), f"HTTP {400 + n % 3}", permanent=bool(n % 2))
    return answers


def everything(path: Path) -> list[tuple[object, ...]]:
    with Store(path, read_only=True) as store:
        tables = {"completions": COMPLETION_COLUMNS, "failures": FAILURE_COLUMNS}
        return [
            (table, *row)
            for table, columns in tables.items()
            for row in store.select(f"SELECT {', '.join(columns)} FROM {table} ORDER BY digest")
        ]


def overwrite(path: Path, start: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


def with_log(path: Path) -> dict[Request, Completion]:
    """Make a store as a killed process leaves it: what was answered stands in the log alone."""
    living = path.with_name("living.sqlite")
    with Store(living) as store:
        answers = {ask(f"question {n}"): Completion(f"{n} " * 300) for n in range(100)}
        for request, completion in answers.items():
            store.put(request, completion)
        shutil.copy(living, path)
        shutil.copy(log_of(living), log_of(path))
    return answers


# --- merge

OUTCOMES = st.one_of(st.sampled_from(["one", "two", "\ud800\0"]).map(Completion), st.sampled_from(["no", "never"]))
STORES = st.dictionaries(st.sampled_from([ask(q) for q in "abcdef"]), OUTCOMES)


def written(path: Path, outcomes: dict[Request, Completion | str]) -> Path:
    path.unlink(missing_ok=True)
    with Store(path) as store:
        for request, outcome in outcomes.items():
            if isinstance(outcome, Completion):
                store.put(request, outcome)
            else:
                store.put_failure(request, outcome)
    return path


@settings(max_examples=8, derandomize=True, database=None, deadline=None)
@given(first=STORES, second=STORES)
def test_a_merge_holds_both_keeps_the_first_answer_and_changes_nothing_the_second_time(
    tmp_path_factory: pytest.TempPathFactory, first: dict, second: dict
) -> None:
    folder = tmp_path_factory.mktemp("merged")
    sources = [written(folder / "1", first), written(folder / "2", second)]
    report = merge(folder / "merged", sources)
    with Store(folder / "merged") as store:
        for request in {**first, **second}:
            answers = [o for o in (first.get(request), second.get(request)) if isinstance(o, Completion)]
            assert store.get(request) == (answers[0] if answers else None)
            assert (store.standing(request) == "answered") == bool(answers)
    both = [r for r in first if all(isinstance(source.get(r), Completion) for source in (first, second))]
    assert (report.known, report.conflicts) == (len(both), sum(first[r] != second[r] for r in both))
    before = everything(folder / "merged")
    again = merge(folder / "merged", reversed(sources))
    assert (again.added, again.failures) == (0, 0)
    assert everything(folder / "merged") == before
    if not report.conflicts:
        merge(folder / "other", reversed(sources))
        requests = [*first, *second]
        with Store(folder / "merged") as one, Store(folder / "other") as other:
            assert [one.get(request) for request in requests] == [other.get(request) for request in requests]


def test_a_missing_source_is_told_before_anything_is_written(tmp_path: Path) -> None:
    filled(tmp_path / "a")
    with pytest.raises(UserError, match="b: no such store"):
        merge(tmp_path / "new", [tmp_path / "a", tmp_path / "b"])
    assert not (tmp_path / "new").exists()


def test_a_damaged_source_is_not_merged_in_silence(tmp_path: Path) -> None:
    filled(tmp_path / "a")
    sqlite3.connect(tmp_path / "a").executescript("UPDATE completions SET text = '\"changed\"' WHERE rowid = 200")
    with pytest.raises(StoreDamaged, match=r"distill store recover"):
        merge(tmp_path / "new", [tmp_path / "a"])


def test_a_damaged_failure_is_neither_merged_nor_exported_in_silence(tmp_path: Path) -> None:
    filled(tmp_path / "a", 20)
    sqlite3.connect(tmp_path / "a").executescript("UPDATE failures SET reason = '\"changed\"' WHERE rowid = 2")
    with pytest.raises(StoreDamaged, match=r"the row of request \w+ is not what was stored"):
        merge(tmp_path / "new", [tmp_path / "a"])
    with pytest.raises(StoreDamaged, match=r"the row of request \w+ is not what was stored"):
        export(tmp_path / "a", tmp_path / "file.jsonl")


def test_what_came_before_a_damaged_row_is_merged_batch_by_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_files, "BATCH", 5)
    filled(tmp_path / "a", 20, failures=0)
    sqlite3.connect(tmp_path / "a").executescript("UPDATE completions SET text = '\"changed\"' WHERE rowid = 13")
    with pytest.raises(StoreDamaged):
        merge(tmp_path / "new", [tmp_path / "a"])
    assert len(everything(tmp_path / "new")) == 10  # two batches of five; the third has the damaged row


def test_a_merge_counts_what_was_new_known_and_answered_otherwise(tmp_path: Path) -> None:
    written(tmp_path / "a", {ask("1"): Completion("x"), ask("2"): Completion("y"), ask("3"): "HTTP 500"})
    written(tmp_path / "b", {ask("1"): Completion("x"), ask("2"): Completion("z"), ask("4"): Completion("w")})
    report = merge(tmp_path / "new", [tmp_path / "a", tmp_path / "b"])
    assert (report.added, report.known, report.conflicts, report.failures) == (3, 2, 1, 1)
    with Store(tmp_path / "new") as store:
        assert store.get(ask("2")) == Completion("y")


def test_the_check_of_a_store_stops_after_twenty_damages(tmp_path: Path) -> None:
    filled(tmp_path / "a", 40, failures=0)
    sqlite3.connect(tmp_path / "a").executescript("UPDATE completions SET text = '\"changed\"' WHERE rowid > 10")
    report = verify(tmp_path / "a")
    assert (report.completions, len(report.damage)) == (10, 20)


# --- export and import


def odd_store(path: Path) -> list[Request]:
    requests = [ask(text, temperature=0.5) for text in NASTY]
    with Store(path) as store:
        for request, text in zip(requests, NASTY, strict=True):
            raw = {"text": text, text: [text, None, 1.5, float("inf")]}
            store.put(request, Completion(text, text, text, text, 1, 2, 3, True, raw=raw))
        store.put_failure(ask("failed"), "\ud800\0 reason", permanent=True)
    return [*requests, ask("failed")]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_an_imported_export_is_the_same_store(tmp_path: Path, suffix: str) -> None:
    requests = odd_store(tmp_path / "a")
    export(tmp_path / "a", tmp_path / f"file.{suffix}")
    report = import_rows(tmp_path / "b", tmp_path / f"file.{suffix}")
    assert (report.added, report.failures, report.refused) == (len(NASTY), 1, 0)
    assert everything(tmp_path / "a") == everything(tmp_path / "b")
    with Store(tmp_path / "a") as a, Store(tmp_path / "b") as b:
        assert [a.get(request) for request in requests] == [b.get(request) for request in requests]


TEXTS = st.text(st.characters(), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXTS, values, max_size=3),
    max_leaves=8,
)


@settings(max_examples=12, derandomize=True, database=None, deadline=None)
@given(
    rows=st.lists(st.tuples(TEXTS, TEXTS, st.dictionaries(TEXTS, JSON, max_size=3)), max_size=5),
    suffix=st.sampled_from(["jsonl", "parquet"]),
)
def test_whatever_was_said_survives_export_and_import(
    tmp_path_factory: pytest.TempPathFactory, rows: list, suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("exported")
    requests = [ask(question) for question, _, _ in rows]
    with Store(folder / "a") as store:
        store.put_many([(ask(question), Completion(text, raw=raw)) for question, text, raw in rows])
    export(folder / "a", folder / f"file.{suffix}")
    assert import_rows(folder / "b", folder / f"file.{suffix}").refused == 0
    with Store(folder / "a") as a, Store(folder / "b") as b:
        assert [a.get(request) for request in requests] == [b.get(request) for request in requests]


def test_a_line_of_an_export_holds_values_and_no_json_within_json(tmp_path: Path) -> None:
    request = ask("why?", temperature=0.5)
    answer = Completion("so", "since", "stop", "gpt-0613", 3, 2, 1, True, raw={"id": 7})
    with Store(tmp_path / "a") as store:
        store.put(request, answer)
        store.put_failure(ask("failed"), "HTTP 500", permanent=True)
    export(tmp_path / "a", tmp_path / "file.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "file.jsonl").read_text().splitlines()]
    told = next(row for row in rows if "text" in row)
    assert {
        name: told[name] for name in COMPLETION_COLUMNS[2:] if name not in ("created_at", "request", "row_digest")
    } == {
        "model": "gpt",
        "finish_reason": "stop",
        "answered_by": "gpt-0613",
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "cached_tokens": 1,
        "batched": 1,
        "text": "so",
        "reasoning": "since",
        "raw": {"id": 7},
    }
    assert (told["digest"], told["request"]["messages"]) == (request.digest, [["user", "why?"]])
    failed = next(row for row in rows if "reason" in row)
    assert (failed["reason"], failed["permanent"], failed["request"]["template"]) == ("HTTP 500", 1, "cot@1")


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_an_export_is_in_the_order_of_digests_whatever_came_first(tmp_path: Path, suffix: str) -> None:
    filled(tmp_path / "a", 40)
    rows = [row[1:] for row in everything(tmp_path / "a")]
    with Store(tmp_path / "b") as store:
        store.add_completions([row for row in reversed(rows) if len(row) == len(COMPLETION_COLUMNS)])
        store.add_failures([row for row in rows if len(row) == len(FAILURE_COLUMNS)])
    for name in "ab":
        export(tmp_path / name, tmp_path / f"{name}.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    if suffix == "jsonl":
        digests = [json.loads(line)["digest"] for line in (tmp_path / "a.jsonl").open()]
        assert digests == sorted(digests)


def test_bad_lines_are_refused_by_number_and_the_others_come_in(tmp_path: Path) -> None:
    filled(tmp_path / "a", 10)
    export(tmp_path / "a", tmp_path / "file.jsonl")
    lines = (tmp_path / "file.jsonl").read_text().splitlines()
    answered = [index for index, line in enumerate(lines) if '"text"' in line]
    one, two, three, four, five = answered[:5]
    lines[one] = lines[one].replace('"prompt_tokens": ', '"prompt_tokens": 9')
    lines[two] = lines[two][:50]
    lines[three] = lines[three].replace("question", "quastion")
    lines[four] = json.dumps({k: v for k, v in json.loads(lines[four]).items() if k != "raw"})
    lines[five] = "[1]"
    (tmp_path / "file.jsonl").write_text("\n".join(lines))
    report = import_rows(tmp_path / "b", tmp_path / "file.jsonl")
    assert (report.added, report.failures, report.refused) == (5, 2, 5)
    assert [fault.removeprefix(f"{tmp_path}/file.jsonl:") for fault in report.faults] == [
        f"{one + 1}: its row_digest is not that of its content",
        f"{two + 1}: no JSON object",
        f"{three + 1}: its row_digest is not that of its content",
        f"{four + 1}: no 'raw'",
        f"{five + 1}: no JSON object",
    ]


def test_a_row_under_another_key_is_refused_though_its_own_digest_fits(tmp_path: Path) -> None:
    filled(tmp_path / "a", 1, failures=0)
    (row,) = [row[1:] for row in everything(tmp_path / "a")]
    columns = ("0" * 64, *row[1:-1])
    with Store(tmp_path / "forged") as store:
        store.add_completions([(*columns, row_digest(columns))])
    export(tmp_path / "forged", tmp_path / "file.parquet")
    report = import_rows(tmp_path / "b", tmp_path / "file.parquet")
    assert report.faults == [f"{tmp_path}/file.parquet row 1: its 'digest' is not that of its request"]


@pytest.mark.parametrize("name", ["file.csv", "file", "file.json"])
def test_only_two_kinds_of_files_are_written(tmp_path: Path, name: str) -> None:
    filled(tmp_path / "a", 1)
    with pytest.raises(UserError, match=r"allowed \.parquet or \.jsonl"):
        export(tmp_path / "a", tmp_path / name)


def test_a_file_that_is_no_export_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("no Parquet at all")
    for name, message in (("other", "no column"), ("text", "cannot be read as Parquet"), ("none", "no such file")):
        with pytest.raises(UserError, match=message):
            import_rows(tmp_path / "b", tmp_path / f"{name}.parquet")


def test_a_damaged_store_leaves_no_half_export(tmp_path: Path) -> None:
    filled(tmp_path / "a")
    sqlite3.connect(tmp_path / "a").executescript("UPDATE completions SET text = '\"changed\"' WHERE rowid = 200")
    with pytest.raises(StoreDamaged):
        export(tmp_path / "a", tmp_path / "file.jsonl")
    assert [path.name for path in tmp_path.iterdir() if "file" in path.name] == []


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_no_command_holds_all_rows_at_once(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (store_files, store_exports):
        monkeypatch.setattr(module, "BATCH", 5)

    def peak(number: int) -> float:
        """Return the most memory that all of it takes, as a share of the store's size."""
        path = tmp_path / f"{number}"
        filled(path, number, length=4000)
        # Python's allocator knows nothing of Arrow's memory, nor Arrow's of Python's.
        in_arrow = pa.proxy_memory_pool(pool)
        pa.set_memory_pool(in_arrow)
        tracemalloc.start()
        export(path, path.with_suffix(f".{suffix}"))
        import_rows(tmp_path / f"{number}-imported", path.with_suffix(f".{suffix}"))
        merge(tmp_path / f"{number}-merged", [path])
        verify(path)
        recover(path, tmp_path / f"{number}-recovered")
        most = tracemalloc.get_traced_memory()[1] + in_arrow.max_memory()
        tracemalloc.stop()
        return most / path.stat().st_size

    pool = pa.default_memory_pool()
    try:
        peak(5)  # what is imported and cached once
        assert peak(100) < 0.5
    finally:
        pa.set_memory_pool(pool)


# --- verify and recover


def test_a_healthy_store_is_healthy(tmp_path: Path) -> None:
    filled(tmp_path / "a")
    report = verify(tmp_path / "a")
    assert (report.completions, report.failures, report.damage) == (300, 2, ())


@pytest.mark.parametrize("column", COMPLETION_COLUMNS)
def test_a_change_of_any_column_is_found(tmp_path: Path, column: str) -> None:
    filled(tmp_path / "a", 20)
    changed = f"UPDATE completions SET {column} = iif(typeof({column}) = 'integer', {column} + 1, {column} || ' ')"
    sqlite3.connect(tmp_path / "a").executescript(f"{changed} WHERE rowid = 7")
    (damage,) = verify(tmp_path / "a").damage
    assert re.fullmatch(r"rows: that of request .* in completions is not what was stored", damage)


def test_a_page_that_is_gone_is_told_with_how_far_the_rows_go(tmp_path: Path) -> None:
    filled(tmp_path / "a")
    with sqlite3.connect(tmp_path / "a") as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'failures'").fetchone()
    overwrite(tmp_path / "a", (root - 1) * PAGE_BYTES, bytes(PAGE_BYTES))
    assert verify(tmp_path / "a").damage[-1] == (
        "rows: database disk image is malformed, after 300 completions and 0 failures"
    )


def test_a_changed_failure_is_found(tmp_path: Path) -> None:
    filled(tmp_path / "a", 20)
    sqlite3.connect(tmp_path / "a").executescript("UPDATE failures SET permanent = 1 - permanent WHERE rowid = 1")
    (damage,) = verify(tmp_path / "a").damage
    assert re.fullmatch(r"rows: that of request .* in failures is not what was stored", damage)


def noise(rng: random.Random, size: int) -> bytes:
    return bytes(rng.randrange(256) for _ in range(size))


def pages_overwritten(rng: random.Random, path: Path) -> int:
    pages = rng.sample(range(1, path.stat().st_size // PAGE_BYTES), 5)
    for page in pages:
        overwrite(path, page * PAGE_BYTES, noise(rng, PAGE_BYTES))
    return len(pages)


def pages_emptied(rng: random.Random, path: Path) -> int:
    pages = rng.sample(range(1, path.stat().st_size // PAGE_BYTES), 5)
    for page in pages:
        overwrite(path, page * PAGE_BYTES, bytes(PAGE_BYTES))
    return len(pages)


def bytes_changed(rng: random.Random, path: Path) -> int:
    for _ in range(10):
        overwrite(path, rng.randrange(PAGE_BYTES, path.stat().st_size), noise(rng, 1))
    return 10


def header_gone(rng: random.Random, path: Path) -> int:
    overwrite(path, 0, noise(rng, PAGE_BYTES))
    return 0


def end_cut_off(rng: random.Random, path: Path) -> int:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - rng.randrange(3 * PAGE_BYTES, 8 * PAGE_BYTES))
    return 8


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("harm", [pages_overwritten, pages_emptied, bytes_changed, header_gone, end_cut_off])
def test_what_stands_on_healthy_pages_is_recovered_from_a_damaged_file(
    tmp_path: Path, harm: Callable[[random.Random, Path], int], seed: int
) -> None:
    path = tmp_path / "a"
    answers = filled(path)
    pages = harm(random.Random(f"{harm.__name__}{seed}"), path)
    assert verify(path).damage
    damaged = path.read_bytes()
    report = recover(path, tmp_path / "new")
    assert path.read_bytes() == damaged
    assert verify(tmp_path / "new").damage == ()
    with Store(tmp_path / "new") as store:
        kept = {request: store.get(request) for request in answers}
    lost = [request for request in answers if kept[request] is None]
    assert report.added == 300 - len(lost)
    assert all(completion == answers[request] for request, completion in kept.items() if completion)
    assert len(lost) <= 5 * pages  # no page holds more rows than that
    assert report.lost in (None, len(lost)) or harm is end_cut_off


def test_rows_longer_than_a_page_are_read_like_sqlite_reads_them(tmp_path: Path) -> None:
    lengths = [*range(3000, 3200), *range(4000, 4200), *range(8000, 8100), 100_000]
    with Store(tmp_path / "a") as store:
        store.put_many([(ask(str(n)), Completion("x" * n)) for n in lengths])
    rows = sorted(rows_of_file(tmp_path / "a", len(COMPLETION_COLUMNS)))
    assert rows == [row[1:] for row in everything(tmp_path / "a")]


def test_a_killed_process_leaves_nothing_damaged(tmp_path: Path) -> None:
    answers = with_log(tmp_path / "a")
    report = verify(tmp_path / "a")
    assert (report.completions, report.damage) == (len(answers), ())


@pytest.mark.parametrize("frame", [0, 20])
def test_answers_behind_a_damaged_place_of_the_log_are_named_and_recovered(tmp_path: Path, frame: int) -> None:
    path = tmp_path / "a"
    answers = with_log(path)
    place = 32 + frame * (24 + PAGE_BYTES) + 24 + 2000
    overwrite(log_of(path), place, noise(random.Random(0), 8))
    damage = verify(path).damage
    assert any("out of reach" in line for line in damage)
    report = recover(path, tmp_path / "new")
    with Store(tmp_path / "new") as store:
        kept = [request for request, completion in answers.items() if store.get(request) == completion]
    assert len(kept) == report.added >= len(answers) - 5


def test_nobody_collects_into_a_store_whose_log_is_damaged(tmp_path: Path) -> None:
    with_log(tmp_path / "a")
    overwrite(log_of(tmp_path / "a"), 32 + 24 + 2000, noise(random.Random(0), 8))
    with (
        Store(tmp_path / "a") as store,
        pytest.raises(StoreDamaged, match=r"out of reach.*`distill store recover .*/a NEW`"),
        store.collecting(),
    ):
        pass


def test_a_log_that_was_never_committed_is_no_damage(tmp_path: Path) -> None:
    with_log(tmp_path / "a")
    log = log_of(tmp_path / "a")
    content = log.read_bytes()
    frames = range(32, len(content), 24 + PAGE_BYTES)
    last = frames[-1]
    assert any(content[last + 4 : last + 8])
    log.write_bytes(content[:last])
    assert verify(tmp_path / "a").damage == ()


def test_only_a_new_file_is_recovered_into(tmp_path: Path) -> None:
    filled(tmp_path / "a", 1)
    filled(tmp_path / "b", 1)
    with pytest.raises(UserError, match="b: exists already"):
        recover(tmp_path / "a", tmp_path / "b")


def test_a_file_without_a_healthy_row_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(noise(random.Random(0), 5 * PAGE_BYTES))
    with pytest.raises(UserError, match="holds no healthy row"):
        recover(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()


# --- prune and inspect


def left(path: Path, requests: Sequence[Request]) -> list[str]:
    """Return the questions that a build would have to ask."""
    with Store(path, read_only=True) as store:
        return [request.messages[0][1] for request in requests if store.standing(request) != "answered"]


def test_what_is_pruned_and_nothing_else_is_asked_again(tmp_path: Path) -> None:
    requests = [ask("a"), ask("b", model="llama"), ask("c"), ask("d", model="llama")]
    with Store(tmp_path / "s") as store:
        store.put_many([(request, Completion("x" * 9000)) for request in requests])
    assert prune(tmp_path / "s", model="llama", dry=True).dropped == 2
    assert left(tmp_path / "s", requests) == []
    report = prune(tmp_path / "s", model="llama")
    assert (report.dropped, report.bytes_after < report.bytes_before) == (2, True)
    assert left(tmp_path / "s", requests) == ["b", "d"]
    assert verify(tmp_path / "s").damage == ()


def test_what_is_pruned_is_not_recovered(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        store.put_many([(ask("a"), Completion("keep")), (ask("b", model="llama"), Completion("drop this"))])
    prune(tmp_path / "s", model="llama")
    assert b"drop this" not in (tmp_path / "s").read_bytes()
    recover(tmp_path / "s", tmp_path / "new")
    assert left(tmp_path / "new", [ask("a"), ask("b", model="llama")]) == ["b"]


def test_failures_are_pruned_by_model_and_day(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        store.put_failure(ask("a"), "HTTP 400", permanent=True)
        store.put_failure(ask("b", model="llama"), "HTTP 400", permanent=True)
    assert prune(tmp_path / "s", failures=True, before=date(2000, 1, 1)).dropped == 0
    assert prune(tmp_path / "s", failures=True, model="llama").dropped == 1
    with Store(tmp_path / "s") as store:
        assert [store.standing(r) for r in (ask("a"), ask("b", model="llama"))] == ["refused", None]
    assert prune(tmp_path / "s", failures=True, before=date(9999, 1, 1)).dropped == 1


def test_a_model_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    filled(tmp_path / "s", 2)
    with pytest.raises(UserError, match=r"no completion of model 'gtp'.*did you mean 'gpt'"):
        prune(tmp_path / "s", model="gtp")


def test_nobody_prunes_what_somebody_collects_into(tmp_path: Path) -> None:
    filled(tmp_path / "s", 2)
    with Store(tmp_path / "s") as store, store.collecting(), pytest.raises(UserError, match="is collecting into it"):
        prune(tmp_path / "s", model="gpt")
    assert verify(tmp_path / "s").completions == 2


def test_contents_count_tokens_failures_and_dates(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        store.put(ask("a"), Completion("x", prompt_tokens=5, completion_tokens=2, cached_tokens=3, batched=True))
        store.put(ask("b"), Completion("x", prompt_tokens=1))
        store.put(ask("c", model="llama"), Completion("x"))
        for question in "def":
            store.put_failure(ask(question), "HTTP 503")
        store.put_failure(ask("g"), "HTTP 400", permanent=True)
        found = contents(tmp_path / "s")
    assert found.models == {"gpt": (2, 6, 3, 2, 1), "llama": (1, 0, 0, 0, 0)}
    assert found.failures == [("HTTP 503", False, 3), ("HTTP 400", True, 1)]
    assert "2020" < found.first <= found.last
    assert found.size > PAGE_BYTES


# --- the command


def told(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = cli.main(["store", *map(str, words)])
    return code, capsys.readouterr().out.strip().split("\n")[-1]


def test_every_command_ends_with_what_it_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    filled(tmp_path / "a", 20)
    code, line = told(capsys, "inspect", "a")
    assert (code, line.partition(",")[0]) == (0, "a: 20 completions and 2 failures")
    code, line = told(capsys, "export", "a", "f.jsonl")
    assert (code, line.partition(",")[0]) == (0, "f.jsonl: 20 completions and 2 failures")
    next_one = "conflicts, 0 refused; next: `distill store inspect b`"
    assert told(capsys, "import", "b", "f.jsonl") == (
        0,
        f"b: 20 completions and 2 failures added, 0 known, 0 {next_one}",
    )
    merged = "c: 20 completions and 2 failures added, 20 known, 0 conflicts; next: `distill store inspect c`"
    assert told(capsys, "merge", "c", "a", "b") == (0, merged)
    assert told(capsys, "verify", "c")[1].startswith("c: nothing damaged, 20 completions and 2 failures")
    assert told(capsys, "recover", "c", "d")[1].startswith(
        "d: 20 completions and 2 failures saved, 0 lost; next: put it"
    )
    assert "would drop 20 completions" in told(capsys, "prune", "d", "--model", "gpt")[1]
    assert "dropped 20 completions" in told(capsys, "prune", "d", "--model", "gpt", "--yes")[1]


def test_damage_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path / "a", 20)
    export(tmp_path / "a", tmp_path / "f.jsonl")
    (tmp_path / "f.jsonl").write_text((tmp_path / "f.jsonl").read_text()[:-30])
    assert told(capsys, "import", tmp_path / "b", tmp_path / "f.jsonl")[0] == 1
    overwrite(tmp_path / "a", 3 * PAGE_BYTES, b"\xff" * 200)
    code, line = told(capsys, "verify", tmp_path / "a")
    assert code == 1
    assert line.endswith(f"next: `distill store recover {tmp_path}/a NEW`")


@pytest.mark.parametrize(
    "words", [["inspect"], ["inspect", "a", "k=1"], ["look", "a"], ["prune", "a", "--before", "soon"], ["merge", "a"]]
)
def test_a_wrong_command_line_exits_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main(["store", *words])
    assert exited.value.code == 2


@pytest.mark.parametrize("words", [["inspect", "none"], ["verify", "none"], ["prune", "none", "--failures"]])
def test_a_missing_store_is_a_mistake(tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["store", *words]) == 2
    assert list(tmp_path.iterdir()) == []


# --- damaged JSON text

DAMAGED_TEXTS: list[str | int | bytes | float] = [
    "gpt", '"gpt', "", "{", "null", "5", "[]", '{"a": 1}', "NaN", '"\x1b[2J"', "\ufffd\ufffd", '"gpt" "gpt"', 7, 1.5,
    b"\xff\xfe", b'"gpt"', "[" * 5000,
]  # fmt: skip
PLACES = [str(place) for place in range(len(DAMAGED_TEXTS))]


def damaged(path: Path, table: str, column: str, value: object) -> str:
    """Put a value into a column of one row of a store, and return the row's digest."""
    filled(path, 10, failures=4)
    with sqlite3.connect(path) as connection:
        (digest,) = connection.execute(f"SELECT min(digest) FROM {table}").fetchone()
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE digest = ?", (value, digest))
    return str(digest)


@pytest.mark.parametrize("value", DAMAGED_TEXTS, ids=PLACES)
@pytest.mark.parametrize(("table", "column"), [("completions", "model"), ("failures", "reason")])
def test_inspect_counts_what_is_healthy_and_names_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, column: str, value: object
) -> None:
    digest = damaged(tmp_path / "s", table, column, value)
    assert cli.main(["store", "inspect", str(tmp_path / "s")]) == 0
    said = capsys.readouterr().out
    assert f"damaged: row {digest} of {table}: its {column} is damaged" in said
    assert "distill store verify" in said
    healthy = "9 completions and 4 failures" if table == "completions" else "10 completions and 3 failures"
    assert healthy in said
    assert said.replace("\n", "").isprintable()


@pytest.mark.parametrize("value", DAMAGED_TEXTS, ids=PLACES)
@pytest.mark.parametrize(
    ("table", "column", "words"), [("completions", "model", []), ("failures", "request", ["--failures"])]
)
def test_prune_drops_what_is_meant_and_leaves_and_names_what_cannot_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, column: str, words: list[str], value: object
) -> None:
    digest = damaged(tmp_path / "s", table, column, value)
    command = ["store", "prune", str(tmp_path / "s"), "--model", "gpt", *words]
    dropped = 9 if table == "completions" else 3
    is_named = not (column == "request" and value == '{"a": 1}')  # which is JSON, and of no model
    for more, verb in (([], "would drop"), (["--yes"], "dropped")):
        assert cli.main([*command, *more]) == 0
        said = capsys.readouterr().out
        assert f"{verb} {dropped} {table}" in said
        assert (f"damaged: row {digest} of {table}: its {column} is damaged" in said) is is_named
    with Store(tmp_path / "s", read_only=True) as store:
        assert [row[0] for row in store.select(f"SELECT digest FROM {table}")] == [digest]


def test_only_twenty_damaged_rows_are_named(tmp_path: Path) -> None:
    filled(tmp_path / "s", 50)
    with sqlite3.connect(tmp_path / "s") as connection:
        connection.execute("UPDATE completions SET model = 'x'")
    assert len(contents(tmp_path / "s").damage) == 20


def test_a_damaged_date_is_no_first_and_no_last(tmp_path: Path) -> None:
    damaged(tmp_path / "s", "completions", "created_at", "\x1b[2Jzzz")
    assert contents(tmp_path / "s").last.startswith("2")


def test_a_damaged_model_is_none_of_the_store_s(tmp_path: Path) -> None:
    damaged(tmp_path / "s", "completions", "model", '"gp')
    with Store(tmp_path / "s", read_only=True) as store:
        assert (store.models(), store.stats().models) == (["gpt"], {"gpt": 9})
        assert store.has_uncut("gpt", 1024)


def test_inspect_shows_no_control_sequence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(tmp_path / "s") as store:
        store.put(ask("a", model="m\x1b[2J"), Completion("2"))
        store.put_failure(ask("b"), "bad\x1b]0;title\x07")
    assert cli.main(["store", "inspect", str(tmp_path / "s")]) == 0
    assert capsys.readouterr().out.replace("\n", "").isprintable()
