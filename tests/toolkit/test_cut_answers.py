from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.waits import Waits
from toolkit.collect import TeacherUnavailable, collect
from toolkit.collect_settings import CollectSettings
from toolkit.cut_answers import MOST_CUT
from toolkit.store import Store
from toolkit.tally import CollectReport
from toolkit.teachers.openai_compatible import OpenAIConfig, OpenAITeacher
from toolkit.teachers.protocol import Completion, Request, Sampling
from toolkit.teachers.recorded import RecordedConfig, RecordedTeacher
from toolkit.testing.fault_server import FaultServer
from toolkit.testing.replies import Ask, Reply, completion

STOPPED = r"first 16 answers were all cut off by length, at sampling\.max_tokens 1024.*sampling\.max_tokens"


def asks(number: int, model: str = "m", **sampling: Any) -> list[Request]:
    return [Request(model, (("user", f"q{n}"),), Sampling(**sampling)) for n in range(number)]


def run(server: FaultServer, store: Store, requests: Iterable[Request], **settings: Any) -> CollectReport:
    teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=server.url))
    chosen = CollectSettings(**{"concurrency": 4, **settings})
    return asyncio.run(collect(requests, teacher, store, chosen, sleep=Waits()))


def cut(asked: Ask) -> Reply:
    return completion("so", "length")


def cut_but(numbers: Iterable[int]) -> Callable[[Ask], Reply]:
    whole = {f"q{number}" for number in numbers}
    return lambda asked: completion("whole") if asked.prompt in whole else cut(asked)


def test_a_run_whose_answers_are_all_cut_is_stopped_and_keeps_them(store: Store) -> None:
    with FaultServer(cut) as server:
        with pytest.raises(TeacherUnavailable, match=STOPPED):
            run(server, store, asks(192))
        assert MOST_CUT <= server.requests_seen <= MOST_CUT + 4
    assert store.stats().completions == server.requests_seen


def test_the_other_words_for_length_count_too(store: Store) -> None:
    with FaultServer(lambda _: completion("so", "MAX_TOKENS")) as server, pytest.raises(TeacherUnavailable):
        run(server, store, asks(192))


def test_fewer_answers_than_that_are_data(store: Store) -> None:
    with FaultServer(cut) as server:
        assert run(server, store, asks(MOST_CUT - 1)).answered == MOST_CUT - 1


@pytest.mark.parametrize("whole", [0, 7, MOST_CUT - 1])
def test_one_answer_that_came_to_its_end_goes_on(store: Store, whole: int) -> None:
    with FaultServer(cut_but([whole])) as server:
        assert run(server, store, asks(100), concurrency=1).answered == 100


def test_a_later_run_of_hard_questions_goes_on(store: Store) -> None:
    with FaultServer(cut_but(range(3))) as server:
        run(server, store, asks(3))
        again = [Request("m", request.messages, request.sampling, 1) for request in asks(60)[3:]]
        assert run(server, store, again).answered == 57


def test_what_came_to_its_end_with_more_tokens_says_nothing_of_fewer(store: Store) -> None:
    with FaultServer(lambda asked: completion("2") if asked.body["max_tokens"] > 99 else cut(asked)) as server:
        run(server, store, asks(3))
        with pytest.raises(TeacherUnavailable, match=r"max_tokens 50 or"):
            run(server, store, asks(100, max_tokens=50))


def test_another_model_s_answers_say_nothing(store: Store) -> None:
    store.put(asks(1, "other")[0], Completion("2"))
    with FaultServer(cut) as server, pytest.raises(TeacherUnavailable):
        run(server, store, asks(100))


def test_filtered_and_refused_answers_came_to_their_ends(store: Store) -> None:
    with FaultServer(lambda _: completion("no", "content_filter")) as server:
        assert run(server, store, asks(40)).answered == 40


def test_batches_after_the_first_are_not_submitted(store: Store) -> None:
    with FaultServer(cut) as server:
        with pytest.raises(TeacherUnavailable, match=STOPPED):
            run(server, store, asks(192), mode="batch", batch_size=20)
        assert server.requests_seen <= 192
    assert store.stats().completions >= MOST_CUT


def test_a_recording_is_replayed_whatever_it_holds(store: Store, tmp_path: Path) -> None:
    store.put_many((request, Completion("so", finish_reason="length")) for request in asks(40))
    teacher = RecordedTeacher(RecordedConfig(store=store.path))
    with Store(tmp_path / "copy.sqlite") as copy:
        assert asyncio.run(collect(asks(40), teacher, copy, CollectSettings())).answered == 40


def test_the_store_is_asked_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = itertools.count()
    monkeypatch.setattr(Store, "has_uncut", lambda *_: next(looked) >= 0)
    with FaultServer(cut) as server:
        run(server, store, asks(100))
    assert next(looked) == 1


def test_workers_of_ray_ask_the_store_too(store: Store) -> None:
    from toolkit.ray_collection import _Writer, _WrittenThrough

    store.put(asks(1)[0], Completion("2"))
    writer = _Writer(store.path, 1, 1, None)
    assert (writer.has_uncut("m", 1024), writer.has_uncut("m", 50), writer.has_uncut("n", 1024)) == (True, False, False)
    through = object.__new__(_WrittenThrough)
    through._call = lambda name, *arguments: getattr(writer, name)(*arguments)  # type: ignore[method-assign]
    assert through.has_uncut("m", 1024)
