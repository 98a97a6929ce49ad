"""Two processes take the step that one takes: gradients and losses do not depend on how a batch is spread.

Started as users start them, by `accelerate launch`, which starts one process on a CPU and leaves the rest to it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.gradients import difference, edit_by_hand
from tests.integration import epoch_probe
from tests.integration.gradient_probe import BETA, CASES, ROWS, held_out_losses, probe
from tests.records import saved_student
from tests.terminal_lines import foreign_lines
from tests.tiny_recipe import ROOT, environment, training_alone, written
from tests.tiny_students import tiny_tokenizer
from toolkit.students import save_atomically, student_from_config

pytestmark = pytest.mark.slow

TWO = ("accelerate.commands.launch", "--cpu", "--num_processes", "2")
SIZES = ("4x1", "2x2")  # batch of each process x micro-batches accumulated
OPT = {
    "model_type": "opt",
    "hidden_size": 16,
    "ffn_dim": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "word_embed_proj_dim": 16,
    "max_position_embeddings": 512,
    "dropout": 0.0,
}


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_student(tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def alone(student: str) -> dict[str, dict[str, Any]]:
    return probe(student, batch=8, steps=1)


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("epochs")
    saved_student(folder / "llama", hidden_size=16, num_hidden_layers=1)
    save_atomically(folder / "opt", student_from_config(OPT, tiny_tokenizer(), 0), tiny_tokenizer(), {})
    return folder


@pytest.fixture(scope="module")
def epochs(students: Path) -> dict[str, dict[str, Any]]:
    return epoch_probe.probe(students, batch=8, steps=1)


@pytest.fixture(scope="module")
def together(student: str, students: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("together") / "results.pt"
    ran = run(*TWO, Path(__file__).with_name("gradient_probe.py"), student, students, file, *SIZES)
    assert ran.returncode == 0, ran.stderr[-3000:]
    results: dict[str, Any] = torch.load(file)
    assert {case["processes"] for size in SIZES for case in results[size].values()} == {2}
    return results


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_that_of_one_process(alone: Any, together: Any, case: str, size: str) -> None:
    assert difference(together[size][case]["gradient"], alone[case]["gradient"]) < 1e-5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_the_logged_loss_is_that_of_one_process(alone: Any, together: Any, case: str, size: str) -> None:
    assert together[size][case]["loss"] == pytest.approx(alone[case]["loss"], rel=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_the_tokens_read_are_those_of_all_processes(alone: Any, together: Any, size: str) -> None:
    assert [together[size][case]["tokens"] for case in CASES] == [alone[case]["tokens"] for case in CASES]


@pytest.mark.parametrize("size", SIZES)
def test_edits_second_stage_is_its_formula(student: str, together: Any, size: str) -> None:
    loss, gradient = edit_by_hand(student, ROWS, alpha=1.0, beta=BETA)
    assert together[size]["example"]["loss"] == pytest.approx(loss, rel=1e-5)
    assert difference(together[size]["example"]["gradient"], gradient) < 1e-5


def test_the_loss_on_held_out_records_is_that_of_one_process(student: str, together: Any) -> None:
    assert together["held out"] == pytest.approx(held_out_losses(student, batch=64), rel=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", epoch_probe.CASES)
def test_every_step_of_two_epochs_is_that_of_one_process(epochs: Any, together: Any, case: str, size: str) -> None:
    """No epoch divides into batches, and no sequence is read twice."""
    expected, found = epochs[case], together["epochs"][size][case]
    assert len(found["gradients"]) == len(expected["gradients"]) == 4
    for theirs, ours in zip(expected["gradients"], found["gradients"], strict=True):
        assert difference(ours, theirs) < 1e-5
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-5)
    assert found["tokens"] == expected["tokens"]


@pytest.mark.parametrize("size", SIZES)
def test_an_epoch_that_is_resumed_in_its_middle_goes_on_in_its_order(epochs: Any, together: Any, size: str) -> None:
    (expected,) = epochs["one view"]["gradients"][3:]
    for results in (epochs, together["epochs"][size]):
        (found,) = results["resumed"]["gradients"]
        assert difference(found, expected) < 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_all_processes_lay_batches_out_alike(epochs: Any, together: Any, size: str) -> None:
    layouts = {case: results["layout"] for case, results in together["epochs"][size].items()}
    assert layouts == {case: results["layout"] for case, results in epochs.items()}
    assert layouts["packed"] == "flat"
    assert layouts["packed, falls back"].startswith("padded, not packing")


def test_a_recipes_mistake_is_told_once(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("recipe: {name: x, versoin: 1}\n")
    ran = run(*TWO, ROOT / "toolkit" / "train.py", file)
    assert ran.stderr.count("versoin") == 1


def test_a_recipe_is_trained_by_both_together(tmp_path: Path) -> None:
    recipe = training_alone(max_steps=2)
    del recipe["stages"][0]["training"]["use_cpu"]  # nobody needs to say so where there is nothing else
    ran = run(*TWO, ROOT / "toolkit" / "train.py", written(tmp_path, recipe))
    assert ran.returncode == 0, ran.stderr[-3000:]
    (facts,) = tmp_path.glob("outputs/tiny/stages/imitate-*/student/stage.json")
    assert json.loads(facts.read_text())["processes"] == 2
    assert ran.stdout.count("asked the teacher") == 1
    assert foreign_lines(ran.stderr) == []


def test_several_machines_without_gpus_are_told_what_to_type(tmp_path: Path) -> None:
    address = ("--main_process_ip", "10.0.0.7", "--main_process_port", "29501")
    machines = ("--num_machines", "2", "--machine_rank", "1", "--mixed_precision", "no", "--dynamo_backend", "no")
    ran = run(*TWO, *machines, *address, ROOT / "toolkit" / "train.py", tmp_path / "missing.yaml")
    typed = "torchrun --nnodes 2 --node_rank 1 --nproc_per_node 1 --master_addr 10.0.0.7 --master_port 29501"
    assert typed in ran.stderr
    assert "returned non-zero exit status 2" in ran.stderr
