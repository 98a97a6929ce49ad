"""No text of others steers a terminal: not printed, logged, drawn, nor as an error."""

from __future__ import annotations

import io
import logging
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from toolkit.cli import main
from toolkit.explain import ShownView, as_html, as_terminal_text
from toolkit.library_output import quiet_libraries
from toolkit.page_blocks import Code, Table, as_markdown
from toolkit.page_blocks import as_html as blocks_as_html
from toolkit.terminal_text import PlainStream, plain_streams, raw_stream, visible

HOSTILE = {
    "a screen that is cleared": "\x1b[2J",
    "a title": "\x1b]0;pwned\x07",
    "a link": "\x1b]8;;http://evil\x1b\\here\x1b]8;;\x1b\\",
    "colours": "\x1b[31mred\x1b[0m",
    "a bell": "\a",
    "a line written over": "wrong\rright",
    "a backspace": "1\b2",
    "CSI of one byte": "\x9b2J",
    "OSC of one byte": "\x9d0;pwned\x9c",
    "next line": "a\x85b",
    "NUL": "\0",
    "DEL": "\x7f",
    "form feed": "\f\v",
    "an override": "\u202egpj.exe\u202c",
    "an isolate": "\u2066\u2069",
    "a mark": "\u200f\u200e\u061c",
    "no width": "ad\u200bmin\u200d\u2060\ufeff",
    "separators": "a\u2028b\u2029c",
    "tags": "\U000e0041",
}
STEERING = {"Cc", "Cf", "Zl", "Zp"}


def steers(text: str) -> list[str]:
    """Return what is left in a text that steers, by Unicode's own table."""
    return [char for char in text if unicodedata.category(char) in STEERING and char not in "\n\t"]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_steers_a_terminal_is_shown_as_an_escape(text: str) -> None:
    assert steers(visible(text)) == []
    assert visible(text) != text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\rb", "a\\rb"),
        ("\u202e", "\\u202e"),
        ("\U000e0041", "\\U000e0041"),
        ("a\nb\tc", "a\nb\tc"),
        ("Größe 数 हिन्दी ½ ✓ 🙂", "Größe 数 हिन्दी ½ ✓ 🙂"),
    ],
)
def test_text_and_lines_stay_as_they_are(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_any_text_is_visible_and_stays_so(text: str) -> None:
    shown = visible(text)
    assert [char for char in steers(shown) if ord(char) < 0x600 or 0x2000 <= ord(char) < 0x2070] == []
    assert visible(shown) == shown


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_printed_or_logged_steers(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with plain_streams(), quiet_libraries():
        print("a reason:", text)
        print("an error:", text, file=sys.stderr)
        logging.getLogger("toolkit.test").warning("a log: %s", text)
        logging.getLogger("somebody").error("a log: %s", text)
    told = capsys.readouterr()
    assert steers(told.out + told.err) == []
    assert "a reason:" in told.out
    assert told.err.count("a log:") == 2


@pytest.mark.parametrize("text", [text for text in HOSTILE.values() if "\0" not in text])
def test_a_file_name_in_an_error_does_not_steer(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["validate", f"no{text.replace('/', '')}.yaml"]) == 2
    told = capsys.readouterr()
    assert steers(told.out + told.err) == []


def test_the_recipe_that_a_fault_quotes_does_not_steer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.yaml").write_text('recipe: {name: "\\e[2J\\u202e"}\n"\\e[31mkey": 1\n')
    assert main(["validate", str(tmp_path / "r.yaml")]) == 2
    told = capsys.readouterr()
    assert steers(told.out + told.err) == []
    assert "\\x1b" in told.err


def test_a_word_of_the_command_line_does_not_steer(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["\x1b[2Jbuild"])
    assert steers(capsys.readouterr().err) == []


def test_the_streams_are_the_old_ones_afterwards() -> None:
    before = sys.stdout, sys.stderr
    with plain_streams(), plain_streams():
        assert isinstance(sys.stdout, PlainStream)
        assert raw_stream(sys.stdout) is before[0]
    assert (sys.stdout, sys.stderr) == before


def test_a_progress_bar_of_a_library_moves_on() -> None:
    raw = io.StringIO()
    stream = PlainStream(raw)
    for piece in ("\r 10%|# |", "\r 20%|\x1b[2J|", "\n", "\x1b[A", "\r        \r"):
        stream.write(piece)
    assert raw.getvalue() == "\r 10%|# |\r 20%|\\x1b[2J|\n\x1b[A\r        \r"


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_tokens_are_explained_without_steering(text: str) -> None:
    view = ShownView(f"view {text}", f"about {text}", [(text, 1.0, False), (text, 0.0, True)])
    file = io.StringIO()
    Console(file=file, force_terminal=False).print(as_terminal_text(view))
    assert steers(file.getvalue()) == []
    assert steers(as_html([view])) == []


@pytest.mark.parametrize("text", [*HOSTILE.values(), "```\n---\n<script>alert(1)</script> | a \\| b `c` <!-- x -->"])
def test_pages_show_text_of_others_as_text(text: str) -> None:
    shown = [Table(["a"], [[text]]), Code(text), text, [text]]
    for page in (blocks_as_html("t", shown), "\n".join(map(as_markdown, shown[:1] + shown[2:]))):
        assert steers(page) == []
        assert "<script>" not in page
    row = as_markdown(shown[0]).splitlines()[2]  # type: ignore[arg-type]
    assert row.replace("\\\\", "").replace("\\|", "").count("|") == 2
    assert as_markdown(Code(text)).count("```") == 2
