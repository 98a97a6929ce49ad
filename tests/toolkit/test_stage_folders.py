"""What lies in a stage's folder while it trains, when it is interrupted or wanted by two, and when the disk is full."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.records import TRAINING, duals, imitation, saved_student
from tests.tiny_recipe import EDIT, written
from toolkit import cli, folder_lock
from toolkit.disk_faults import disk_fault
from toolkit.errors import UserError
from toolkit.folder_lock import owned
from toolkit.pipeline import make_start
from toolkit.precision import with_precision
from toolkit.recipe import Stage
from toolkit.runs import Run
from toolkit.stages import train_stage
from toolkit.students import is_whole, save_atomically

pytestmark = pytest.mark.slow

LORA = {"use_peft": True, "lora_r": 4, "lora_target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.1}
SAVED = {"learning_rate": 1e-2, "lr_scheduler_type": "constant", "save_strategy": "steps", "save_steps": 2}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_student(tmp_path_factory.mktemp("base"), num_hidden_layers=1)


def trained(
    folder: Path, base: str, stage: Stage, fields: dict[str, Any] | None = None
) -> tuple[dict[str, Any], bytes]:
    """Train a stage or finish it; return its facts and its weights."""
    facts = train_stage(stage, duals(20), base, folder, LORA if fields is None else fields, "plain")
    return facts, (folder / "student" / "model.safetensors").read_bytes()


# --- a finished stage


class Killed(BaseException):
    """Stands for a signal: nothing of the toolkit handles it."""


ENDS = {
    "max_steps within an epoch": {"max_steps": 4},
    "half an epoch": {"num_train_epochs": 1.6, "max_steps": -1, "per_device_train_batch_size": 8},
    "the end of an epoch": {"num_train_epochs": 1.0, "max_steps": -1},
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("best", [False, True], ids=["the last", "the best"])
def test_a_stage_resumed_after_its_last_step_is_finished_with_the_same_weights(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, best: bool
) -> None:
    if best and end != "max_steps within an epoch":
        pytest.skip("what is kept does not depend on how training ends")
    stage = imitation(**SAVED | ENDS[end] | ({"eval_strategy": "steps", "eval_steps": 2} if best else {}))
    if best:
        stage = stage.model_copy(update={"validation": 0.3})
        stage.training["load_best_model_at_end"] = True
    whole = trained(tmp_path / "whole", base, stage)

    def killed(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr("toolkit.stages.save_trained", killed)
    with pytest.raises(Killed):
        trained(tmp_path / "killed", base, stage)
    monkeypatch.undo()
    facts, weights = trained(tmp_path / "killed", base, stage)
    assert facts["resumed_from_step"] == facts["steps"] == whole[0]["steps"]
    assert weights == whole[1]
    assert [facts[key] for key in ("tokens", "epochs", "kept_step")] == [
        whole[0][key] for key in ("tokens", "epochs", "kept_step")
    ]


def test_what_a_killed_process_left_beside_a_trained_student_is_removed(base: str, tmp_path: Path) -> None:
    stage = imitation(max_steps=1)
    trained(tmp_path / "stage", base, stage)
    for left in ("checkpoints/checkpoint-9", "student.partial-1-ab"):
        (tmp_path / "stage" / left).mkdir(parents=True)
    trained(tmp_path / "stage", base, stage)
    assert sorted(path.name for path in (tmp_path / "stage").iterdir()) == ["adapter", "student"]


def test_a_student_that_lacks_its_tokenizer_is_trained_again(base: str, tmp_path: Path) -> None:
    stage = imitation(max_steps=1)
    _, weights = trained(tmp_path / "stage", base, stage)
    (tmp_path / "stage" / "student" / "tokenizer_config.json").unlink()
    assert trained(tmp_path / "stage", base, stage)[1] == weights
    assert is_whole(tmp_path / "stage" / "student")


# --- two in one folder


@contextmanager
def held_by_another(folder: Path) -> Iterator[multiprocessing.Process]:
    """Have another process hold a folder until it is killed."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()

    def hold() -> None:
        with owned(folder, "is trained"):
            ready.set()
            multiprocessing.Event().wait()

    process = context.Process(target=hold, daemon=True)
    process.start()
    assert ready.wait(60)
    try:
        yield process  # type: ignore[misc]
    finally:
        process.kill()
        process.join()


