"""The batch API of an OpenAI-compatible provider (`/v1/files` and `/v1/batches`), one exchange per call.

Which requests go into which batch, and what is done about failures, is for `toolkit.batches`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from toolkit.teachers.openai_compatible import OpenAITeacher, answer_to, encoded, parsed, status_failure
from toolkit.teachers.protocol import Completion, Request, TeacherError, refuse_contrast

COMPLETIONS = "/v1/chat/completions"

_OVER = {"completed", "failed", "expired", "cancelled"}
_MOST_LISTED = 100  # batches on a page; the API's own limit


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
        body = self._teacher.body(request)
        return encoded({"custom_id": request.digest, "method": "POST", "url": COMPLETIONS, "body": body}) + b"\n"

    async def upload(self, lines: list[bytes]) -> str:
        """Upload the input of a batch and return the file's id."""
        import aiohttp

        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", b"".join(lines), filename="requests.jsonl", content_type="application/jsonl")
        content = form()
        # Named, as the session's own type is that of JSON.
        headers = {"Content-Type": content.content_type}
        return _name(await self._json("POST", "/files", data=content, headers=headers))

    async def create(self, file_id: str) -> str:
        """Create a batch of an uploaded file and return its id."""
        asked = {"input_file_id": file_id, "endpoint": COMPLETIONS, "completion_window": "24h"}
        return _name(await self._json("POST", "/batches", data=encoded(asked)))

    async def find(self, file_id: str) -> str | None:
        """Return the id of the batch that was created of this file, if one was."""
        query: dict[str, str] = {"limit": str(_MOST_LISTED)}
        while True:
            page = await self._json("GET", "/batches", params=query)
            batches = [batch for batch in page.get("data") or [] if isinstance(batch, dict)]
            for batch in batches:
                if batch.get("input_file_id") == file_id:
                    return _name(batch)
            if not page.get("has_more") or not batches:
                return None
            query["after"] = _name(batches[-1])

    async def state(self, batch_id: str) -> BatchState:
        """Ask how a batch is doing."""
        said = await self._json("GET", f"/batches/{batch_id}")
        names = (said.get("output_file_id"), said.get("error_file_id"))
        errors = said.get("errors")
        faults = [fault for fault in (errors.get("data") or []) if isinstance(fault, dict)] if errors else []
        return BatchState(
            str(said.get("status")),
            tuple(name for name in names if isinstance(name, str) and name),
            frozenset(str(fault.get("code")) for fault in faults),
            "; ".join(dict.fromkeys(_fault_line(fault) for fault in faults[:3])) or "no reason given",
        )

    async def results(
        self, file_id: str, requests: Mapping[str, Request]
    ) -> AsyncGenerator[tuple[Request | None, Completion | TeacherError], None]:
        """Read a file of results line by line, as it arrives; the request is None where a line names none of these."""
        async with self._teacher.exchange("GET", f"/files/{file_id}/content") as response:
            rest = b""
            # By hand: aiohttp's own lines are limited in length, and those of text also end where Unicode says so.
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield self._result(line, requests)
            if rest.strip():
                yield self._result(rest, requests)

    def _result(self, line: bytes, requests: Mapping[str, Request]) -> tuple[Request | None, Completion | TeacherError]:
        try:
            said = parsed(self._teacher.without_key(line))
            request = requests.get(str(said.get("custom_id"))) if isinstance(said, dict) else None
            if request is None:
                return None, TeacherError("retry", "a result of a request that nobody asked for")
        except TeacherError as error:
            return None, error
        try:
            return request, _answer(request, said)
        except TeacherError as error:
            return request, self._teacher.failure(error)

    async def _json(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        async with self._teacher.exchange(method, path, **content) as response:
            said = parsed(await response.read())
        if not isinstance(said, dict):
            raise TeacherError("retry", "the response is not a JSON object")
        return said


def _answer(request: Request, said: dict[str, Any]) -> Completion:
    response, error = said.get("response"), said.get("error")
    if isinstance(response, dict):
        status = response.get("status_code")
        if isinstance(status, int) and status >= 300:
            raise status_failure(status, response.get("body"))
        return replace(answer_to(request, response.get("body")), batched=True)
    fault = _fault_line(error) if isinstance(error, dict) else "neither response nor error"
    raise TeacherError("retry", f"not answered in its batch: {fault}")


def _fault_line(fault: dict[str, Any]) -> str:
    line = f"line {fault['line']}: " if isinstance(fault.get("line"), int) else ""
    return " ".join(f"{line}{fault.get('message')} ({fault.get('code')})".split())


def _name(said: dict[str, Any]) -> str:
    name = said.get("id")
    if not isinstance(name, str) or not name:
        raise TeacherError("retry", f"the response names nothing: {json.dumps(said)[:100]}")
    return name
