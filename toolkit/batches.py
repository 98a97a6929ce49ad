"""Collecting through a provider's batch API: cheaper, and done within a day. A mode of the engine in `toolkit.collect`.

What is asked, what an answer is and where it goes are those of the other mode, so that both go on from what either has
left. A batch lives at the provider whatever becomes of this process. Therefore each has a record on disk, in a folder
beside the store, from before it is created until its results are in the store:

1. The requests are uploaded as a file, which costs nothing and may be lost.
2. The record is written: the file's name at the provider and the requests.
3. The batch is created of that file. If its name never arrives, because the connection broke or the process died, the
   batch is looked for among all batches by its file before another one is created.
4. The name is added to the record. From here on the batch is looked at until it is over.
5. When everything in its results is in the store, the record is deleted.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, TypeVar

from toolkit.collect import Collection
from toolkit.errors import UserError
from toolkit.store_writing import Outcome
from toolkit.teachers.openai_batches import BatchEndpoint, BatchState
from toolkit.teachers.openai_compatible import OpenAITeacher
from toolkit.teachers.protocol import Completion, Request, Sampling, TeacherError

logger = logging.getLogger(__name__)
T = TypeVar("T")

_MOST_BYTES = 200_000_000  # of a file: OpenAI's limit
_SETTLE_S = 30.0  # after which a batch that was asked for stands in the list of batches, or never will
_QUEUE_FULL = "token_limit_exceeded"  # of a batch that has to wait for others of the same account
_SAVED_TOGETHER = 1000


class Submission:
    """The record of one batch: JSON Lines of where it is, its requests, and at last its name.

    Attributes:
        path: The file.
        address: Address of the provider.
        file: Name of the batch's input at the provider.
        batch: Name of the batch there; None where it may not have been created.
        open_digests: Requests whose results are still to be had.
    """

    def __init__(self, path: Path, address: str, file: str, batch: str | None, open_digests: Iterable[str]) -> None:
        self.path, self.address, self.file, self.batch = path, address, file, batch
        self.open_digests = set(open_digests)

    @classmethod
    def written(cls, folder: Path, address: str, file: str, requests: list[Request]) -> Submission:
        """Write the record of a batch that is about to be created; it is on disk when this returns."""
        folder.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(path.stem) for path in _records(folder)), default=0)
        path = folder / f"{number:04d}.jsonl"
        partial = path.with_suffix(".partial")
        with partial.open("w", encoding="ascii") as record:
            for line in ({"address": address, "file": file}, *map(asdict, requests)):
                record.write(json.dumps(line) + "\n")
            _to_disk(record)
        partial.replace(path)
        with suppress(PermissionError):  # of systems that open no folders
            descriptor = os.open(folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        return cls(path, address, file, None, (request.digest for request in requests))

    @classmethod
    def read_all(cls, folder: Path) -> list[Submission]:
        """Read the records in a folder; there may be none.

        Raises:
            UserError: A file there is no such record.
        """
        return [cls._read(path) for path in _records(folder)]

    @classmethod
    def _read(cls, path: Path) -> Submission:
        try:
            lines = _lines(path)
            head = next(lines)
            batch = None
            digests = []
            for line in lines:
                if "batch" in line:
                    batch = str(line["batch"])
                else:
                    digests.append(_request(line).digest)
            return cls(path, head["address"], head["file"], batch, digests)
        except (ValueError, TypeError, KeyError, StopIteration) as error:
            raise UserError(
                f"{path}: not the record of a batch ({error!r}). Delete it if its answers may be paid for again"
            ) from None

    def requests(self) -> dict[str, Request]:
        """Return the requests whose results are still to be had, by digest."""
        read = (_request(line) for line in itertools.islice(_lines(self.path), 1, None) if "batch" not in line)
        return {request.digest: request for request in read if request.digest in self.open_digests}

    def add_batch(self, batch: str) -> None:
        """Add the name of the batch, on disk when this returns."""
        self.batch = batch
        with self.path.open("a", encoding="ascii") as record:
            record.write("\n" + json.dumps({"batch": batch}) + "\n")  # the first break ends what a power cut has left
            _to_disk(record)


class BatchCollection(Collection):
    """State of one run that asks through the batch API.

    The batches that earlier runs have left are part of it from the start, so that what they cost is set aside before
    anybody spends it.

    Raises:
        UserError: The teacher has no batch API, or a batch's record cannot be read.
    """

    goes_on = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if not isinstance(self.teacher, OpenAITeacher):
            raise UserError(
                "collect.mode: found 'batch', which needs one teacher of kind 'openai' with one base_url; "
                f"this teacher is {self.teacher.kind}"
            )
        self.endpoint = BatchEndpoint(self.teacher)
        self.folder = self.store.path.with_name(self.store.path.name + ".batches")
        self.is_taken_up = False
        self.live: list[Submission] = []
        self.most_live: int | None = None
        self.elsewhere: dict[str, Submission] = {}
        self.again: deque[Request] = deque()
        self.tries: Counter[str] = Counter()
        self.unreserved: set[str] = set()
        self.refusal: TeacherError | None = None
        self._set_aside_left()

    async def _ask_all(self, requests: Iterator[Request | None]) -> None:
        try:
            if not self.is_taken_up:
                await self._take_up()
            await self._go_through(request for request in requests if request is not None)
        except TeacherError as error:
            refusal = error
            self._stop(lambda: self._unavailable(refusal))
        except asyncio.CancelledError:
            if self.live:
                logger.warning("%s", self._going_on())
            raise
        finally:
            await self.writer.drain()

    async def _open(self) -> None:
        if self.is_open:
            return
        await super()._open()
        # Until here, somebody else may have been collecting: what there is now stays.
        if self.ledger is not None:
            self.ledger.release()
        self._set_aside_left()

    async def _take_up(self) -> None:
        """Go on with the batches that an earlier run has left."""
        for submission in list(self.live):
            if not submission.open_digests:
                self._forget(submission)
            elif submission.batch is None:
                await self._create(submission, is_in_doubt=True)
        self.is_taken_up = True

    def _set_aside_left(self) -> None:
        """See what earlier runs' batches have still to answer, and set its cost aside before anything new is asked."""
        self.live.clear()
        self.elsewhere.clear()
        self.unreserved.clear()
        for submission in Submission.read_all(self.folder):
            self._set_aside(submission)

    def _set_aside(self, submission: Submission) -> None:
        requests = submission.requests()
        if any(request.model != self.teacher.model for request in requests.values()):
            return  # its own teacher takes it up, at its price
        submission.open_digests = {
            digest for digest, request in requests.items() if self.store.standing(request) != "answered"
        }
        if submission.address != self.endpoint.address:
            self.elsewhere |= dict.fromkeys(submission.open_digests, submission)
            return
        self.live.append(submission)
        # In the order in which they were sent: where money runs short, it is the last ones that have none set aside.
        still_open = [digest for digest in requests if digest in submission.open_digests]
        self.unreserved |= {digest for digest in still_open if not self._reserve(requests[digest])}

    async def _go_through(self, requests: Iterator[Request]) -> None:
        """Submit, look and wait, until none of these requests is open."""
        await self._submit(requests)
        wait = self.settings.poll_seconds
        while self.open_digests and self.ending is None:
            if not self.live and not (self.ledger is not None and self.ledger.reserved):
                self._stop(self._cap_reached)
            elif await self._look():
                await self._submit(requests)
                wait = self.settings.poll_seconds
            else:
                await self.sleep(wait)
                wait = min(2 * wait, max(self.settings.max_wait, self.settings.poll_seconds))
                if not self.live:  # all that is left below the cap was set aside by another teacher's run
                    await self._submit(requests)

    async def _submit(self, requests: Iterator[Request]) -> None:
        """Send a batch after the other, until nothing is left to be asked, or the cap or the provider wants no more."""
        while self.most_live is None or len(self.live) < self.most_live:
            chosen: dict[Request, bytes] = {}
            submission = None
            try:
                await self._choose(requests, chosen)
                if not chosen or self.ending is not None:
                    return
                file = await self._patiently(self.endpoint.upload, list(chosen.values()))
                submission = Submission.written(self.folder, self.endpoint.address, file, list(chosen))
            finally:
                if submission is None:
                    self._release(chosen)
            self.live.append(submission)
            self.tally.in_flight += len(chosen)
            self._tell()
            await self._create(submission, is_in_doubt=False)

    async def _choose(self, requests: Iterator[Request], chosen: dict[Request, bytes]) -> None:
        """Take what goes into the next batch, in the order in which it comes, and set its cost aside."""
        size = 0
        held = {digest for submission in self.live for digest in submission.open_digests}
        while len(chosen) < self.settings.batch_size:
            request = self.again.popleft() if self.again else next(requests, None)
            if request is None:
                break
            if request.digest in held:  # of a batch that was taken up
                self.tally.in_flight += 1
                continue
            self._refuse_elsewhere(request)
            try:
                line = self.endpoint.line(request)
            except TeacherError as error:
                if error.kind == "fatal":
                    raise
                await self.writer.save(request, error)
                continue
            if (chosen and size + len(line) > _MOST_BYTES) or not self._reserve(request):
                self.again.appendleft(request)
                break
            self.unreserved.discard(request.digest)
            chosen[request] = line
            size += len(line)

    async def _create(self, submission: Submission, is_in_doubt: bool) -> None:
        """Create a submission's batch, and only one, even where the provider's answer is lost."""
        for attempt in itertools.count(1):
            batch = await self._find(submission) if is_in_doubt else None
            try:
                submission.add_batch(batch or await self.endpoint.create(submission.file))
                return
            except TeacherError as error:
                if error.kind != "retry":  # it said no: there is none
                    self._release(submission.requests().values())
                    self._forget(submission)
                if error.kind != "retry" or attempt >= self.settings.max_attempts:
                    raise
                is_in_doubt = True

    async def _find(self, submission: Submission) -> str | None:
        found = await self._patiently(self.endpoint.find, submission.file)
        if found is None:
            await self.sleep(_SETTLE_S)
            found = await self._patiently(self.endpoint.find, submission.file)
        return found

    async def _look(self) -> bool:
        """Ask after every batch and take the results of those that are over; return whether there were any."""
        is_news = False
        for submission in list(self.live):
            try:
                state = await self._patiently(self.endpoint.state, submission.batch)
                if not state.is_over:
                    continue
                await self._finish(submission, state)
            except TeacherError as error:
                if error.kind != "retry":  # a batch or its results are not there, or not for this key
                    error.reason += f"; to give up batch {submission.batch}, delete {submission.path}"
                raise
            if self.refusal is not None:
                raise self.refusal
            is_news = True
        return is_news

    async def _finish(self, submission: Submission, state: BatchState) -> None:
        """Take all results of a batch that is over, and only then forget it."""
        requests = submission.requests()
        if state.status == "failed":
            unread = TeacherError("retry", f"its batch was refused: {state.said}")
            self.tries.subtract(submission.open_digests)  # this was no try: nothing was asked
            self.most_live = len(self.live) - 1
            if _QUEUE_FULL not in state.faults or not self.most_live:
                self.refusal = TeacherError("fatal", f"a batch was refused: {state.said}")
        else:
            # One that is completed should have all results. What it lacks may have been answered, billed and lost.
            is_lost = state.status == "completed"
            unread = TeacherError("retry", f"no result in a batch that is {state.status}", billed=is_lost)
            for file in state.results:
                await self._patiently(self._read, file, requests, submission)
        for digest in [digest for digest in requests if digest in submission.open_digests]:
            self._take(submission, requests[digest], unread)
        await self.writer.drain()
        if self.ending is None:  # else the disk refused
            self._forget(submission)

    async def _read(self, file: str, requests: dict[str, Request], submission: Submission) -> None:
        """Take a file of results; what was taken already, when the connection broke, is passed over."""
        seen: set[str] = set()
        ignored = 0
        async with aclosing(self.endpoint.results(file, requests)) as results:
            async for request, outcome in results:
                if request is None or request.digest in seen:
                    ignored += 1
                    continue
                seen.add(request.digest)
                if request.digest in submission.open_digests:
                    saved = self._take(submission, request, outcome)
                    if saved is not None and len(seen) % _SAVED_TOGETHER == 0:
                        await saved
        if ignored:
            logger.warning("batch %s: ignored %d lines that name no request, or one twice", submission.batch, ignored)

    def _take(self, submission: Submission, request: Request, outcome: Outcome) -> Awaitable[None] | None:
        """Count what became of a request in a batch; return when it is on disk, where it goes there."""
        submission.open_digests.discard(request.digest)
        self._settled(request, outcome)
        is_wanted = request.digest in self.open_digests  # by this round; batches of others are taken up as well
        if is_wanted:
            self.tally.in_flight -= 1
        if isinstance(outcome, TeacherError) and outcome.kind != "permanent":
            if outcome.kind == "fatal":
                self.refusal = self.refusal or outcome
                return None
            self.tries[request.digest] += 1
            if not is_wanted:
                return None
            if (tries := self.tries[request.digest]) < self.settings.max_attempts:
                self.again.append(request)
                return None
            outcome = TeacherError("retry", f"{outcome.reason} ({tries} tries)")
        return self.writer.save(request, outcome)

    def _written(self, request: Request, outcome: Outcome) -> None:
        if request.digest in self.open_digests:
            super()._written(request, outcome)

    def _tell(self) -> None:
        self.tally.window = self.tally.in_flight  # the provider takes what there is
        super()._tell()

    def _reserve(self, request: Request) -> bool:
        return self.ledger is None or self.ledger.reserve(request)

    def _release(self, requests: Iterable[Request]) -> None:
        """Have what was set aside for requests that were not sent."""
        for request in requests:
            self._settled(request, TeacherError("retry", "not sent"))

    def _settled(self, request: Request, outcome: Outcome) -> None:
        if self.ledger is None:
            return
        if request.digest not in self.unreserved:
            self.ledger.settle(request, outcome)
        elif isinstance(outcome, Completion):  # submitted below a cap that was higher
            self.ledger.remember(outcome, request)
        elif outcome.billed:
            self.ledger.lose(request)

    def _refuse_elsewhere(self, request: Request) -> None:
        if other := self.elsewhere.get(request.digest):
            raise UserError(
                f"{other.path}: a batch at {other.address} holds requests of this run, which asks "
                f"{self.endpoint.address}. Have it collected there first, or delete the file and pay for them again"
            )

    def _forget(self, submission: Submission) -> None:
        self.live.remove(submission)
        submission.path.unlink(missing_ok=True)
        with suppress(OSError):  # of a folder that is not empty
            self.folder.rmdir()

    async def _patiently(self, call: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Return what a call brings, trying again what may help."""
        for attempt in itertools.count(1):
            try:
                return await call(*arguments)
            except TeacherError as error:
                wait = self._wait_after(attempt, error, None) if error.kind == "retry" else error
            if isinstance(wait, TeacherError):
                raise wait
            await self.sleep(wait)
        raise AssertionError("itertools.count never ends")

    def _kept(self) -> str:
        return f"{super()._kept()} {self._going_on()}" if self.live else super()._kept()

    def _going_on(self) -> str:
        number = sum(len(submission.open_digests) for submission in self.live)
        return (
            f"{number} requests to {self.teacher.model} in {len(self.live)} batches go on at {self.endpoint.address}; "
            "the same command waits for them and submits none of them again."
        )


def _records(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.jsonl"))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="ascii") as record:
        for line in record:
            if line.rstrip().endswith("}"):  # else what a power cut has left of the last one
                yield json.loads(line)


def _request(line: dict[str, Any]) -> Request:
    sampling = Sampling(**{**line["sampling"], "stop": tuple(line["sampling"]["stop"])})
    return Request(**{**line, "messages": tuple(map(tuple, line["messages"])), "sampling": sampling})


def _to_disk(record: IO[str]) -> None:
    record.flush()
    os.fsync(record.fileno())
