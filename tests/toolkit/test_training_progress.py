"""One bar for a stage on a terminal, plain lines elsewhere, nothing from other processes than the first."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from toolkit.training_progress import TrainingProgress


class Screen(io.StringIO):
    """Standard error, on a terminal or not."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def trained(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, steps: int = 20, first: int = 0, is_first: bool = True
) -> list[str]:
    """Return what is written, in pieces, during a training whose steps take a second each; every fourth is logged."""
    seconds = [0.0]
    screen = Screen(is_terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    shown = TrainingProgress("imitate", lambda: seconds[0])
    state: Any = SimpleNamespace(is_world_process_zero=is_first, max_steps=steps, global_step=first)
    nothing: Any = None
    shown.on_train_begin(nothing, state, nothing)
    for step in range(first + 1, steps + 1):
        seconds[0] += 1
        state.global_step = step
        shown.on_step_end(nothing, state, nothing)
        if step % 4 == 0:
            shown.on_log(nothing, state, nothing, {"loss": 8 / step, "loss/right": 9.0, "grad_norm": 1.0})
    shown.on_train_end(nothing, state, nothing)
    return screen.getvalue().replace("\r", "\n").splitlines()


def test_without_a_terminal_every_tenth_is_a_line_with_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = trained(monkeypatch, is_terminal=False)
    assert lines[:3] == ["imitate  2/20 steps", "imitate  4/20 steps", "imitate  6/20 steps  loss 2"]
    assert lines[-1] == "imitate  20/20 steps  loss 0.5"
    assert len(lines) == 10


def test_on_a_terminal_there_is_a_bar_that_is_taken_away_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = trained(monkeypatch, is_terminal=True)
    assert all(line.startswith("imitate: ") or not line.strip() for line in lines)
    assert any("0/20" in line for line in lines)
    assert not lines[-1].strip()


def test_a_resumed_stage_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trained(monkeypatch, is_terminal=False, first=18)[0] == "imitate  19/20 steps"
    assert any("18/20" in line for line in trained(monkeypatch, is_terminal=True, first=18))


@pytest.mark.parametrize("is_terminal", [True, False])
def test_other_processes_than_the_first_are_silent(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    assert trained(monkeypatch, is_terminal, is_first=False) == []
