"""Train a recipe: `accelerate launch toolkit/train.py RECIPE [KEY=VALUE ...]`; the same as `distill train`."""

import os
import sys
from pathlib import Path


def _end_with_the_launcher() -> None:
    """Have this process ended when `accelerate launch` is; left over, it would go on in the folders of the next one.

    `accelerate launch` passes no signal on. Linux alone can be asked for this; elsewhere the launcher's whole process
    group has to be signalled, as terminals and schedulers do.
    """
    if sys.platform == "linux" and "ACCELERATE_MIXED_PRECISION" in os.environ:
        import ctypes
        import signal

        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


if __name__ == "__main__":
    _end_with_the_launcher()
    # The launcher puts this folder in front of the path; its modules are to be found as `toolkit.x` only.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    # `accelerate launch` gives every process one thread unless told otherwise: right for several processes on one
    # machine, half the speed and worse for a single one on a CPU. Read before torch starts its threads.
    if "LOCAL_RANK" not in os.environ and os.environ.get("OMP_NUM_THREADS") == "1":
        del os.environ["OMP_NUM_THREADS"]
    # With --cpu it sets the address of the first of several processes, and then starts that one alone.
    if os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_PORT" in os.environ and "RANK" not in os.environ:
        print(
            "note: `accelerate launch --cpu` starts one process whatever --num_processes says; for several on a CPU: "
            "torchrun --standalone --nproc_per_node N toolkit/train.py RECIPE",
            file=sys.stderr,
        )
    from toolkit.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
