"""The batch API of an OpenAI-compatible provider (`/v1/files` and `/v1/batches`), one exchange per call.

Which requests go into which batch, and what is done about failures, is for `toolkit.batches`.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from toolkit.teachers.openai_compatible import OpenAITeacher, answer_to, encoded
from toolkit.teachers.openai_failures import ParameterRefused, UnknownModel, status_failure, words
from toolkit.teachers.protocol import Completion, Request, TeacherError, refuse_contrast
from toolkit.teachers.response_bodies import too_large

if TYPE_CHECKING:
    import openai

_OVER = {"completed", "failed", "expired", "cancelled"}
_MOST_LISTED = 100  # batches on a page; the API's own limit
_CUSTOM_ID = re.compile(rb'"custom_id"\s*:\s*"([0-9a-f]{64})"')
_HEAD = 500  # bytes of a line within which it names its request


@dataclass(frozen=True)
class BatchState:
    """What the provider says about a batch.

    Attributes:
        status: `completed`, `failed`, `expired`, `cancelled`, or a name of something that is still going on.
        results: Files with results, that of the answers before that of the errors.
        faults: Codes of what was wrong with the batch as a whole.
        said: The same in the provider's words, one line.
    """

    status: str
    results: tuple[str, ...] = ()
    faults: frozenset[str] = frozenset()
    said: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in _OVER


class BatchEndpoint:
    """The batch API at a teacher's address, with its key and its way of reading answers and errors.

    Every method raises `TeacherError`, `fatal` and `permanent` both meaning that trying again will not help.
    """

    def __init__(self, teacher: OpenAITeacher) -> None:
        self._teacher = teacher

    @property
    def address(self) -> str:
        """Address of the provider, up to and including `/v1`."""
        return self._teacher.address

    def line(self, request: Request) -> bytes:
        """Return a request as a line of a batch's input, its digest being the name of the result."""
        refuse_contrast(request, self._teacher.kind)
        body = self._teacher.batch_body(request)
        url = self._teacher.batch_path
        return encoded({"custom_id": request.digest, "method": "POST", "url": url, "body": body}) + b"\n"

    async def upload(self, lines: list[bytes]) -> str:
        """Upload the input of a batch and return the file's id."""
        file = ("requests.jsonl", b"".join(lines), "application/jsonl")
        return _name(
            await self._said(lambda client: client.files.with_streaming_response.create(file=file, purpose="batch"))
        )

    async def create(self, file_id: str) -> str:
        """Create a batch of an uploaded file and return its id."""
        asked: dict[str, Any] = {"input_file_id": file_id, "endpoint": self._teacher.batch_path}
        return _name(
            await self._said(
                lambda client: client.batches.with_streaming_response.create(**asked, completion_window="24h")
            )
        )

    async def find(self, file_id: str) -> str | None:
        """Return the id of the batch that was created of this file, if one was."""
        query: dict[str, Any] = {"limit": _MOST_LISTED}
        while True:
            page = await self._said(lambda client: client.batches.with_streaming_response.list(**query))
            listed = page.get("data")
            batches = [batch for batch in listed if isinstance(batch, dict)] if isinstance(listed, list) else []
            for batch in batches:
                if batch.get("input_file_id") == file_id:
                    return _name(batch)
            if not page.get("has_more") or not batches:
                return None
            query["after"] = _name(batches[-1])

    async def state(self, batch_id: str) -> BatchState:
        """Ask how a batch is doing."""
        said = await self._said(lambda client: client.batches.with_streaming_response.retrieve(batch_id))
        names = (said.get("output_file_id"), said.get("error_file_id"))
        errors = said.get("errors")
        listed = errors.get("data") if isinstance(errors, dict) else None
        faults = [fault for fault in listed if isinstance(fault, dict)] if isinstance(listed, list) else []
        return BatchState(
            str(said.get("status")),
            tuple(name for name in names if isinstance(name, str) and name),
            frozenset(str(fault.get("code")) for fault in faults),
            "; ".join(dict.fromkeys(_fault_line(fault) for fault in faults[:3])) or "no reason given",
        )

    async def results(
        self, file_id: str, requests: Mapping[str, Request]
    ) -> AsyncGenerator[tuple[Request | None, Completion | TeacherError], None]:
        """Read a file of results line by line, as it arrives; the request is None where a line names none of these.

        A line that is larger than a response may be is read no further than that, and the failure of its request.
        """
        async with self._teacher.exchange(
            lambda client: client.files.with_streaming_response.content(file_id)
        ) as response:
            async for line, is_whole in _lines(response.iter_bytes(), self._teacher.most_bytes):
                if is_whole and line.strip():
                    yield self._result(line, requests)
                elif not is_whole:
                    named = _CUSTOM_ID.search(line[:_HEAD])
                    failure = self._teacher.failure(too_large(self._teacher.most_bytes))
                    yield requests.get(named[1].decode()) if named else None, failure

    def _result(self, line: bytes, requests: Mapping[str, Request]) -> tuple[Request | None, Completion | TeacherError]:
        try:
            said = self._teacher.parsed(line)
            request = requests.get(str(said.get("custom_id"))) if isinstance(said, dict) else None
            if request is None:
                return None, TeacherError("retry", "a result of a request that nobody asked for")
        except (TeacherError, RecursionError) as error:
            return None, self._teacher.failure(error)
        body = self._teacher.batch_body(request)
        try:
            completion = _answer(request, said, body)
        except TeacherError as error:
            return request, self._teacher.failure(error)
        self._teacher.accept(body)
        return request, completion

    async def _said(self, call: Callable[[openai.AsyncOpenAI], AbstractAsyncContextManager[Any]]) -> dict[str, Any]:
        async with self._teacher.exchange(call) as response:
            said = self._teacher.parsed(b"".join([piece async for piece in response.iter_bytes()]))
        if not isinstance(said, dict):
            raise TeacherError("retry", f"the response is not a JSON object: {words(said)[:100]}")
        return said


