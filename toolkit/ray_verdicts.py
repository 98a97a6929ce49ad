"""Judges mathematics with the workers of a Ray cluster, before a builder asks whether two answers are equal.

A builder is rehearsed over the store as it is, with a judge that only notes what it is asked. What was noted is judged
on all CPUs by the one function that judges anywhere, and the builder then finds its verdicts at hand. Only mathematics
is sent: numbers, choices and words are compared in a fraction of a millisecond, math-verify takes tens of them.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from toolkit.math_equality import WORKER, Judge, judged_by
from toolkit.ray_collection import dataset_of, ray_cluster, rows_of

if TYPE_CHECKING:
    import pyarrow as pa

Item = TypeVar("Item")

Pair = tuple[str, str]
"""A predicted answer and the gold one."""

_PAIRS = 256  # in a block: seconds of judging, so that all workers end at nearly the same time


class Verdicts:
    """Verdicts that are known; asked for another one, it has it judged in this process as ever."""

    def __init__(self) -> None:
        self._known: dict[Pair, bool] = {}

    def __call__(self, predicted: str, gold: str, timeout: float) -> bool:
        """Return whether two expressions are equal: a `toolkit.math_equality.Judge`."""
        verdict = self._known.get((predicted, gold))
        return WORKER.equal(predicted, gold, timeout) if verdict is None else verdict

    def ahead_of(self, rounds: Iterable[Item], run: Callable[[], object]) -> Iterator[Item]:
        """Yield `rounds`, each drawn once all is judged that `run` asks for by then, and `run` once more at the end."""
        drawn = iter(rounds)
        while True:
            self.rehearse(run)
            try:
                yield next(drawn)
            except StopIteration:
                return

    def rehearse(self, run: Callable[[], object]) -> None:
        """Have all verdicts judged that `run` asks for.

        Args:
            run: Runs a builder as far as the store goes. It is run anew until nothing is asked that is not known, as a
                verdict may lead to further questions; one that is not known counts as not equal.
        """
        while pairs := self._asked_for(run):
            self._known |= math_verdicts(pairs)

    def _asked_for(self, run: Callable[[], object]) -> set[Pair]:
        pairs: set[Pair] = set()

        def note(predicted: str, gold: str, timeout: float) -> bool:
            verdict = self._known.get((predicted, gold))
            if verdict is None:
                pairs.add((predicted, gold))
            return bool(verdict)

        judge: Judge = note
        with judged_by(judge):
            run()
        return pairs


@contextmanager
def verdicts_over_ray() -> Iterator[Verdicts]:
    """Be connected to a Ray cluster, with verdicts that whoever judges finds.

    Raises:
        UserError: As `ray_cluster`.
    """
    verdicts = Verdicts()
    with ray_cluster(), judged_by(verdicts):
        yield verdicts


def math_verdicts(pairs: Iterable[Pair]) -> dict[Pair, bool]:
    """Return `toolkit.math_equality.math_equal` of every pair, judged by the workers of a Ray cluster."""
    import pyarrow as pa
    import ray

    chosen = sorted(set(pairs))
    tables = (
        pa.table({"pair": [pickle.dumps(pair) for pair in chosen[start : start + _PAIRS]]})
        for start in range(0, len(chosen), _PAIRS)
    )
    blocks = [ray.put(table) for table in tables]
    judged = dataset_of(blocks).map_batches(_judge, batch_size=None, batch_format="pyarrow")
    return {pickle.loads(row["pair"]): row["equal"] for row in rows_of(judged)}


def _judge(block: pa.Table) -> dict[str, list[Any]]:
    from toolkit.math_equality import math_equal

    pairs = block["pair"].to_pylist()
    return {"pair": pairs, "equal": [math_equal(*pickle.loads(pair)) for pair in pairs]}
