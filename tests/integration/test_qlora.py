"""QLoRA on a CPU: trained on 4-bit weights, merged into the base in its own precision."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from tests.records import duals, edit, saved_student
from toolkit.stages import train_stage

pytestmark = pytest.mark.slow

pytest.importorskip("bitsandbytes", reason="needs the extra qlora")


def test_a_student_of_qlora_is_its_base_but_for_the_adapted_layers(tmp_path: Path) -> None:
    start = saved_student(tmp_path / "start", hidden_size=64, intermediate_size=128)
    fields = {"use_peft": True, "lora_r": 4, "lora_target_modules": ["q_proj", "v_proj"], "load_in_4bit": True}
    facts = train_stage(edit(max_steps=3), duals(8), start, tmp_path / "stage", fields, "plain")

    base, student = (
        dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())
        for folder in (start, tmp_path / "stage" / "student")
    )
    changed = {name for name in base if not base[name].equal(student[name])}
    assert facts["steps"] == 3
    assert student.keys() == base.keys()
    assert changed == {name for name in base if "q_proj" in name or "v_proj" in name}
