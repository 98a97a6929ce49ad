"""The API key is in no file, no output and no list of processes, however often a server repeats it."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet
import pytest

from tests.tiny_recipe import EDIT, command, environment, written
from toolkit.teachers.procedural import ProceduralConfig
from toolkit.testing.fault_server import FaultServer
from toolkit.testing.replies import Ask, Reply, completion, fault, procedural

pytestmark = pytest.mark.slow

KEY = "sk-known-5ecre7-0123456789"


def key_in(ask: Ask) -> str:
    """The key as the server got it."""
    return ask.headers["Authorization"].removeprefix("Bearer ")


def refuses(ask: Ask) -> Reply:
    return fault(401, f"Incorrect API key provided: {key_in(ask)}", X_Your_Key=key_in(ask))


def breaks(ask: Ask) -> Reply:
    replies = [
        fault(500, f"Authorization: {key_in(ask)}", X_Your_Key=key_in(ask)),
        Reply(f'{{"error": "you sent {key_in(ask)}"}}'.encode()),
        Reply(f"<html>{key_in(ask)}".encode(), content_type="text/html"),
        fault(429, key_in(ask), Retry_After=key_in(ask)),
    ]
    return replies[ask.number % len(replies)]


def answers(ask: Ask) -> Reply:
    """A good answer that says the key, in its text, beside it and in the headers."""
    text = procedural(ProceduralConfig())(ask)
    said = completion(f"My key is {key_in(ask)}. {text}", reasoning_content=key_in(ask), key=key_in(ask))
    return Reply(said.body, headers={"X-Your-Key": key_in(ask)}, is_answer=True)


def build(folder: Path, script: Callable[[Ask], Reply]) -> tuple[int, str, list[str]]:
    """Run `distill build` with everything it may write in `folder`; return code, output and all command lines."""
    lines: list[str] = []

    def watched(ask: Ask) -> Reply:
        for process in [psutil.Process(build.pid), *psutil.Process(build.pid).children(recursive=True)]:
            lines.append(" ".join(process.cmdline()))
        assert key_in(ask) == KEY
        return script(ask)

    with FaultServer(watched) as server:
        recipe: dict[str, Any] = copy.deepcopy(EDIT)
        recipe["dataset"]["config"].update(
            problems={"source": "procedural", "tasks": ["ordering"], "n": 12, "n_test": 2, "seed": 0},
            teacher={"kind": "openai", "model": "m", "base_url": server.url, "api_key_env": "A_KEY"},
            collect={"backoff": 0.0, "max_attempts": 2, "concurrency": 2},
        )
        places = {name: str(folder / name) for name in ("HF_HOME", "TMPDIR", "XDG_CACHE_HOME")}
        for place in places.values():
            os.makedirs(place)
        build = subprocess.Popen(
            command("build", written(folder, recipe)),
            cwd=folder,
            env={**environment(), **places, "A_KEY": KEY, "PYTHONASYNCIODEBUG": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        output, _ = build.communicate(timeout=300)
    return build.returncode, output, lines


def written_text(folder: Path) -> str:
    """All that was written, that which lies compressed in Parquet read out of it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    rows = [json.dumps(pyarrow.parquet.read_table(path).to_pylist()) for path in files if path.suffix == ".parquet"]
    return "\n".join([*rows, *(path.read_bytes().decode(errors="replace") for path in files), *map(str, files)])


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [(refuses, 2, "key refused"), (breaks, 2, "max_failure_rate"), (answers, 0, "wrote ")],
    ids=["refused", "failing", "succeeding"],
)
def test_the_key_is_nowhere(tmp_path: Path, script: Callable[[Ask], Reply], code: int, said: str) -> None:
    ended, output, lines = build(tmp_path, script)
    assert ended == code, output
    assert said in output
    text = written_text(tmp_path)
    assert "tiny-cots" in text
    if code == 0:
        assert "My key is [key]." in text
    assert lines
    assert any("toolkit.cli build" in line for line in lines)
    assert KEY not in output + text + "\n".join(lines)
