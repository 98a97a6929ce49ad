"""Asks a teacher from many processes or machines: `collect`, run by the workers of a Ray Data dataset.

Requests that the store lacks are the dataset's rows. A worker asks for a block of them with a teacher of its own and
the ordinary engine, and hands every commit to one writer beside the store before a row counts as done. So there is one
store with the same keys as ever, nothing to merge, and nothing lost with a worker, its machine or the driver but the
requests in flight. Verdicts on mathematics, the one kind that takes long to judge, are computed in the same way.

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

from toolkit.collect import CollectReport, CollectSettings, Progress, collect
from toolkit.errors import UserError
from toolkit.store import Standing, Store
from toolkit.teachers.protocol import Completion, Request

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit.teachers.kinds import TeacherConfig

Pair = tuple[str, str]
"""A predicted answer and the gold one."""

_FILLINGS = 100  # of a worker's window make a block: at its end the window drains, and nothing else waits for that
_PAIRS = 256  # in a block: seconds of judging, so that all workers end at nearly the same time
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
) -> CollectReport:
    """Collect round after round as `toolkit.collect.collect_rounds` does, with the workers of a Ray cluster.

    A worker has a CPU to itself, or a GPU for a teacher that is a model in its process. There are at most as many as
    requests may be in flight, and what `settings` allows is shared out evenly among them.

    Args:
        rounds: A round is drawn once all before it are in the store, and read to its end before it is asked.
        teacher: What each worker makes its teacher from.
        store: Where completions and failures go; on the disk of the machine that this runs on.
        settings: Window, retries and the failures allowed, all workers together.
        progress: Told twice a second; silent where None.

    Raises:
        UserError: As `collect`; also for a recorded teacher, which asks nobody, and where a block of requests keeps on
            killing its workers.
    """
    if teacher.kind == "recorded":
        raise UserError("--engine ray: a recorded teacher reads a file and asks nobody; leave the option out")
    report = CollectReport()
    for requests in rounds:
        report += _Round(teacher, store, settings, progress).run(requests)
    return report


def math_verdicts(pairs: Iterable[Pair]) -> dict[Pair, bool]:
    """Return `toolkit.math_equality.math_equal` of every pair, computed by the workers of a Ray cluster."""
    import pyarrow as pa
    import ray

    chosen = sorted(set(pairs))
    blocks = [chosen[start : start + _PAIRS] for start in range(0, len(chosen), _PAIRS)]
    if not blocks:
        return {}
    refs = [ray.put(pa.table({"pair": [pickle.dumps(pair) for pair in block]})) for block in blocks]
    verdicts: dict[Pair, bool] = {}
    for row in _rows(_dataset(refs).map_batches(_judge, batch_size=None, batch_format="pyarrow")):
        verdicts[pickle.loads(row["pair"])] = row["equal"]
    return verdicts


def _judge(block: pa.Table) -> dict[str, list[Any]]:
    from toolkit.math_equality import math_equal

    pairs = block["pair"].to_pylist()
    return {"pair": pairs, "equal": [math_equal(*pickle.loads(pair)) for pair in pairs]}


class _Round:
    """One round: its requests in blocks, asked for by workers, counted as `collect` counts."""

    def __init__(
        self, teacher: TeacherConfig, store: Store, settings: CollectSettings, progress: Progress | None
    ) -> None:
        import ray

        resources = ray.cluster_resources()
        self.on_gpu = teacher.kind == "transformers" and resources.get("GPU", 0) >= 1
        units = int(resources.get("GPU" if self.on_gpu else "CPU", 1))
        self.workers = max(1, min(units, settings.concurrency))
        self.teacher, self.store, self.settings, self.progress = teacher, store, settings, progress
        self.cached = 0

    def run(self, requests: Iterable[Request]) -> CollectReport:
        refs = list(self._blocks(requests))
        if not refs:
            return CollectReport(cached=self.cached)
        report = self._ask(refs)
        self._refuse_too_many_failures(report, refs)
        return report

    def _blocks(self, requests: Iterable[Request]) -> Iterator[Any]:
        """Put what the store lacks into Ray's object store, block by block; it spills to disk what memory cannot hold.

        A request goes to the part of the round that its digest names, one part for each worker.
        """
        import ray

        parts: list[list[Request]] = [[] for _ in range(self.workers)]
        size = _FILLINGS * _share(self.settings, self.workers).concurrency
        seen: set[bytes] = set()
        for request in requests:
            digest = bytes.fromhex(request.digest)
            if digest in seen or self.store.standing(request) == "answered":
                self.cached += 1
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

    def _ask(self, refs: list[Any]) -> CollectReport:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        writer: Any = ray.remote(_Writer).options(num_cpus=0, scheduling_strategy=here)
        writer = writer.remote(self.store.path.absolute())
        asked = _dataset(refs).map_batches(
            _Worker,
            fn_constructor_args=(self.teacher, _share(self.settings, self.workers), writer, self.store.path),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=self.workers, max_tasks_in_flight_per_actor=1),
            **({"num_gpus": 1} if self.on_gpu else {"num_cpus": 1}),
        )
        failed = 0
        try:
            with self._shown(writer):
                for row in _rows(asked):
                    if row["fault"]:
                        raise UserError(row["fault"])
                    failed += row["failed"]
            # The workers' own reports would miss what one asked before it died.
            brought: CollectReport = ray.get(writer.report.remote())
            return replace(brought, cached=self.cached, failed=failed)
        finally:
            ray.kill(writer)

    @contextmanager
    def _shown(self, writer: Any) -> Iterator[None]:
        """Ask the writer now and then what has come in, in a thread: the rows come only with whole blocks."""
        import ray

        if (progress := self.progress) is None:
            yield
            return
        done = threading.Event()

        def show() -> None:
            while not done.wait(_POLL_S):
                with contextlib.suppress(ray.exceptions.RayError):
                    brought = ray.get(writer.report.remote())
                    progress(self.cached + brought.asked, None, brought.failed)

        shown = threading.Thread(target=show, daemon=True)
        shown.start()
        try:
            yield
        finally:
            done.set()
            shown.join()

    def _refuse_too_many_failures(self, report: CollectReport, refs: list[Any]) -> None:
        import ray

        allowed, total = self.settings.max_failure_rate, report.cached + report.answered + report.failed
        if report.failed <= allowed * total:
            return
        reasons = Counter(self.store.failure(request) for ref in refs for request in _requests(ray.get(ref)))
        del reasons[None]
        common = "; ".join(f"{count}x {reason}" for reason, count in reasons.most_common(3))
        raise UserError(
            f"{report.failed} of {total} requests to the {self.teacher.kind} teacher got no completion, more than "
            f"max_failure_rate {allowed:g} allows. Most common: {common}. The answers are kept in {self.store.path}."
        )


class _Worker:
    """Asks for the requests of a block: the class of a Ray Data actor, which lives as long as a round."""

    def __init__(self, config: TeacherConfig, settings: CollectSettings, writer: Any, path: Path) -> None:
        from toolkit.teachers.kinds import make_teacher

        self._teacher, self._settings = make_teacher(config), settings
        self._writer, self._path = writer, path
        self._fault = ""

    def __call__(self, block: pa.Table) -> dict[str, list[Any]]:
        """Return one row: how many requests got no completion, and why asking stopped or an empty string."""
        report = CollectReport()
        requests = list(_requests(block))
        if not self._fault:  # what stopped one block would stop the next one, after a window of requests
            try:
                store: Any = _WrittenThrough(self._writer, self._path, requests)
                report = asyncio.run(collect(requests, self._teacher, store, self._settings))
            except UserError as error:
                self._fault = str(error)
        return {"failed": [report.failed], "fault": [self._fault]}


class _Writer:
    """The Ray actor that writes to the store, on the machine that has its disk."""

    def __init__(self, path: Path) -> None:
        self._store = Store(path)
        self._report = CollectReport()
        self._begun = Counter[str]()

    def begin(self, requests: list[Request]) -> dict[str, Standing | None]:
        """Return the standing of every request of a block, by digest."""
        first = requests[0].digest
        self._begun[first] += 1
        if self._begun[first] > _TRIES:
            raise UserError(f"a block of {len(requests)} requests has killed {_TRIES} workers one after the other")
        return {request.digest: self._store.standing(request) for request in requests}

    def failure(self, request: Request) -> str | None:
        return self._store.failure(request)

    def put_many(self, answers: list[tuple[Request, Completion]]) -> None:
        self._store.put_many(answers)
        tokens = [sum(getattr(completion, name) for _, completion in answers) for name in _TOKENS]
        self._report += CollectReport(len(answers), len(answers), 0, 0, *tokens)

    def put_failure(self, request: Request, reason: str, permanent: bool) -> None:
        self._store.put_failure(request, reason, permanent)
        self._report += CollectReport(asked=1, failed=1)

    def report(self) -> CollectReport:
        """Return what has come in, from all workers, those that died included."""
        return self._report


class _WrittenThrough:
    """What `collect` sees of the store in a worker: a block's standings when it begins, writes that wait for the disk.

    A block that is tried again, because its first worker died, so finds what that one had brought in.
    """

    def __init__(self, writer: Any, path: Path, requests: list[Request]) -> None:
        self.path = path
        self._writer = writer
        self._standings: dict[str, Standing | None] = self._call("begin", requests)

    def standing(self, request: Request) -> Standing | None:
        return self._standings[request.digest]

    def failure(self, request: Request) -> str | None:
        reason: str | None = self._call("failure", request)
        return reason

    def put_many(self, answers: Iterable[tuple[Request, Completion]]) -> None:
        self._call("put_many", list(answers))

    def put_failure(self, request: Request, reason: str, permanent: bool = False) -> None:
        self._call("put_failure", request, reason, permanent)

    def _call(self, name: str, *arguments: Any) -> Any:
        import ray

        try:
            return ray.get(getattr(self._writer, name).remote(*arguments))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None  # a UserError, as the store raised it


def _share(settings: CollectSettings, workers: int) -> CollectSettings:
    """Return what one of several workers may do, so that all together stay within the settings."""
    return settings.model_copy(update={"concurrency": settings.concurrency // workers, "max_failure_rate": 1.0})


def _table(requests: list[Request]) -> pa.Table:
    import pyarrow as pa

    columns = {"digest": [request.digest for request in requests], "request": [pickle.dumps(r) for r in requests]}
    return pa.table(columns)


def _requests(block: pa.Table) -> Iterator[Request]:
    return (pickle.loads(packed.as_py()) for packed in block["request"])


def _dataset(refs: list[Any]) -> Any:
    """Return a dataset of blocks, with Ray Data told to keep to itself what it does."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return ray.data.from_arrow_refs(refs)


def _rows(dataset: Any) -> Iterator[Mapping[str, Any]]:
    import ray

    try:
        yield from dataset.iter_rows()
    except ray.exceptions.RayError as error:
        raise UserError(
            f"--engine ray: the workers failed: {' '.join(str(error).split())}. Every answer that came in is kept; the "
            "same command asks only for the rest"
        ) from None