async def _lines(pieces: AsyncIterator[bytes], most: int) -> AsyncIterator[tuple[bytes, bool]]:
    """Yield lines, and whether each is whole: one that is longer than `most` bytes ends there, and its rest is lost.

    By hand: lines of text also end where Unicode says so.
    """
    rest, is_lost = bytearray(), False
    async for piece in pieces:
        *ended, last = piece.split(b"\n")
        for part in ended:
            if not is_lost:
                rest += part
                yield bytes(rest[:most]), len(rest) <= most
            rest, is_lost = bytearray(), False
        if is_lost:
            continue
        rest += last
        if len(rest) > most:
            yield bytes(rest[:most]), False
            rest, is_lost = bytearray(), True
    if rest:
        yield bytes(rest), True


def _answer(request: Request, said: dict[str, Any], body: Mapping[str, Any]) -> Completion:
    response, error = said.get("response"), said.get("error")
    if isinstance(response, dict):
        status = response.get("status_code")
        if isinstance(status, int) and status >= 300:
            raise status_failure(status, response.get("body"), sent=body)
        return replace(answer_to(request, response.get("body"), body), batched=True)
    if isinstance(error, dict):
        failure = status_failure(200, {"error": error}, sent=body)
        if failure.kind == "fatal" or isinstance(failure, ParameterRefused | UnknownModel):
            raise failure
    fault = _fault_line(error) if isinstance(error, dict) else "neither response nor error"
    raise TeacherError("retry", f"not answered in its batch: {fault}")


def _fault_line(fault: dict[str, Any]) -> str:
    line = f"line {fault['line']}: " if isinstance(fault.get("line"), int) else ""
    return words(f"{line}{fault.get('message')} ({fault.get('code')})")


def _name(said: dict[str, Any]) -> str:
    name = said.get("id")
    if not isinstance(name, str) or not name:
        raise TeacherError("retry", f"the response names nothing: {json.dumps(said)[:100]}")
    return name
