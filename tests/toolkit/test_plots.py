"""Pictures of cards: the same bytes for the same figures, and bars that add up to what they are of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from toolkit.plots import plot_accuracy, plot_comparison, plot_key_shares, plot_lengths, plot_losses, plot_yields

LENGTHS = {"question": {12: 3, 13: 5, 90: 1}, "chain.rationale": {40: 9}}
SHARES = {unit: {"right": {0.1: 4, 1.0: 1}, "wrong": {0.05: 2, 0.2: 3}} for unit in ("words", "tokens")}
STEPS = [("cot", 100, 90), ("contrastive", 60, 0), ("nothing", 0, 0)]
DRAWINGS: dict[str, Callable[[Path], None]] = {
    "lengths": lambda path: plot_lengths(LENGTHS, path),
    "key_shares": lambda path: plot_key_shares(SHARES, path),
    "yields": lambda path: plot_yields(STEPS, 90, path),
    "losses": lambda path: plot_losses({"train": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]}, path),
}


def drawn(draw: Callable[[Path], None]) -> Any:
    """Return the figure, in place of writing it."""
    figures: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
        draw(Path("nowhere.png"))
    (figure,) = figures
    return figure


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_same_figures_are_the_same_bytes_whatever_the_machine_s_settings(name: str, tmp_path: Path) -> None:
    DRAWINGS[name](tmp_path / "first.png")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "savefig.dpi": 40}):
        DRAWINGS[name](tmp_path / "second.png")
    content = (tmp_path / "first.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content == (tmp_path / "second.png").read_bytes()


def test_settings_of_a_process_are_left_as_they_were(tmp_path: Path) -> None:
    with matplotlib.rc_context({"font.size": 30}):
        plot_lengths(LENGTHS, tmp_path / "lengths.png")
        assert matplotlib.rcParams["font.size"] == 30


@settings(max_examples=20)
@given(st.dictionaries(st.integers(0, 5000), st.integers(1, 50), min_size=1))
def test_every_record_is_in_the_bar_over_its_length(tally: dict[int, int]) -> None:
    (panel,) = drawn(lambda path: plot_lengths({"text": tally}, path)).axes
    bars = [(bar.get_x(), bar.get_x() + bar.get_width(), bar.get_height()) for bar in panel.patches]
    assert len(bars) <= 32
    for start, end, height in bars:
        assert height == sum(records for words, records in tally.items() if start < words < end)
    assert sum(height for _, _, height in bars) == sum(tally.values())


@settings(max_examples=20)
@given(st.dictionaries(st.floats(0, 1), st.integers(1, 50), min_size=1))
def test_every_pair_is_in_a_bar(pairs: dict[float, int]) -> None:
    shares = {"words": {"right": pairs, "wrong": {0.5: 7}}}
    (panel,) = drawn(lambda path: plot_key_shares(shares, path)).axes
    right, wrong = ([bar.get_height() for bar in container] for container in panel.containers)
    assert (sum(right), sum(wrong)) == (sum(pairs.values()), 7)
    assert panel.get_xlim() == (0, 100)


def test_each_step_has_what_came_in_and_what_passed() -> None:
    (panel,) = drawn(DRAWINGS["yields"]).axes
    widths = [bar.get_width() for bar in panel.patches]
    assert widths == [90, 90, 0, 0, 60, 0, 100, 90]  # from below, what came in first
    assert [label.get_text() for label in panel.get_yticklabels()] == ["in train", "nothing", "contrastive", "cot"]
    assert [text.get_text() for text in panel.texts][1:] == ["0 of 0, 0.0 %", "0 of 60, 0.0 %", "90 of 100, 90.0 %"]


@pytest.mark.parametrize(("accuracy", "error"), [(0.0, 0.0), (0.004, 0.003), (0.5, 0.05), (0.99, 0.03), (1.0, 0.0)])
def test_shares_are_drawn_from_0_to_100_percent(accuracy: float, error: float) -> None:
    """Whatever the figures: two pictures can be laid side by side."""
    summary = {"accuracy": accuracy, "standard_error": error, "n": 50}
    scores = {"own": {"a": summary, "b": summary}, "other": {"a": summary}}
    found = {
        "sets": {"a": {"n": 50}},
        "baseline": "one",
        "recipes": {
            name: {"sets": {"a": {"accuracy": {"mean": accuracy, "standard_error": error}}}} for name in ("one", "two")
        },
    }
    for draw in (lambda path: plot_accuracy(scores, "own", path), lambda path: plot_comparison(found, path)):
        panels = drawn(draw).axes
        assert panels
        for panel in panels:
            assert panel.get_xlim() == (0, 100)
            assert list(panel.get_xticks()) == [0, 25, 50, 75, 100]
            assert any(text.get_text() == f"{100 * accuracy:.1f}" for text in panel.texts)
