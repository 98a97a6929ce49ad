"""Records as the loss sees them: every character shown once, every weight as it is, markup only as text."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.records import duals, edit, encoded, imitation
from tests.tiny_recipe import EDIT, written
from tests.tiny_students import END, tiny_tokenizer
from toolkit import pipeline
from toolkit.explain import ShownView, as_html, as_terminal_text, explain, page, shown_views

ROWS = duals(3)
SMALL = EDIT["dataset"] | {"config": EDIT["dataset"]["config"] | {"problems": {"source": "procedural", "n": 20}}}
TOKENIZER = tiny_tokenizer()


def record(rationale: str, question: str = "1 + 1?") -> dict[str, Any]:
    return {
        "id": "x",
        "question": question,
        "right": {"rationale": rationale, "answer": "2"},
        "wrong": {"rationale": "1 + 1 = 3.", "answer": "3"},
    }


def joined(view: ShownView) -> str:
    return "".join(text for text, _, _ in view.tokens)


class Page(HTMLParser):
    """The text of the `pre` elements and all elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.pre: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append(tag)
        if tag == "pre":
            self._inside = True
            self.pre.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "pre"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.pre[-1] += data


def test_every_view_of_every_stage_is_shown_for_every_record() -> None:
    titles = [view.title for view in shown_views(TOKENIZER, ROWS, [imitation(), edit()], "plain", 2)]
    assert titles == [
        "stage imitate / view cot / record sum/0",
        "stage imitate / view cot / record sum/1",
        "stage key_steps / view right / record sum/0",
        "stage key_steps / view wrong / record sum/0",
        "stage key_steps / view right / record sum/1",
        "stage key_steps / view wrong / record sum/1",
    ]


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text("ü€漢🙂\n a", max_size=12))
def test_the_tokens_join_to_the_whole_text(rationale: str, question: str) -> None:
    (view,) = shown_views(TOKENIZER, [record(rationale, question)], [imitation()], "plain", 1)
    assert joined(view) == f"Q: {question}\nA: {rationale}\nTherefore, the answer is 2.{END}"


def test_the_weights_shown_are_those_of_the_loss() -> None:
    stage = edit(beta=0.3)
    shown = list(shown_views(TOKENIZER, ROWS[:1], [stage], "plain", 1))
    assert len(shown) == 2
    for view, (tokenized, sequence) in zip(shown, encoded(TOKENIZER, ROWS[0], stage), strict=True):
        assert [weight for _, weight, _ in view.tokens] == sequence.weights
        assert [in_prompt for _, _, in_prompt in view.tokens] == list(tokenized.segments < 0)


@pytest.mark.parametrize("show", [as_html, lambda views: as_terminal_text(views[0]).plain], ids=["page", "terminal"])
def test_nothing_of_the_text_is_lost_on_the_way_to_the_reader(show: Any) -> None:
    (view,) = shown_views(TOKENIZER, [record("First.\n\n  Then & <b>.")], [imitation()], "plain", 1)
    shown = show([view])
    text = Page(shown).pre[0] if "<pre>" in shown else shown
    assert joined(view) in text.replace("↵", "")


@pytest.mark.parametrize(("weight", "in_prompt"), [(1.0, False), (0.0, True), (0.0, False)])
def test_markup_in_a_token_stays_text(weight: float, in_prompt: bool) -> None:
    evil = '<script>alert("x")</script><img src=x onerror=alert(1)>&amp;'
    shown = Page(as_html([ShownView("title", "about", [(evil, weight, in_prompt)])]))
    assert not {"script", "img"} & set(shown.elements)
    assert shown.pre == [evil]


def test_markup_in_titles_stays_text() -> None:
    shown = Page(page("<img>", as_html([ShownView("<img>", "<img>", [])])))
    assert "img" not in shown.elements


def test_likelier_is_green_less_likely_is_red_and_the_prompt_neither() -> None:
    right, wrong = shown_views(TOKENIZER, ROWS[:1], [edit(beta=0.3)], "plain", 1)
    hues = [
        set(re.findall(r"<b title=\"weight [^\"]+\" style=\"background:hsla\((\d+)", as_html([view])))
        for view in (right, wrong)
    ]
    assert hues == [{"130"}, {"5"}]
    prompts = re.findall(r'<span class="prompt">(.*?)</span>', as_html([right]).split("<pre>")[1], re.DOTALL)
    assert html.unescape("".join(prompts)).replace("<i>↵</i>", "") == "Q: What is 0 + 1?\nA:"


def test_terminal_text_styles_what_carries_weight() -> None:
    (view, _) = shown_views(TOKENIZER, ROWS[:1], [edit()], "plain", 1)
    styled = [span for span in as_terminal_text(view).spans if " on rgb(0," in str(span.style)]
    assert len(styled) == sum(weight > 0 and text != "" for text, weight, _ in view.tokens)


def test_a_view_without_weight_is_shown_all_the_same() -> None:
    same = record("1 + 1 = 3.") | {"right": {"rationale": "1 + 1 = 3.", "answer": "3"}}
    right, _ = shown_views(TOKENIZER, [same], [edit()], "plain", 1)
    assert right.scale == 1.0
    assert "0 weighted" in right.about


def test_explain_writes_a_page_that_needs_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.cli import open_recipe

    monkeypatch.setattr(pipeline, "built_rows", lambda recipe: ROWS)
    monkeypatch.setattr(pipeline, "student_tokenizer", lambda recipe, rows: TOKENIZER)
    file = tmp_path / "new" / "page.html"
    explain(open_recipe(str(written(tmp_path, EDIT))), n=2, html_path=file)
    shown = Page(file.read_text(encoding="utf-8"))
    assert len(shown.pre) == 2 * 3
    assert not {"script", "link", "img", "iframe"} & set(shown.elements)


def listing(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_explain_asks_no_teacher_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither before the dataset is built, nor of one that is built, nor of one with other settings under its name."""
    from toolkit.cli import main

    file = written(tmp_path, EDIT | {"dataset": SMALL})
    words, before = ["explain", str(file), "--n", "1"], listing(tmp_path)
    assert main(words) == 2
    told = capsys.readouterr()
    assert f"tiny-cots at v1.0.0 is not built ({tmp_path}/hub/datasets/tiny-cots/v1.0.0)" in told.err
    assert f"run `distill build {file}` first" in told.err
    assert (told.out, listing(tmp_path)) == ("", before)

    assert main(["build", str(file)]) == 0
    before = listing(tmp_path)
    assert any(name.endswith(".parquet") for name in before)
    capsys.readouterr()
    assert main(words) == 0
    assert "stage imitate / view cot / record" in capsys.readouterr().out
    assert main([*words, "dataset.config.problems.n=30"]) == 2
    told = capsys.readouterr()
    assert "was built from other settings" in told.err
    assert f"run `distill build {file} dataset.config.problems.n=30` first" in told.err
    assert (told.out, listing(tmp_path)) == ("", before)
