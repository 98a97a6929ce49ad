from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from toolkit import ray_verdicts
from toolkit.math_equality import judged_by, math_equal
from toolkit.ray_verdicts import Pair, Verdicts


class Elsewhere:
    """Stands in for the cluster: finds equal what is the same without spaces, and remembers what it was sent."""

    def __init__(self) -> None:
        self.sent: list[set[Pair]] = []

    def __call__(self, pairs: Iterable[Pair]) -> dict[Pair, bool]:
        self.sent.append(set(pairs))
        return {pair: pair[0].replace(" ", "") == pair[1] for pair in pairs}


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    cluster = Elsewhere()
    monkeypatch.setattr(ray_verdicts, "math_verdicts", cluster)
    monkeypatch.setattr(ray_verdicts, "WORKER", None)  # nothing may be judged in this process
    return cluster


def test_what_a_verdict_leads_to_is_rehearsed_too(elsewhere: Elsewhere) -> None:
    def builder() -> bool:
        return math_equal("x + 1", "x+1") and math_equal("y", "x+1")

    verdicts = Verdicts()
    verdicts.rehearse(builder)
    assert elsewhere.sent == [{("x + 1", "x+1")}, {("y", "x+1")}]
    with judged_by(verdicts):
        assert not builder()
        assert math_equal("x + 1", "x+1")


def test_rounds_are_drawn_with_their_verdicts_at_hand_and_nothing_is_judged_twice(elsewhere: Elsewhere) -> None:
    answers: list[str] = []

    def rounds() -> Iterator[list[str]]:
        yield ["first"]
        yield [answer for answer in answers if math_equal(answer, "1")]

    verdicts = Verdicts()
    drawn = []
    with judged_by(verdicts):
        for requests in verdicts.ahead_of(rounds(), lambda: list(rounds())):
            drawn.append(requests)
            answers[:] = ["1 ", "2"]
    assert drawn == [["first"], ["1 "]]
    assert elsewhere.sent == [{("1 ", "1"), ("2", "1")}]
