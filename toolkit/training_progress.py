"""The one live line of a stage that trains: how far it is, its loss, and when it will be done."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from toolkit.plain_lines import Pace

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

_SHOWN = ("loss", "eval_loss")


class TrainingProgress(TrainerCallback):
    """Shows a bar on a terminal, and elsewhere a plain line every ten seconds or with every tenth that is done.

    Only the first of several processes shows anything. Both go to standard error. The losses of views, which the
    trainer logs too, are kept in the stage's facts and are not shown.

    Args:
        stage: Name of the stage.
        clock: Tells the seconds.
    """

    def __init__(self, stage: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._stage = stage
        self._losses: dict[str, str] = {}
        self._bar: Any = None
        self._pace = Pace(clock)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar, at the step that an interrupted run had come to."""
        if state.is_world_process_zero:
            # `disable=None`: there is no bar where there is no terminal.
            self._bar = tqdm(
                desc=self._stage,
                total=state.max_steps,
                initial=state.global_step,
                unit="step",
                dynamic_ncols=True,
                leave=False,
                disable=None,
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar; write a line where there is none and one is due."""
        if self._bar is None:
            return
        self._bar.update(state.global_step - self._bar.n)
        if self._bar.disable and self._pace.is_due(state.global_step, state.max_steps):
            losses = "".join(f"  {name} {value}" for name, value in self._losses.items())
            print(f"{self._stage}  {state.global_step:,}/{state.max_steps:,} steps{losses}", file=sys.stderr)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take the newest losses."""
        self._losses |= {name: f"{float(value):.4g}" for name, value in (logs or {}).items() if name in _SHOWN}
        if self._bar is not None:
            self._bar.set_postfix(self._losses, refresh=False)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the bar away: what comes next says how the stage ended."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def show_progress(trainer: Trainer, stage: str, hidden: bool) -> None:
    """Put `TrainingProgress` in the place of the trainer's own bar, which writes every logged loss between two bars.

    Args:
        trainer: Has not trained yet.
        stage: Name of the stage.
        hidden: Show nothing instead.
    """
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    if not hidden:
        trainer.add_callback(TrainingProgress(stage))
