"""Asks a teacher from many processes or machines: `collect`, run by the workers of a Ray Data dataset.

Requests that the store lacks are the dataset's rows. A worker asks for a block of them with a teacher of its own and
the ordinary engine, and hands every commit to one writer beside the store before a row counts as done. So there is one
store with the same keys as ever, nothing to merge, and nothing lost with a worker, its machine or the driver but the
requests in flight.

Ray is imported when something is run. A teacher's key is read from the environment of each worker and is in no task.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.collect import CostCapReached, collect
from toolkit.collect_settings import CollectSettings
from toolkit.errors import UserError
from toolkit.spending import Ledger
from toolkit.store import Standing, Store
from toolkit.tally import CollectReport, Progress, Tally
from toolkit.teachers.protocol import Completion, Request

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit.prices import Price
    from toolkit.teachers.kinds import TeacherConfig

_FILLINGS = 100  # of a worker's window make a block: at its end the window drains, and nothing else waits for that
_TRIES = 5  # of a block whose worker died: one that kills its workers must not pay for a window each time for ever
_POLL_S = 0.5
_TOKENS = ("prompt_tokens", "completion_tokens")


@contextmanager
def ray_cluster() -> Iterator[None]:
    """Be connected to a Ray cluster: that of `RAY_ADDRESS`, else one on this machine, started now if need be.

    Raises:
        UserError: Ray is not installed, or the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing of a user's runs is reported to anybody
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError(f"--engine ray needs Ray ({error}): pip install 'cot-distillery[ray]'") from None
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(log_to_driver=False, logging_level=logging.WARNING, include_dashboard=False)
    except (ConnectionError, ValueError) as error:
        raise UserError(f"--engine ray: {' '.join(str(error).split())}") from None
    try:
        yield
    finally:
        ray.shutdown()


def collect_over_ray(
    rounds: Iterable[Iterable[Request]],
    teacher: TeacherConfig,
    store: Store,
    settings: CollectSettings,
    progress: Progress | None = None,
    ledger: Ledger | None = None,
) -> CollectReport:
    """Collect round after round as `toolkit.collect.Collection` does, with the workers of a Ray cluster.

    A worker has a CPU to itself, or a GPU for a teacher that is a model in its process. There are at most as many as
    requests may be in flight. Window and rates are shared out evenly among them, and so is what is left below
    the ledger's cap: it holds but for the requests that are in flight when a worker dies.

    Args:
        rounds: A round is drawn once all before it are in the store, and read to its end before it is asked.
        teacher: What each worker makes its teacher from.
        store: Where completions and failures go; on a disk of the machine that this runs on.
        settings: What all workers together may do.
        progress: Told twice a second; silent where None.
        ledger: Counts what is spent, by workers as well, and holds the cap; nobody counts where None.

    Raises:
        UserError: As `collect`; also for a teacher that asks nobody and for the batch API, which gain nothing by it,
            and where a block of requests keeps on killing its workers.
    """
    if teacher.kind == "recorded":
        raise UserError("--engine ray: a recorded teacher reads a file and asks nobody; leave the option out")
    if settings.mode == "batch":
        raise UserError("--engine ray: a batch is asked by the provider's machines; leave the option out")
    collection = _Collection(teacher, store, settings, progress, ledger)
    report = CollectReport()
    with store.collecting():
        for requests in rounds:
            report += collection.run(requests)
    return report


def dataset_of(blocks: list[Any]) -> Any:
    """Return a Ray dataset of references to Arrow tables, each a block; it says nothing of what it does."""
    import ray

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return ray.data.from_arrow_refs(blocks)


