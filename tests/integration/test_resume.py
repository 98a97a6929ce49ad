"""A run that is killed and started again with the same command ends with the weights of one that was not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_recipe import ROOT, distill, environment, training_alone, written
from tests.warm import distill_words, in_warm_process
from toolkit import stages
from toolkit.stages import last_complete_checkpoint

pytestmark = pytest.mark.slow

RECIPE = training_alone(max_steps=20, save_steps=5)


def train_and_die(hook: str, step: str, sent: str, file: str) -> int:
    """Run the command line in a process that gets a signal at a known step: a kill from outside lands anywhere."""

    class Killed(stages.MarkComplete):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if (hook, int(step)) == ("on_step_end", state.global_step):
                os.kill(os.getpid(), int(sent))

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if (hook, int(step)) == ("on_save", state.global_step):
                os.kill(os.getpid(), int(sent))
            super().on_save(args, state, control, **kwargs)

    stages.MarkComplete = Killed  # type: ignore[misc]
    return distill_words("train", file)


def student(folder: Path) -> Path:
    """Return the folder of the one trained student."""
    (found,) = folder.glob("outputs/tiny/stages/imitate-*/student")
    return found


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    ran = distill("train", written(folder, RECIPE))
    assert ran.returncode == 0, ran.stderr[-3000:]
    return folder


@pytest.mark.parametrize(
    ("sent", "hook", "step"),
    [(signal.SIGKILL, "on_step_end", 13), (signal.SIGTERM, "on_save", 15)],
    ids=["SIGKILL between two checkpoints", "SIGTERM before a checkpoint is whole"],
)
def test_an_interrupted_run_ends_with_the_same_weights(
    uninterrupted: Path, tmp_path: Path, sent: signal.Signals, hook: str, step: int
) -> None:
    file = written(tmp_path, RECIPE)
    shutil.copytree(uninterrupted / "hub", tmp_path / "hub")  # the dataset: only training is of interest
    killed = in_warm_process(train_and_die, hook, str(step), str(int(sent)), str(file))
    assert killed.returncode == -sent, killed.stderr[-3000:]
    resumed = distill("train", file)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    facts = json.loads((student(tmp_path) / "stage.json").read_text())
    assert (facts["resumed_from_step"], facts["steps"]) == (10, 20)
    assert facts["tokens"] == json.loads((student(uninterrupted) / "stage.json").read_text())["tokens"]
    weights = [(student(folder) / "model.safetensors").read_bytes() for folder in (tmp_path, uninterrupted)]
    assert weights[0] == weights[1]


def test_losses_of_the_whole_run_are_kept(uninterrupted: Path) -> None:
    facts = json.loads((student(uninterrupted) / "stage.json").read_text())
    assert [entry["step"] for entry in facts["log"]] == list(range(2, 21, 2))


def test_no_checkpoint_outlives_its_stage(uninterrupted: Path) -> None:
    assert sorted(path.name for path in student(uninterrupted).parent.iterdir()) == ["student"]


def test_a_checkpoint_without_its_mark_is_removed_and_not_resumed_from(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}" / "complete").touch()
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-9"]


def test_without_a_complete_checkpoint_training_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-5").mkdir()
    assert last_complete_checkpoint(tmp_path) is None
    assert last_complete_checkpoint(tmp_path / "missing") is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
@pytest.mark.parametrize("options", [(), ("--cpu", "--num_processes", "2")], ids=["one process", "two processes"])
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_training_ends_with_the_launcher_that_started_it(
    tmp_path: Path, sent: signal.Signals, options: tuple[str, ...]
) -> None:
    """Else it would go on beside the one that the same command starts."""
    file = written(tmp_path, RECIPE)
    program = (str(ROOT / "toolkit" / "train.py"), str(file))
    launch = [sys.executable, "-m", "accelerate.commands.launch", *options, *program]
    # The pipe is at its end when the last process that writes to it is gone.
    launcher = subprocess.Popen(
        launch, env=environment() | {"PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert launcher.stdout is not None
    assert launcher.stdout.readline(), "training has begun to speak"
    launcher.send_signal(sent)
    launcher.stdout.read()
    assert launcher.wait() == -sent
    assert not list(tmp_path.glob("outputs/tiny/stages/*/student"))
