"""Asks a teacher from many processes or machines: `collect`, run by the workers of a Ray Data dataset.

Requests that the store lacks are the dataset's rows. A worker asks for a block of them with a teacher of its own and the
ordinary engine, and hands every commit to one writer beside the store before a row counts as done. So there is one store
with the same keys as ever: nothing to merge, and nothing lost with a worker, with its machine or with the driver but the
requests in flight. Verdicts on mathematics, the one kind that takes long to judge, are computed in the same way.

Ray is imported when something is run. A teacher's key is read from the environment of each worker and is in no task.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
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
_TRIES = 5  # of a block whose worker died, so that one that kills its workers does not pay for windows for ever
_POLL_S = 0.5


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
        ray.init(log_to_driver=False, logging_level="warning", include_dashboard=False)
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
        report = CollectReport(cached=self.cached)
        if refs:
            report += self._ask(refs)
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
        writer = ray.remote(_Writer).options(num_cpus=0, scheduling_strategy=here).remote(self.store.path.absolute())
        asked = _dataset(refs).map_batches(
            _Worker,
            fn_constructor_args=(self.teacher, _share(self.settings, self.workers), writer, self.store.path),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=self.workers, max_tasks_in_flight_per_actor=1),
            max_task_retries=_TRIES,
            **({"num_gpus": 1} if self.on_gpu else {"num_cpus": 1}),
        )
        report = CollectReport()
        try:
            with self._shown(writer):
                for row in _rows(asked):
                    if row["fault"]:
                        raise UserError(row["fault"])
                    report += CollectReport(**row["report"])
        finally:
            ray.kill(writer)
        return report

    @contextmanager
    def _shown(self, writer: Any) -> Iterator[None]:
        """Ask the writer now and then what has come in, in a thread: the rows come only with whole blocks."""
        import ray

        done = threading.Event()

        def show() -> None:
            while not done.wait(_POLL_S):
                with contextlib.suppress(ray.exceptions.RayError):
                    answered, failed = ray.get(writer.counted.remote())
                    self.progress(self.cached + answered + failed, None, failed)

        if self.progress is None:
            yield
            return
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
        """Return one row: what `collect` reports, and why it stopped or an empty string."""
        report = CollectReport()
        requests = list(_requests(block))
        if not self._fault:  # what stopped one block would stop the next one, after a window of requests
            store: Any = _WrittenThrough(self._writer, self._path, requests)
            try:
                report = asyncio.run(collect(requests, self._teacher, store, self._settings))
            except UserError as error:
                self._fault = str(error)
        return {"report": [asdict(report)], "fault": [self._fault]}


class _Writer:
    """The Ray actor that writes to the store, on the machine that has its disk."""

    def __init__(self, path: Path) -> None:
        self._store = Store(path)
        self._answered = self._failed = 0

    def standings(self, requests: list[Request]) -> list[Standing | None]:
        return [self._store.standing(request) for request in requests]

    def failure(self, request: Request) -> str | None:
        return self._store.failure(request)

    def put_many(self, answers: list[tuple[Request, Completion]]) -> None:
        self._store.put_many(answers)
        self._answered += len(answers)

    def put_failure(self, request: Request, reason: str, permanent: bool) -> None:
        self._store.put_failure(request, reason, permanent)
        self._failed += 1

    def counted(self) -> tuple[int, int]:
        """Return the answers and the failures that came in."""
        return self._answered, self._failed


class _WrittenThrough:
    """What `collect` sees of the store in a worker: standings as of the block's begin, and writes that wait for the disk.

    A block that is tried again, because its first worker died, so finds what that one had brought in.
    """

    def __init__(self, writer: Any, path: Path, requests: list[Request]) -> None:
        self.path = path
        self._writer = writer
        standings = self._call("standings", requests)
        self._standings = {request.digest: found for request, found in zip(requests, standings, strict=True)}

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

        return ray.get(getattr(self._writer, name).remote(*arguments))


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
