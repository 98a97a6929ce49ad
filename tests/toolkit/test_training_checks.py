"""What this machine and its libraries refuse is told before anything is asked, downloaded, built or written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_recipe import EDIT, written
from toolkit import cli
from toolkit.errors import UserError
from toolkit.training_checks import check_training

pytestmark = pytest.mark.slow

NO_BF16 = ("stages.1.training.use_cpu=false", "stages.1.training.bf16=true")
REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "bf16 of a later stage": (NO_BF16, r"stages\.key_steps\.training\.bf16: found true, but there is no accelerator"),
    "fp16": (("stages.0.training.fp16=true",), r"stages\.imitate\.training\.fp16: found true"),
    "bf16 of a reference": (
        tuple(f"references.answer_only.{override.replace('stages.1', 'stages.0')}" for override in NO_BF16),
        r"stages\.answers\.training\.bf16: found true",
    ),
    "arguments at odds": (
        ("stages.0.training.dataloader_prefetch_factor=2",),
        r"stages\.imitate\.training or student: ",
    ),
    "an architecture's own rule": (
        ("student.from_config.num_key_value_heads=2", "student.from_config.rope_parameters={rope_type: nonesuch}"),
        "student.from_config",
    ),
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return written(tmp_path, json.loads(json.dumps(EDIT)))


@pytest.mark.skipif(torch.accelerator.is_available(), reason="of a machine without an accelerator")
@pytest.mark.parametrize("case", REFUSED)
def test_a_training_that_cannot_be_here_is_refused(recipe: Path, case: str) -> None:
    overrides, told = REFUSED[case]
    with pytest.raises(UserError, match=told):
        check_training(cli.open_recipe(str(recipe), overrides))


def test_a_training_that_can_be_here_is_not(recipe: Path) -> None:
    check_training(cli.open_recipe(str(recipe)))


@pytest.mark.skipif(torch.accelerator.is_available(), reason="of a machine without an accelerator")
@pytest.mark.parametrize("command", ["train", "compare"])
def test_nothing_is_asked_or_written_before(
    recipe: Path, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*words: Any) -> None:
        raise AssertionError("the teacher is asked")

    monkeypatch.setattr("toolkit.teachers.procedural.ProceduralTeacher.complete", asked)
    assert cli.main([command, str(recipe), *NO_BF16]) == 2
    assert "stages.key_steps.training.bf16: found true" in capsys.readouterr().err
    assert sorted(path.name for path in recipe.parent.iterdir()) == ["recipe.yaml"]
