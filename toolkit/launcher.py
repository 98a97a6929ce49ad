"""What a training process owes to the launcher that started it: to be as many as were asked for, and to end with it.

Imports nothing heavy before it is needed: what is decided here about threads holds only if torch has none yet.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

from toolkit.errors import UserError

# The ranks that torchrun and the kinds of MPI give; a process that has one is one of several already.
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_FROM_CONFIG = ("num_processes", "num_machines", "machine_rank", "main_process_ip", "main_process_port")


def heed_launcher(script: str, words: Sequence[str], check: Callable[[], object] | None = None) -> None:
    """Do what `accelerate launch` was asked and leaves to its child; may put other processes in this one's place.

    Args:
        script: File of the program that was launched.
        words: The words after it.
        check: Called before this process becomes several, each of which would tell of the same mistake.

    Raises:
        UserError: Several machines were asked for without a GPU, which accelerate cannot start.
    """
    _end_with_the_launcher()
    if _asks_for_several():
        command = several_processes(_command_of_the_launcher(), script, words)
        if command:
            if check is not None:
                check()
            os.execv(command[0], command)
    # One thread is what `accelerate launch` gives a process unless told otherwise: right for several on one machine,
    # half the speed and worse for a single one on a CPU.
    if "LOCAL_RANK" not in os.environ and os.environ.get("OMP_NUM_THREADS") == "1":
        del os.environ["OMP_NUM_THREADS"]


def _end_with_the_launcher() -> None:
    """Have this process ended when `accelerate launch` is; left over, it would go on in the folders of the next one.

    `accelerate launch` passes no signal on. Linux alone can be asked for this; elsewhere the launcher's whole process
    group has to be signalled, as terminals and schedulers do. What is asked for outlives `exec`.
    """
    if sys.platform == "linux" and "ACCELERATE_MIXED_PRECISION" in os.environ:
        import ctypes
        import signal

        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def _asks_for_several() -> bool:
    """Whether accelerate was asked for several processes without a GPU.

    It then sets the address of the first of them, and starts that one alone (accelerate 1.15, `simple_launcher`).
    """
    set_by_it = "ACCELERATE_USE_CPU" in os.environ and "MASTER_PORT" in os.environ
    if not set_by_it or any(rank in os.environ for rank in _RANKS):
        return False
    if os.environ["ACCELERATE_USE_CPU"] == "True":
        return True
    import torch

    return not torch.accelerator.is_available()


def _command_of_the_launcher() -> list[str]:
    import psutil

    return list(psutil.Process(os.getppid()).cmdline())


def several_processes(launcher: Sequence[str], script: str, words: Sequence[str]) -> list[str] | None:
    """Return the command that starts the processes which `accelerate launch` was asked for.

    Args:
        launcher: The launcher's own command line.
        script: File of the program to start.
        words: The words after it.

    Returns:
        A command line of `torchrun`, or None where one process is all that was asked for.

    Raises:
        UserError: Several machines were asked for, or the command line is not that of `accelerate launch`.
    """
    found = _words_of_the_launcher(launcher)
    if found is None:
        raise UserError(
            f"several processes were asked for, and started by {' '.join(launcher[:3])!r} one process cannot tell how "
            "many; for two of them: torchrun --standalone --nproc_per_node 2 toolkit/train.py RECIPE"
        )
    asked = _asked(found)
    number, machines = asked.num_processes or 1, asked.num_machines or 1
    if machines > 1:
        address, port = asked.main_process_ip or "ADDRESS", asked.main_process_port or "PORT"
        raise UserError(
            f"found {machines} machines, but accelerate starts processes on several machines only on GPUs; type on "
            f"each: ACCELERATE_USE_CPU=true torchrun --nnodes {machines} --node_rank {asked.machine_rank or 0} "
            f"--nproc_per_node {max(number // machines, 1)} --master_addr {address} --master_port {port} "
            "toolkit/train.py RECIPE"
        )
    if number == 1:
        return None
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(number)]
    return [*torchrun, script, *words]


def _words_of_the_launcher(command: Sequence[str]) -> Sequence[str] | None:
    """Return what follows `accelerate launch`, `accelerate-launch` or `-m accelerate.commands.launch`."""
    for place, word in enumerate(command):
        name = PurePath(word).name
        if name in ("accelerate-launch", "accelerate.commands.launch"):
            return command[place + 1 :]
        if name in ("accelerate", "accelerate.commands.accelerate_cli") and command[place + 1 : place + 2] == [
            "launch"
        ]:
            return command[place + 2 :]
    return None


def _asked(words: Sequence[str]) -> Any:
    """Return the launcher's options, those of its configuration file included where it reads one."""
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    asked = launch_command_parser().parse_args(words)
    if asked.config_file is not None or (os.path.isfile(default_config_file) and not asked.cpu):
        config = load_config_from_file(asked.config_file)
        for name in _FROM_CONFIG:
            if getattr(asked, name) is None:
                setattr(asked, name, getattr(config, name, None))
    return asked
