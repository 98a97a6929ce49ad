"""What `accelerate launch` was asked for, read from its command line and its configuration file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from toolkit.errors import UserError
from toolkit.launcher import several_processes

OPTIONS = ["--cpu", "--num_processes", "3"]
PROGRAM = ["train.py", "recipe.yaml", "student.seed=1"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]

LAUNCHERS = {
    "accelerate launch": ["/env/bin/python3.11", "/env/bin/accelerate", "launch"],
    "accelerate-launch": ["python", "/env/bin/accelerate-launch"],
    "the module": ["python", "-X", "utf8", "-m", "accelerate.commands.launch"],
    "the module of all commands": ["python", "-m", "accelerate.commands.accelerate_cli", "launch"],
}


@pytest.fixture(autouse=True)
def _without_a_configuration_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("accelerate.commands.config.config_args.default_config_file", str(tmp_path / "default.yaml"))


def configured(file: Path, **settings: object) -> str:
    """Write a configuration as `accelerate config` does, and return its file."""
    content = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "MULTI_CPU", "use_cpu": True, **settings}
    file.write_text(
        "".join(f"{key}: {str(value).lower() if value is True else value}\n" for key, value in content.items())
    )
    return str(file)


@pytest.mark.parametrize("launcher", LAUNCHERS.values(), ids=LAUNCHERS)
def test_as_many_are_started_as_were_asked_for(launcher: list[str]) -> None:
    assert several_processes([*launcher, *OPTIONS, *PROGRAM], "/t/train.py", PROGRAM[1:]) == [
        *TORCHRUN,
        "3",
        "/t/train.py",
        "recipe.yaml",
        "student.seed=1",
    ]


@pytest.mark.parametrize("options", [[], ["--num_processes", "1"], ["--cpu"]])
def test_one_process_stays_itself(options: list[str]) -> None:
    assert several_processes(["accelerate", "launch", *options, *PROGRAM], "train.py", []) is None


def test_words_of_the_program_are_none_of_the_launchers() -> None:
    words = ["recipe.yaml", "--num_processes", "5"]
    command = several_processes(["accelerate", "launch", *OPTIONS, "train.py", *words], "train.py", words)
    assert command == [*TORCHRUN, "3", "train.py", *words]


def test_the_number_stands_in_the_configuration_file(tmp_path: Path) -> None:
    file = configured(tmp_path / "mine.yaml", num_processes=4, num_machines=1)
    command = several_processes(["accelerate", "launch", "--config_file", file, *PROGRAM], "train.py", [])
    assert command == [*TORCHRUN, "4", "train.py"]


def test_the_default_configuration_counts_where_the_launcher_reads_it(tmp_path: Path) -> None:
    configured(tmp_path / "default.yaml", num_processes=4, num_machines=1)
    assert several_processes(["accelerate", "launch", *PROGRAM], "train.py", []) == [*TORCHRUN, "4", "train.py"]
    assert several_processes(["accelerate", "launch", "--cpu", *PROGRAM], "train.py", []) is None


def test_the_command_line_comes_before_the_configuration(tmp_path: Path) -> None:
    file = configured(tmp_path / "mine.yaml", num_processes=4, num_machines=1)
    command = several_processes(["accelerate", "launch", "--config_file", file, *OPTIONS, *PROGRAM], "train.py", [])
    assert command == [*TORCHRUN, "3", "train.py"]


def test_several_machines_are_refused_with_what_to_type_on_each(tmp_path: Path) -> None:
    file = configured(
        tmp_path / "mine.yaml",
        num_processes=8,
        num_machines=2,
        machine_rank=1,
        main_process_ip="10.0.0.7",
        main_process_port=29501,
    )
    typed = "torchrun --nnodes 2 --node_rank 1 --nproc_per_node 4 --master_addr 10.0.0.7 --master_port 29501"
    with pytest.raises(UserError, match=typed):
        several_processes(["accelerate", "launch", "--config_file", file, *PROGRAM], "train.py", [])


def test_another_launcher_is_told_to_use_torchrun() -> None:
    with pytest.raises(UserError, match=r"torchrun --standalone --nproc_per_node 2"):
        several_processes(["bash", "start.sh", "launch"], "train.py", [])
