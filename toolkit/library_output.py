"""What libraries may say on a user's terminal while a command runs: errors at once, the rest only if it crashes.

Progress bars of libraries are off too, but for the Hub's transfers, which show themselves on a terminal alone. Imports
no library: what is set in the environment holds for a library, and for a process, that comes after it.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from toolkit.errors import UserError

# A value that the user has set already is left alone.
_ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TQDM_DISABLE": "1",  # a bar that does not say itself whether it is shown, which ours and the Hub's do
}
# These have handlers of their own, which the root logger's cannot stand in for.
_WITH_HANDLERS = ("transformers", "datasets", "huggingface_hub")
_OURS = ("toolkit", "dataset_builders", "__main__")
_KEPT = 50


def set_environment() -> list[str]:
    """Ask libraries that are not imported yet, in this process and in those it starts, to report errors alone.

    Returns:
        The variables that were set.
    """
    added = [name for name in _ENVIRONMENT if name not in os.environ]
    os.environ.update({name: _ENVIRONMENT[name] for name in added})
    return added


class _Held(logging.Handler):
    """Shows errors and the toolkit's own warnings, and keeps the last of the others."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: deque[str] = deque(maxlen=_KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        said = f"{record.name}: {record.getMessage()}"
        if record.levelno >= logging.ERROR or record.name.partition(".")[0] in _OURS:
            print(said, file=sys.stderr)
        elif said not in self.kept:
            self.kept.append(said)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep what libraries log and warn of off the terminal; where the body crashes, show it before the traceback.

    A `UserError` says by itself what is wrong, and is no crash.
    """
    added, held, root = set_environment(), _Held(), logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in _WITH_HANDLERS}
    for name in set(levels) & sys.modules.keys():  # an imported library has read the environment already
        logging.getLogger(name).setLevel(logging.ERROR)
    root.addHandler(held)
    logging.captureWarnings(True)  # warnings come as records of the logger `py.warnings`
    try:
        yield
    except UserError:
        raise
    except Exception:
        for said in held.kept:
            print(said.strip(), file=sys.stderr)
        raise
    finally:
        logging.captureWarnings(False)
        root.removeHandler(held)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for name in added:
            os.environ.pop(name, None)
