from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from dataset_builders.recordings import import_recordings
from dataset_builders.settings import Recording
from toolkit.errors import UserError
from toolkit.teachers.protocol import Completion, Request
from toolkit.teachers.recorded import RecordedConfig, RecordedTeacher


def answer(store: Path, prompt: str, sample_index: int = 0) -> Completion:
    async def ask() -> Completion:
        teacher = RecordedTeacher(RecordedConfig(store=store))
        try:
            return await teacher.complete(Request("any", (("user", prompt),), sample_index=sample_index))
        finally:
            await teacher.close()

    return asyncio.run(ask())


def recording(tmp_path: Path, *rows: object) -> Recording:
    path = tmp_path / "log.json"
    path.write_text(json.dumps({"outputs": rows}))
    return Recording(path=str(path), records="outputs", prompt="input", completion="output", model="old-model")


def test_a_recorded_teacher_answers_with_what_was_imported(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"

    import_recordings([recording(tmp_path, {"input": "Q: 1?", "output": "One."})], store)

    completion = answer(store, "Q: 1?")
    assert (completion.text, completion.model, completion.raw) == ("One.", "old-model", {"imported": "log"})


def test_later_completions_of_a_prompt_are_further_samples(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    rows = [{"input": "Q", "output": "a"}, {"input": "Q", "output": "b"}]

    import_recordings([recording(tmp_path, *rows)], store)

    assert [answer(store, "Q", index).text for index in range(2)] == ["a", "b"]


def test_importing_twice_changes_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    given = [recording(tmp_path, {"input": "Q", "output": "a"})]

    assert import_recordings(given, store) == import_recordings(given, store) == 1
    assert answer(store, "Q").text == "a"


def test_a_row_without_its_prompt_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"outputs\[0\]: no text 'input' among \['imput'\].*did you mean 'imput'"):
        import_recordings([recording(tmp_path, {"imput": "Q"})], tmp_path / "store.sqlite")


@pytest.mark.parametrize(
    ("output", "text", "reasoning"),
    [
        ("<think>It is 5.</think>It is 4.", "It is 4.", "It is 5."),
        ("<|channel|>analysis<|message|>It is 5.", "", "It is 5."),
        ("analysisIt is 5.assistantfinalIt is 4.", "It is 4.", "It is 5."),
        ([{"type": "thinking", "thinking": "It is 5."}, {"type": "text", "text": "It is 4."}], "It is 4.", "It is 5."),
    ],
)
def test_thinking_is_kept_apart_and_the_whole_beside_it(
    tmp_path: Path, output: object, text: str, reasoning: str
) -> None:
    store = tmp_path / "store.sqlite"

    import_recordings([recording(tmp_path, {"input": "Q", "output": output})], store)

    completion = answer(store, "Q")
    assert (completion.text, completion.reasoning) == (text, reasoning)
    assert completion.raw == {"imported": "log", "completion": output}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (
            {"input": "Q", "output": [{"type": "image_url"}]},
            r"outputs\[0\]: 'output': .*type 'image_url'; allowed: text",
        ),
        ({"input": "Q", "output": {"text": "4"}}, r"outputs\[0\]: no text 'output'"),
        ({"input": ["Q"], "output": "4"}, r"outputs\[0\]: 'input' is of type list; allowed: text"),
    ],
)
def test_a_row_of_a_form_that_nobody_knows_is_named(tmp_path: Path, row: object, told: str) -> None:
    with pytest.raises(UserError, match=told):
        import_recordings([recording(tmp_path, row)], tmp_path / "store.sqlite")