def test_a_folder_in_which_another_process_trains_is_refused_by_its_owners_name_and_free_when_that_one_is_killed(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_lock, "PATIENCE", 0.2)
    folder = tmp_path / "stage"
    with held_by_another(folder) as other:
        with pytest.raises(UserError, match=rf"stage: is trained by process {other.pid} on \S+ since \d\d\d\d-"):
            trained(folder, base, imitation())
        assert not folder.exists()
    assert trained(folder, base, imitation())[0]["steps"] == 1


def test_a_folder_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="first"), owned(tmp_path / "stage", "is trained"):
        raise UserError("first")
    with owned(tmp_path / "stage", "is trained"):
        pass


def test_two_processes_never_stage_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.tiny_students import tiny_llama, tiny_tokenizer

    names = []
    rename = Path.rename

    def noted(path: Path, target: Path) -> Path:
        names.append(path.name)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", noted)
    for _ in range(2):
        save_atomically(tmp_path / "start", tiny_llama(), tiny_tokenizer(), {})
    assert len(set(names)) == 2
    assert all(str(os.getpid()) in name for name in names)


def test_a_start_without_a_tokenizer_is_made_again(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = {"model_name_or_path": base, "special_tokens": ["<pause>"], **LORA}
    recipe = cli.open_recipe(str(written(tmp_path, EDIT | {"student": student})))
    run = Run(recipe, "0" * 64)
    monkeypatch.setattr(folder_lock, "PATIENCE", 0.2)
    with held_by_another(run.start) as other, pytest.raises(UserError, match=f"is made|process {other.pid}"):
        make_start(recipe, run, [])
    make_start(recipe, run, [])
    for lost in run.start.glob("tokenizer*"):
        lost.unlink()
    (run.start.with_name(run.start.name + ".partial")).mkdir()  # as older versions staged
    make_start(recipe, run, [])
    assert is_whole(run.start)
    assert not list(run.start.parent.glob("*.partial*"))


# --- trackers


def test_what_a_tracker_logs_stays_and_is_named(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fake" / "tensorboardX").mkdir(parents=True)
    (tmp_path / "fake" / "tensorboardX" / "__init__.py").write_text(
        "import pathlib\n"
        "class SummaryWriter:\n"
        "    def __init__(self, log_dir):\n"
        "        self.file = pathlib.Path(log_dir) / 'events'\n"
        "        self.file.parent.mkdir(parents=True)\n"
        "    def add_scalar(self, name, value, step):\n"
        "        self.file.open('a').write(f'{name} {step}\\n')\n"
        "    def add_text(self, *args): pass\n"
        "    def flush(self): pass\n"
        "    def close(self): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "fake")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    trained(tmp_path / "stage", base, imitation(**SAVED | {"max_steps": 2, "report_to": "tensorboard"}))
    (events,) = (tmp_path / "stage").rglob("events")
    assert "train/loss 2" in events.read_text()
    assert not list((tmp_path / "stage").rglob("checkpoint-*"))
    (named,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("logs of stage: ")]
    assert events.is_relative_to(named.removeprefix("logs of stage: "))


# --- a full disk


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Refuse to let any file of this process grow beyond so many bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# What is first refused at these sizes: a small file, the tokenizer, the merged student.
@pytest.mark.parametrize("size", [300, 9_000, 30_000])
def test_a_disk_that_refuses_is_a_message_and_the_rerun_completes(base: str, tmp_path: Path, size: int) -> None:
    stage = imitation(**SAVED | {"max_steps": 2})
    folder = tmp_path / "stage"
    told = r"stage: stage imitate could not be written: .*same command goes on"
    with pytest.raises(UserError, match=told), files_up_to(size):
        trained(folder, base, stage)
    assert not list(folder.glob("student*"))
    assert trained(folder, base, stage)[0]["steps"] == 2


def full(kind: str, folder: Path) -> Exception:
    """Return what a kind of writer raises when its file may not grow, by having it write one."""
    import pyarrow as pa
    from pyarrow import parquet
    from safetensors.torch import save_file

    many = torch.zeros(100_000)
    writers = {
        "text": lambda: (folder / "t.txt").write_text("x" * 100_000),
        "safetensors": lambda: save_file({"x": many}, folder / "t.safetensors"),
        "torch": lambda: torch.save(many, folder / "t.pt"),
        "arrow": lambda: parquet.write_table(pa.table({"x": list(range(100_000))}), folder / "t.parquet"),
    }
    with files_up_to(2_000):
        try:
            writers[kind]()
        except Exception as error:
            return error
    raise AssertionError("the file was written")


@pytest.mark.parametrize("kind", ["text", "safetensors", "torch", "arrow"])
def test_every_kind_of_writer_that_is_refused_is_known(tmp_path: Path, kind: str) -> None:
    assert disk_fault(full(kind, tmp_path)) is not None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), "/a/b: No space left on device"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Disk quota exceeded"),
        (OSError(errno.EROFS, "Read-only file system", "x"), "x: Read-only file system"),
        (Exception("I/O error: No space left on device (os error 28)"), "No space left on device"),
        (sqlite3.OperationalError("database or disk is full"), "No space left on device"),
        (OSError("Not enough disk space. Needed: 3 GiB"), "No space left on device"),
        (OSError(errno.ENOENT, "No such file or directory", "x"), None),
        (ValueError("File too large"), None),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
    ],
    ids=["full", "quota", "read-only", "rust", "sqlite", "datasets", "missing", "a word", "another"],
)
def test_a_disks_refusal_is_told_from_other_errors(error: Exception, told: str | None) -> None:
    assert disk_fault(error) == told