def rows_of(dataset: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a Ray dataset as they come.

    Raises:
        UserError: Ray gives up.
    """
    import ray

    try:
        yield from dataset.iter_rows()
    except ray.exceptions.RayError as error:
        raise UserError(
            f"--engine ray: the workers failed: {' '.join(str(error).split())}. Every answer that came in is kept; the "
            "same command asks only for the rest"
        ) from None


class _Collection:
    """State of one `collect_over_ray`, in the driver."""

    def __init__(
        self,
        teacher: TeacherConfig,
        store: Store,
        settings: CollectSettings,
        progress: Progress | None,
        ledger: Ledger | None,
    ) -> None:
        import ray

        resources = ray.cluster_resources()
        self.on_gpu = teacher.kind == "transformers" and resources.get("GPU", 0) >= 1
        units = int(resources.get("GPU" if self.on_gpu else "CPU", 1))
        self.workers = max(1, min(units, settings.concurrency))
        self.teacher, self.store, self.settings, self.progress = teacher, store, settings, progress
        self.ledger = ledger
        self.tally = Tally(window=settings.concurrency)

    def run(self, requests: Iterable[Request]) -> CollectReport:
        """Do one round."""
        before = replace(self.tally)
        blocks = list(self._blocks(requests))
        if blocks:
            self._ask(blocks)
        report = self.tally.since(before)
        self._refuse_too_many_failures(report, blocks)
        return report

    def _blocks(self, requests: Iterable[Request]) -> Iterator[Any]:
        """Put what the store lacks into Ray's object store, which spills to disk what memory cannot hold.

        Requests are parted by digest, into a part for each worker; a part that is large enough is a block.
        """
        import ray

        parts: list[list[Request]] = [[] for _ in range(self.workers)]
        size = _FILLINGS * _share(self.settings, self.workers).concurrency
        seen: set[bytes] = set()
        for request in requests:
            self.tally.total = (self.tally.total or 0) + 1
            digest = bytes.fromhex(request.digest)
            if digest in seen or self.store.standing(request) == "answered":
                self.tally.cached += 1
                self.tally.done += 1
                continue
            seen.add(digest)
            part = parts[int.from_bytes(digest) % self.workers]
            part.append(request)
            if len(part) == size:
                yield ray.put(_table(part))
                part.clear()
        for part in parts:
            if part:
                yield ray.put(_table(part))

    def _ask(self, blocks: list[Any]) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        writer: Any = ray.remote(_Writer).options(num_cpus=0, scheduling_strategy=here)
        writer = writer.remote(self.store.path.absolute(), self.workers, len(blocks), self._left())
        asked = dataset_of(blocks).map_batches(
            _Worker,
            fn_constructor_args=(
                self.teacher,
                _share(self.settings, self.workers),
                writer,
                self.ledger.price if self.ledger else None,
            ),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=self.workers, max_tasks_in_flight_per_actor=1),
            **({"num_gpus": 1} if self.on_gpu else {"num_cpus": 1}),
        )
        before = replace(self.tally)
        try:
            with self._shown(writer, before):
                # To the end, whatever stops one worker: the others wait for answers that are paid for.
                rows = list(rows_of(asked))
            self._count(before, ray.get(writer.brought.remote()))
            self.tally.failed = before.failed + sum(row["failed"] for row in rows)
            if self.ledger is not None:
                self.ledger.add(*(sum(row[name] for row in rows) for name in ("spent", "lost")))
        finally:
            ray.kill(writer)
        if fault := next((row["fault"] for row in rows if row["fault"]), None):
            raise UserError(fault)

    def _left(self) -> float | None:
        """Return the US dollars left below the cap."""
        if self.ledger is None or self.ledger.max_cost_usd is None:
            return None
        return max(0.0, self.ledger.max_cost_usd - self.ledger.spent)

    def _count(self, before: Tally, brought: CollectReport) -> None:
        """Set the tally to what it was before and what the writer got since; workers that died asked for it too."""
        for name in ("asked", "answered", "failed", "prompt_tokens", "completion_tokens"):
            setattr(self.tally, name, getattr(before, name) + getattr(brought, name))
        self.tally.done = before.done + brought.asked

    @contextmanager
    def _shown(self, writer: Any, before: Tally) -> Iterator[None]:
        """Ask the writer now and then what has come in, in a thread: rows come only with whole blocks."""
        import ray

        if (progress := self.progress) is None:
            yield
            return
        done = threading.Event()

        def show() -> None:
            while not done.wait(_POLL_S):
                with contextlib.suppress(ray.exceptions.RayError):
                    self._count(before, ray.get(writer.brought.remote()))
                    progress(self.tally)

        shown = threading.Thread(target=show, daemon=True)
        shown.start()
        try:
            yield
        finally:
            done.set()
            shown.join()

    def _refuse_too_many_failures(self, report: CollectReport, blocks: list[Any]) -> None:
        import ray

        allowed, total = self.settings.max_failure_rate, report.cached + report.answered + report.failed
        if report.failed <= allowed * total:
            return
        reasons = Counter(self.store.failure(request) for block in blocks for request in _requests(ray.get(block)))
        del reasons[None]
        common = "; ".join(f"{count}x {reason}" for reason, count in reasons.most_common(3))
        raise UserError(
            f"{report.failed} of {total} requests to the {self.teacher.kind} teacher got no completion, more than "
            f"max_failure_rate {allowed:g} allows. Most common: {common}. The answers are kept in {self.store.path}. "
            "The same command asks again what ran out of tries; what failed for good is asked again with "
            "retry_failed: true."
        )


class _Worker:
    """Asks for the requests of a block: the class of a Ray Data actor, which lives as long as a round."""

    def __init__(self, config: TeacherConfig, settings: CollectSettings, writer: Any, price: Price | None) -> None:
        from toolkit.teachers.kinds import make_teacher

        self._teacher, self._settings = make_teacher(config), settings
        self._writer, self._price = writer, price
        self._fault = ""

    def __call__(self, block: pa.Table) -> dict[str, list[Any]]:
        """Return one row: requests without a completion, dollars spent and lost, why asking stopped if it did."""
        failed, spent, lost, fault = 0, 0.0, 0.0, self._fault
        if not fault:
            try:
                failed, spent, lost, fault = self._ask(list(_requests(block)))
            except UserError as error:  # before anything was asked
                fault = self._fault = str(error)
        return {"failed": [failed], "spent": [spent], "lost": [lost], "fault": [fault]}

    def _ask(self, requests: list[Request]) -> tuple[int, float, float, str]:
        store: Any = _WrittenThrough(self._writer, requests)
        ledger = Ledger(self._price, store.allowance) if self._price else None
        for request in requests:
            if ledger and store.standing(request) == "answered":  # by a worker that died, below the same allowance
                ledger.remember(store.get(request), request)
        failed, fault = 0, ""
        try:
            failed = asyncio.run(collect(requests, self._teacher, store, self._settings, ledger=ledger)).failed
        except CostCapReached as error:
            fault = str(error)  # the next block may get what another one has left
        except UserError as error:
            fault = self._fault = str(error)  # it would stop the next block too, after a window of requests
        finally:
            spent = ledger.spent if ledger else 0.0
            store.end(spent)
        return failed, spent, ledger.lost if ledger else 0.0, fault


class _Writer:
    """The Ray actor that writes to the store, on the machine that has its disk, and shares out what may be spent."""

    def __init__(self, path: Path, workers: int, blocks: int, left: float | None) -> None:
        self._store = Store(path)
        self._brought = CollectReport()
        self._begun = Counter[str]()
        self._workers, self._blocks, self._left = workers, blocks, left
        self._allowances: dict[str, float] = {}

    def begin(self, requests: list[Request]) -> tuple[Path, dict[str, Standing | None], float | None]:
        """Return the store's path, the standing of a block's requests by digest, and what they may cost together.

        A block that is tried again, because its worker died, has the allowance of the first try: what that one brought
        in is among the answers, and counts.
        """
        block = requests[0].digest
        self._begun[block] += 1
        if self._begun[block] > _TRIES:
            raise UserError(f"a block of {len(requests)} requests has killed {_TRIES} workers one after the other")
        if self._left is not None and block not in self._allowances:
            sharers = min(self._workers, self._blocks) - len(self._allowances)
            self._allowances[block] = self._left / max(1, sharers)
            self._left -= self._allowances[block]
        standings = {request.digest: self._store.standing(request) for request in requests}
        return self._store.path, standings, self._allowances.get(block)

    def end(self, block: str, spent: float) -> None:
        """Take back what a block has left of its allowance."""
        self._blocks -= 1
        if self._left is not None:
            self._left += self._allowances.pop(block) - spent

    def get(self, request: Request) -> Completion | None:
        return self._store.get(request)

    def failure(self, request: Request) -> str | None:
        return self._store.failure(request)

    def has_uncut(self, model: str, max_tokens: int) -> bool:
        return self._store.has_uncut(model, max_tokens)

    def put_many(self, answers: list[tuple[Request, Completion]]) -> None:
        self._store.put_many(answers)
        tokens = [sum(getattr(completion, name) for _, completion in answers) for name in _TOKENS]
        self._brought += CollectReport(len(answers), len(answers), 0, 0, *tokens)

    def put_failure(self, request: Request, reason: str, permanent: bool) -> None:
        self._store.put_failure(request, reason, permanent)
        self._brought += CollectReport(asked=1, failed=1)

    def brought(self) -> CollectReport:
        """Return what has come in from all workers."""
        return self._brought


class _WrittenThrough:
    """What `collect` sees of the store in a worker: a block's standings when it begins, writes that wait for the disk.

    Attributes:
        path: The store's, for messages.
        allowance: US dollars that the block's requests may cost together; None for no cap.
    """

    def __init__(self, writer: Any, requests: list[Request]) -> None:
        self._writer, self._block = writer, requests[0].digest
        self.path, self._standings, self.allowance = self._call("begin", requests)

    def end(self, spent: float) -> None:
        self._call("end", self._block, spent)

    def collecting(self) -> contextlib.nullcontext[None]:
        """Do nothing: the driver holds the right to collect, for all."""
        return contextlib.nullcontext()

    def standing(self, request: Request) -> Standing | None:
        found: Standing | None = self._standings[request.digest]
        return found

    def get(self, request: Request) -> Completion | None:
        completion: Completion | None = self._call("get", request)
        return completion

    def failure(self, request: Request) -> str | None:
        reason: str | None = self._call("failure", request)
        return reason

    def has_uncut(self, model: str, max_tokens: int) -> bool:
        return bool(self._call("has_uncut", model, max_tokens))

    def put_many(self, answers: Iterable[tuple[Request, Completion]]) -> None:
        self._call("put_many", list(answers))

    def put_failure(self, request: Request, reason: str, permanent: bool = False) -> None:
        self._call("put_failure", request, reason, permanent)

    def _call(self, name: str, *arguments: Any) -> Any:
        import ray

        try:
            return ray.get(getattr(self._writer, name).remote(*arguments))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None  # as the store raised it


def _share(settings: CollectSettings, workers: int) -> CollectSettings:
    """Return what one of several workers may do, so that all together stay within the settings."""
    rates = ("requests_per_minute", "input_tokens_per_minute", "output_tokens_per_minute")
    shared = {name: rate / workers for name in rates if (rate := getattr(settings, name)) is not None}
    return settings.model_copy(
        update={**shared, "concurrency": settings.concurrency // workers, "max_failure_rate": 1.0}
    )


def _table(requests: list[Request]) -> pa.Table:
    import pyarrow as pa

    columns = {"digest": [request.digest for request in requests], "request": [pickle.dumps(r) for r in requests]}
    return pa.table(columns)


def _requests(block: pa.Table) -> Iterator[Request]:
    return (pickle.loads(packed.as_py()) for packed in block["request"])
