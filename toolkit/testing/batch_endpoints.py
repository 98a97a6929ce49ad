"""The fault server's files and batches: the provider batch API with scripted states and scripted disorder."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aiohttp import web

from toolkit import draws
from toolkit.testing.replies import Reply, fault

Ending = Literal["completed", "failed", "expired"]


@dataclass(frozen=True)
class BatchScript:
    """What becomes of one batch.

    Attributes:
        waits: States that are reported before its end, one for each time it is looked at.
        end: How it ends. A batch that `failed` answers nothing; one that `expired` answers a part.
        answered: Share of its lines that are answered before it expires or is cancelled.
        disordered: Whether the lines of its output stand in another order than those of its input.
        unknown: Lines of output with a custom_id that nobody asked for.
        repeated: Lines of output that come twice.
        garbage: Lines of output that are not JSON.
    """

    waits: tuple[str, ...] = ("validating", "in_progress")
    end: Ending = "completed"
    answered: float = 0.5
    disordered: bool = True
    unknown: int = 0
    repeated: int = 0
    garbage: int = 0


@dataclass
class _Batch:
    script: BatchScript
    shown: dict[str, Any]
    request: web.BaseRequest
    looks: int = 0


class BatchEndpoints:
    """`/v1/files` and `/v1/batches`.

    Args:
        scripts: What becomes of the first, second, ... batch; the last one stands for all that follow.
        answer: Answers the body of one line.
    """

    def __init__(self, scripts: Sequence[BatchScript], answer: Callable[[bytes, web.BaseRequest], Reply]) -> None:
        self._scripts = scripts
        self._answer = answer
        self._files: dict[str, tuple[dict[str, Any], bytes]] = {}
        self._batches: dict[str, _Batch] = {}

    async def handle(self, request: web.BaseRequest) -> Reply:
        """Do what the request asks for."""
        match [request.method, *path_of(request).removeprefix("/v1/").split("/")]:
            case ["POST", "files"]:
                form = await request.post()
                upload = form["file"]
                content = upload.file.read() if isinstance(upload, web.FileField) else str(upload).encode()
                return _json(self._add_file(content, str(form.get("purpose", ""))))
            case ["GET", "files"]:
                return _list([shown for shown, _ in self._files.values()])
            case ["GET", "files", name] if name in self._files:
                return _json(self._files[name][0])
            case ["GET", "files", name, "content"] if name in self._files:
                return Reply(self._files[name][1], content_type="application/octet-stream")
            case ["DELETE", "files", name] if name in self._files:
                del self._files[name]
                return _json({"id": name, "object": "file", "deleted": True})
            case ["POST", "batches"]:
                return self._create(json.loads(await request.read()), request)
            case ["GET", "batches"]:
                return _list([batch.shown for batch in reversed(self._batches.values())])
            case ["GET", "batches", name] if name in self._batches:
                return _json(self._look(self._batches[name]))
            case ["POST", "batches", name, "cancel"] if name in self._batches:
                return self._cancel(self._batches[name])
        return fault(404, f"No such address or object: {request.method} {request.path}")

    def _add_file(self, content: bytes, purpose: str) -> dict[str, Any]:
        name = f"file-{len(self._files) + 1}"
        shown = {
            "id": name,
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": f"{name}.jsonl",
            "purpose": purpose,
            "status": "processed",
        }
        self._files[name] = (shown, content)
        return shown

    def _create(self, asked: dict[str, Any], request: web.BaseRequest) -> Reply:
        if asked.get("input_file_id") not in self._files:
            return fault(400, f"No such file: {asked.get('input_file_id')}")
        script = self._scripts[min(len(self._batches), len(self._scripts) - 1)]
        shown = {
            "id": f"batch-{len(self._batches) + 1}",
            "object": "batch",
            "endpoint": asked.get("endpoint"),
            "input_file_id": asked["input_file_id"],
            "completion_window": asked.get("completion_window"),
            "metadata": asked.get("metadata"),
            "created_at": int(time.time()),
            "status": "validating",
            "errors": None,
            "output_file_id": None,
            "error_file_id": None,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
        }
        self._batches[shown["id"]] = _Batch(script, shown, request)
        return _json(shown)

    def _look(self, batch: _Batch) -> dict[str, Any]:
        if batch.looks <= len(batch.script.waits):
            batch.looks += 1
            if batch.looks <= len(batch.script.waits):
                batch.shown["status"] = batch.script.waits[batch.looks - 1]
            elif batch.shown["status"] != "cancelled":
                self._finish(batch, batch.script.end)
        return batch.shown

    def _cancel(self, batch: _Batch) -> Reply:
        if batch.looks > len(batch.script.waits):
            return fault(409, f"Cannot cancel a batch with status {batch.shown['status']!r}")
        batch.looks = len(batch.script.waits) + 1
        self._finish(batch, "cancelled")
        return _json({**batch.shown, "status": "cancelling"})

    def _finish(self, batch: _Batch, end: str) -> None:
        batch.shown["status"] = end
        lines = self._files[batch.shown["input_file_id"]][1].splitlines()
        faults = _faults_of(lines)
        if end == "failed" or faults:
            faults = faults or [{"code": "scripted_failure", "message": "scripted failure", "line": None}]
            batch.shown |= {"status": "failed", "errors": {"object": "list", "data": faults}}
            return
        reached = len(lines) if end == "completed" else int(batch.script.answered * len(lines))
        results = [self._result(json.loads(line), batch) for line in lines[:reached]]
        output = [result for result in results if result["error"] is None and result["response"]["status_code"] == 200]
        errors = [result for result in results if result not in output]
        missed = {"code": "batch_expired", "message": "This request could not be executed before the window ended."}
        if end == "expired":
            errors += [_line(json.loads(line)["custom_id"], None, missed) for line in lines[reached:]]
        counts = {"total": len(lines), "completed": len(output), "failed": len(errors)}
        batch.shown["request_counts"] = counts
        if output:
            content = self._disorder(output, batch)
            batch.shown["output_file_id"] = self._add_file(content, "batch_output")["id"]
        if errors:
            content = b"".join(json.dumps(line).encode() + b"\n" for line in errors)
            batch.shown["error_file_id"] = self._add_file(content, "batch_output")["id"]

    def _result(self, line: dict[str, Any], batch: _Batch) -> dict[str, Any]:
        reply = self._answer(json.dumps(line["body"]).encode(), batch.request)
        try:
            body = json.loads(reply.body)
        except ValueError:
            return _line(line["custom_id"], None, {"code": "server_error", "message": "scripted fault"})
        return _line(line["custom_id"], {"status_code": reply.status, "request_id": "r", "body": body}, None)

    def _disorder(self, output: list[dict[str, Any]], batch: _Batch) -> bytes:
        script, name = batch.script, batch.shown["id"]
        lines = [json.dumps(line).encode() for line in output]
        lines += lines[: script.repeated]
        lines += [json.dumps({**output[0], "custom_id": f"unknown-{n}"}).encode() for n in range(script.unknown)]
        lines += [b'{"id": "batch_req", "custom_'] * script.garbage
        order = draws.order(len(lines), "batch", name) if script.disordered else range(len(lines))
        return b"".join(lines[place] + b"\n" for place in order)


def path_of(request: web.BaseRequest) -> str:
    """Return the path of a request as OpenAI has it; Azure's are `/openai/files` and `/openai/deployments/NAME/...`."""
    return re.sub("^/openai/(deployments/[^/]+/)?", "/v1/", request.path)


def _faults_of(lines: list[bytes]) -> list[dict[str, Any]]:
    faults: list[dict[str, Any]] = []
    seen = set()
    for number, line in enumerate(lines, 1):
        try:
            asked = json.loads(line)
            name = asked["custom_id"]
            assert isinstance(asked["body"], dict)
            assert (asked["method"], asked["url"].removeprefix("/v1")) == ("POST", "/chat/completions")
        except (ValueError, KeyError, TypeError, AssertionError):
            faults.append({"code": "invalid_request", "message": "not a request", "line": number})
            continue
        if name in seen:
            faults.append({"code": "duplicate_custom_id", "message": f"{name} stands twice", "line": number})
        seen.add(name)
    return faults


def _line(custom_id: str, response: dict[str, Any] | None, error: dict[str, Any] | None) -> dict[str, Any]:
    return {"id": f"batch_req_{custom_id}", "custom_id": custom_id, "response": response, "error": error}


def _json(shown: dict[str, Any]) -> Reply:
    return Reply(json.dumps(shown).encode())


def _list(shown: list[dict[str, Any]]) -> Reply:
    return _json({"object": "list", "data": shown, "has_more": False})