def test_a_refusal_is_known_behind_the_error_it_led_to() -> None:
    error = RuntimeError("cannot close")
    error.__context__ = OSError(errno.ENOSPC, "No space left on device", "a")
    assert disk_fault(error) == "a: No space left on device"


def test_a_command_that_meets_a_full_disk_ends_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full_disk(*_: Any) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")

    monkeypatch.setattr(cli, "_one_recipe", full_disk)
    assert cli.main(["evaluate", "recipe.yaml"]) == 2
    assert capsys.readouterr().err.startswith("No space left on device. Free some space")


# --- precision


def machine(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: kind != "CPU")
    monkeypatch.setattr("transformers.utils.is_torch_bf16_gpu_available", lambda: kind == "with bf16")


def open_precision(**training: Any) -> Stage:
    stage = imitation()
    left = {name: value for name, value in TRAINING.items() if name not in ("bf16", "use_cpu")}
    return stage.model_copy(update={"training": left | training})


@pytest.mark.parametrize(
    ("kind", "training", "bf16"),
    [
        ("CPU", {}, False),
        ("CPU", {"use_cpu": True}, False),
        ("CPU", {"use_cpu": True, "bf16": True}, True),
        ("without bf16", {}, False),
        ("without bf16", {"fp16": True}, False),
        ("with bf16", {}, True),
        ("with bf16", {"fp16": True}, False),
        ("with bf16", {"bf16": False}, False),
        ("with bf16", {"use_cpu": True}, False),
    ],
)
def test_bf16_is_used_by_itself_where_the_machine_has_it(
    monkeypatch: pytest.MonkeyPatch, kind: str, training: dict[str, bool], bf16: bool
) -> None:
    machine(monkeypatch, kind)
    assert with_precision(open_precision(**training))["bf16"] == bf16


@pytest.mark.parametrize(
    ("kind", "training", "told"),
    [
        ("CPU", {"bf16": True}, r"stages\.imitate\.training\.bf16: found true, but there is no accelerator"),
        ("without bf16", {"bf16": True}, r"stages\.imitate\.training\.bf16: found true, but this accelerator has no"),
        ("CPU", {"fp16": True}, r"stages\.imitate\.training\.fp16: found true, but fp16 needs an accelerator"),
        ("with bf16", {"fp16": True, "use_cpu": True}, r"stages\.imitate\.training\.fp16: found true"),
    ],
)
def test_a_precision_that_the_machine_lacks_is_refused_by_its_key(
    monkeypatch: pytest.MonkeyPatch, kind: str, training: dict[str, bool], told: str
) -> None:
    machine(monkeypatch, kind)
    with pytest.raises(UserError, match=told):
        with_precision(open_precision(**training))


def test_a_stage_trains_where_nothing_is_said_of_precision(base: str, tmp_path: Path) -> None:
    if torch.accelerator.is_available():
        pytest.skip("of a machine without an accelerator")
    assert trained(tmp_path / "stage", base, open_precision())[0]["precision"] == "no"
