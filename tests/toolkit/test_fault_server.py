from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from typing import Any

import pytest

from toolkit.errors import UserError
from toolkit.problem_sources import ProceduralProblems, load_problems
from toolkit.teachers.procedural import ProceduralConfig
from toolkit.testing.batch_endpoints import BatchScript
from toolkit.testing.fault_server import FaultServer, Limits
from toolkit.testing.replies import FAULTS, Ask, fault, lognormal, procedural, scripted


def body(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": prompt}], "max_tokens": 100, **more}


def ask(prompt: str, attempt: int = 1) -> Ask:
    return Ask(json.dumps(body(prompt)).encode(), {}, 1, attempt)


def call(
    server: FaultServer, path: str, sent: Any = None, method: str | None = None, **headers: str
) -> tuple[int, Any]:
    """Ask the server without any client of ours; return status and body, or 0 where the connection broke."""
    data = sent if isinstance(sent, bytes | None) else json.dumps(sent).encode()
    request = urllib.request.Request(server.url + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except (OSError, ValueError) as error:  # a broken connection, or a body shorter than was announced
        return 0, str(error)


def chat(server: FaultServer, prompt: str, **headers: str) -> tuple[int, Any]:
    status, answer = call(server, "/chat/completions", body(prompt), **headers)
    return status, json.loads(answer) if status else answer


def test_an_answer_is_a_function_of_the_prompt_and_is_billed_as_it_says() -> None:
    with FaultServer() as server:
        answers = [chat(server, prompt)[1] for prompt in ("a?", "b?", "a?")]
    texts = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert texts[0] == texts[2] != texts[1]
    assert "Therefore, the answer is" in texts[0]
    billed = [usage.prompt_tokens + usage.completion_tokens for usage in server.usage.values()]
    said = [answer["usage"]["total_tokens"] for answer in answers]
    assert billed == [said[0] + said[2], said[1]]
    assert [(usage.arrived, usage.answered, usage.lost_tokens) for usage in server.usage.values()] == [
        (2, 2, 0),
        (1, 1, 0),
    ]


def test_a_completion_ends_at_max_tokens() -> None:
    with FaultServer() as server:
        _, answer = call(server, "/chat/completions", body("a?", max_tokens=5))
    answer = json.loads(answer)
    assert (answer["choices"][0]["finish_reason"], answer["usage"]["completion_tokens"]) == ("length", 5)


def test_a_lost_answer_is_billed_and_counted_as_lost() -> None:
    with FaultServer(scripted(faults={"reset": 1.0})) as server:
        assert call(server, "/chat/completions", body("a?"))[0] == 0
    (usage,) = server.usage.values()
    assert usage.answered == 0
    assert usage.lost_tokens == usage.prompt_tokens + usage.completion_tokens > 0


def test_faults_are_drawn_by_content_and_attempt_at_their_rates() -> None:
    script = scripted(faults=dict.fromkeys(FAULTS, 0.05), seed=3)
    tries = [ask(f"q{n}", attempt) for n in range(1000) for attempt in (1, 2)]
    first, second = [script(one) for one in tries], [script(one) for one in reversed(tries)][::-1]
    kinds = Counter((reply.status, reply.behaviour, reply.is_answer) for reply in first)
    assert [reply.body for reply in first] == [reply.body for reply in second]
    assert kinds[408, "answer", False] == pytest.approx(100, abs=40)
    assert kinds[200, "drip", True] == pytest.approx(100, abs=40)
    # What is no fault, and the fault of a repeated id, which comes with a good answer.
    assert kinds[200, "answer", True] == pytest.approx(2000 * (1 - 17 * 0.05), abs=100)


def test_an_unknown_fault_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"'rest' is unknown.*did you mean 'reset'"):
        scripted(faults={"rest": 0.1})
    with pytest.raises(UserError, match=r"add up to 1\.2"):
        scripted(faults={"reset": 0.6, "500": 0.6})


def test_latencies_are_log_normal_up_to_their_cap() -> None:
    latency = lognormal(0.5, 1.0, 3.0)
    drawn = [latency(ask(f"q{n}")) for n in range(2000)]
    assert statistics.median(drawn) == pytest.approx(0.5, rel=0.1)
    assert max(drawn) == 3.0
    assert statistics.quantiles(drawn, n=100)[15] == pytest.approx(0.5 / math.e, rel=0.15)  # a sigma below the median


def test_the_procedural_teacher_answers_through_the_server() -> None:
    (problem,) = load_problems(ProceduralProblems(n=1), "train")
    prompt = f"Q: {problem.question}\nA: Let's think step by step."
    faithful = {"error_rate": 0.0, "hint_failure_rate": 0.0, "garble_rate": 0.0}
    with FaultServer(scripted(procedural(ProceduralConfig(**faithful)))) as server:
        answer = chat(server, prompt)[1]["choices"][0]["message"]["content"]
    assert answer.endswith(f"Therefore, the answer is {problem.answer}.")


def test_rates_are_limited_and_the_wait_is_told() -> None:
    with FaultServer(limits=Limits(rpm=0.6, burst=250)) as server:
        statuses = [chat(server, f"q{n}")[0] for n in range(6)]
    assert statuses == [200] * 3 + [429] * 3
    assert server.total().answered == 3


def test_a_wrong_key_and_an_unknown_model_are_refused() -> None:
    with FaultServer(key="sk-right", models=["other"]) as server:
        assert chat(server, "q", Authorization="Bearer sk-wrong")[0] == 401
        assert server.requests_seen == 0
        assert chat(server, "q", Authorization="Bearer sk-right")[0] == 404


def submit(server: FaultServer, names: list[str]) -> str:
    lines = [{"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body(name)} for name in names]
    content = "".join(json.dumps(line) + "\n" for line in lines)
    form = (
        '--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x\r\n'
        f'Content-Disposition: form-data; name="file"; filename="f"\r\n\r\n{content}\r\n--x--\r\n'
    )
    sent = {"Content-Type": "multipart/form-data; boundary=x"}
    _, uploaded = call(server, "/files", form.encode(), **sent)
    asked = {"input_file_id": json.loads(uploaded)["id"], "endpoint": "/v1/chat/completions"}
    return json.loads(call(server, "/batches", asked)[1])["id"]


def look(server: FaultServer, batch: str) -> dict[str, Any]:
    return json.loads(call(server, f"/batches/{batch}")[1])


def lines_of(server: FaultServer, name: str | None) -> list[str]:
    return call(server, f"/files/{name}/content")[1].decode().splitlines() if name else []


NAMES = [f"q{n}" for n in range(8)]


def test_a_batch_is_answered_in_another_order() -> None:
    with FaultServer(batches=[BatchScript(unknown=1, repeated=2, garbage=1)]) as server:
        batch = submit(server, NAMES)
        states = [look(server, batch)["status"] for _ in range(3)]
        lines = lines_of(server, look(server, batch)["output_file_id"])
    assert states == ["validating", "in_progress", "completed"]
    named = [json.loads(line)["custom_id"] for line in lines if line.endswith("}")]
    assert len(lines) == 8 + 1 + 2 + 1
    assert set(named) == {*NAMES, "unknown-0"}
    assert named != sorted(named)
    assert (server.total().arrived, server.total().answered) == (8, 8)


def test_an_expired_batch_answers_and_bills_a_part() -> None:
    with FaultServer(batches=[BatchScript(waits=(), end="expired")]) as server:
        shown = look(server, submit(server, NAMES))
        output, errors = (lines_of(server, shown[name]) for name in ("output_file_id", "error_file_id"))
    assert shown["request_counts"] == {"total": 8, "completed": 4, "failed": 4}
    assert {json.loads(line)["custom_id"] for line in output} == set(NAMES[:4])
    assert {json.loads(line)["error"]["code"] for line in errors} == {"batch_expired"}
    assert server.requests_seen == 4


def test_a_batch_can_fail_be_cancelled_or_be_refused() -> None:
    def control(action: str, number: int) -> Any:
        return fault(500) if (action, number) == ("POST /v1/batches", 4) else None

    with FaultServer(batches=[BatchScript(waits=(), end="failed"), BatchScript()], control=control) as server:
        failed, cancelled, twice = submit(server, NAMES), submit(server, NAMES), submit(server, ["a", "a"])
        assert (look(server, failed)["status"], look(server, failed)["output_file_id"]) == ("failed", None)
        call(server, f"/batches/{cancelled}/cancel", b"")
        assert (look(server, cancelled)["status"], server.requests_seen) == ("cancelled", 4)
        assert look(server, twice)["status"] == "validating"
        look(server, twice)
        assert look(server, twice)["errors"]["data"][0]["code"] == "duplicate_custom_id"
        with pytest.raises(KeyError):
            submit(server, NAMES)


def test_as_a_process_it_prints_its_address_first_and_tells_its_accounts() -> None:
    command = [sys.executable, "-m", "toolkit.testing.fault_server", "--faults", "500=1.0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            server = FaultServer()
            server.url = process.stdout.readline().strip()
            assert chat(server, "q")[0] == 500
            with urllib.request.urlopen(server.url.removesuffix("/v1") + "/accounting", timeout=5) as response:
                accounts = json.load(response)
        finally:
            process.kill()
    assert accounts["requests_seen"] == 1
