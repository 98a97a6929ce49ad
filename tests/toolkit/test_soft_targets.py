"""Soft targets: whose tokens they are, what is kept of the teacher's probability, and the loss that comes of it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.chains import COT, PROMPT, stage
from tests.gradients import Gradients, difference
from tests.records import saved_student
from tests.soft_chains import OTHERS, SOFT, chance, soft_by_hand, soft_chains, soft_stage, written
from tests.tiny_students import tiny_tokenizer
from toolkit.encoding import SOFT_COLUMNS, Softened, encode, encode_record
from toolkit.errors import UserError
from toolkit.explain import as_html, as_terminal_text, shown_views
from toolkit.recipe import Stage
from toolkit.soft_targets import SoftTarget, TeacherToken, align, place, single_tokens
from toolkit.stage_views import StageViews
from toolkit.stages import make_trainer

TOKENIZER = tiny_tokenizer()


def teacher(*tokens: str) -> list[dict[str, Any]]:
    """Return a completion's tokens, each as likely as can be."""
    return [{"token": token, "logprob": 0.0, "top": [{"token": token, "logprob": 0.0}]} for token in tokens]


def spans(placed: tuple[TeacherToken, ...]) -> list[tuple[int, int]]:
    return [(token.start, token.end) for token in placed]


# --- the teacher's tokens in the text


def test_tokens_are_found_where_the_part_stands_in_the_text() -> None:
    tokens = teacher(" We", " add", " 3", ".", "\n", "Therefore", ",")
    placed = place(tokens, "We add 3.", "= We add 3.!", 2)
    # The space before the first word is in both texts; the line break behind it is not in the student's.
    assert spans(placed) == [(1, 4), (4, 8), (8, 10), (10, 11)]


def test_a_token_at_the_border_that_reads_otherwise_in_the_text_is_left_out() -> None:
    assert spans(place(teacher("A:We", " add", " it\n"), "We add it", " We add it", 1)) == [(3, 7)]


def test_what_was_thought_before_the_answer_is_not_taken_for_it() -> None:
    tokens = teacher("<think>", "3", " + 4", "</think>", "\n\n", "3", " ", "+", " 4")
    assert spans(place(tokens, "3 + 4", "3 + 4", 0)) == [(0, 1), (1, 2), (2, 3), (3, 5)]


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        (["[THINK]", "3", " + 4", "[/THINK]"], []),
        (["<|channel|>", "analysis", "<|message|>", "3 + 4", "<|end|>", "<|channel|>", "final", "<|message|>"], []),
        ([], ["<think>", "3", " + 4", "</think>"]),
    ],
)
def test_in_any_form_of_thinking_the_answer_s_tokens_are_found(before: list[str], behind: list[str]) -> None:
    tokens = teacher(*before, "3", " ", "+", " 4", *behind)
    assert spans(place(tokens, "3 + 4", "3 + 4", 0)) == [(0, 1), (1, 2), (2, 3), (3, 5)]


def test_what_was_only_thought_has_no_tokens() -> None:
    assert place(teacher("<think>", "3", " + 4"), "3 + 4", "3 + 4", 0) == ()


def test_a_part_that_was_never_written_has_no_tokens() -> None:
    assert place(teacher(" We", " add"), "We subtract", "We subtract", 0) == ()
    assert place(teacher(" We"), "", "", 0) == ()


def test_log_probabilities_become_probabilities() -> None:
    top = [("a", math.log(0.5)), ("b", -math.inf), ("c", 1e-9)]
    (token,) = place(
        [{"token": "a", "logprob": 0.0, "top": [{"token": text, "logprob": logprob} for text, logprob in top]}],
        "a",
        "a",
        0,
    )
    assert token.top == (("a", pytest.approx(0.5)), ("b", 0.0), ("c", 1.0))


@pytest.mark.parametrize(
    "tokens", [["a"], [{"token": "a"}], [{"token": "a", "top": [{"token": "a", "logprob": None}]}], 3]
)
def test_a_column_of_another_form_is_an_error(tokens: Any) -> None:
    with pytest.raises(UserError, match="found no list of tokens"):
        place(tokens, "a", "a", 0)


# --- the student's tokens


def test_a_token_that_both_have_gets_what_the_teacher_thought_likely() -> None:
    text = "3 + 44."
    known = {"3": 3, " +": 5, " 4": 7, "4": 8, ".": 9, " -": 6}
    told = (
        TeacherToken(0, 1, (("3", 1.0),)),
        TeacherToken(1, 3, ((" +", 0.5), (" -", 0.25), (" minus", 0.125), (" +", 0.0625))),
        TeacherToken(3, 6, ((" 44", 1.0),)),
        TeacherToken(6, 7, ((".", 1.0),)),
    )
    # The student writes " 44" in two tokens. Of two tokens of one text the probabilities add up; " minus" has no token.
    aligned = align([(0, 1), (1, 3), (3, 5), (5, 6), (6, 7)], [3, 5, 7, 8, 9], told, text, known)
    assert aligned == [
        SoftTarget((3,), (1.0,)),
        SoftTarget((5, 6), (0.5625, 0.25), 0.125),
        None,
        None,
        SoftTarget((9,), (1.0,)),
    ]


def test_a_token_of_which_nothing_is_in_the_vocabulary_stays_itself() -> None:
    assert align([(0, 1)], [3], [TeacherToken(0, 1, (("twelve", 1.0),))], "3", {"3": 3}) == [None]


def test_a_space_that_a_tokenizer_leaves_out_of_its_spans_belongs_to_the_word() -> None:
    told = [TeacherToken(0, 3, ((" We", 1.0),)), TeacherToken(3, 7, ((" add", 1.0),))]
    assert align([(1, 3), (4, 7)], [1, 2], told, " We add", {" We": 1, " add": 2}) == [
        SoftTarget((1,), (1.0,)),
        SoftTarget((2,), (1.0,)),
    ]


def test_a_word_without_its_space_is_another_token() -> None:
    # The space is a token of its own, with an empty span: what follows is "add" and not " add".
    assert align([(0, 0), (1, 4)], [9, 3], [TeacherToken(0, 4, ((" add", 1.0),))], " add", {" add": 2, "add": 3}) == [
        None,
        None,
    ]


@st.composite
def two_cuts(draw: Any) -> tuple[str, list[int], list[int]]:
    """Draw a text and two ways to cut it into tokens, as the places of their ends."""
    text = draw(st.text("ab ", min_size=1, max_size=12))
    inner = st.sets(st.integers(1, len(text) - 1)) if len(text) > 1 else st.just(set())
    return text, *(sorted({*draw(inner), len(text)}) for _ in range(2))


def pieces(text: str, ends: list[int]) -> list[tuple[int, int]]:
    return list(zip([0, *ends[:-1]], ends, strict=True))


@given(two_cuts(), st.text("xy", max_size=3), st.text("xy", max_size=3))
def test_just_the_tokens_that_begin_and_end_together_are_aligned(
    cuts: tuple[str, list[int], list[int]], before: str, after: str
) -> None:
    text, of_teacher, of_student = cuts
    known = {text[i:j]: 100 * i + j for i, j in pieces(text, of_student)}
    ids = [known[text[i:j]] for i, j in pieces(text, of_student)]
    said = teacher(before, *(text[i:j] for i, j in pieces(text, of_teacher)), after)
    aligned = align(pieces(text, of_student), ids, place(said, text, text, 0), text, known)
    both = set(pieces(text, of_teacher)) & set(pieces(text, of_student))
    assert [piece for piece, target in zip(pieces(text, of_student), aligned, strict=True) if target] == (
        sorted(both) if text.strip() else []
    )  # blank: no answer
    assert all(target is None or target == SoftTarget((own,), (1.0,)) for own, target in zip(ids, aligned, strict=True))


# --- the texts of tokens


def test_every_text_of_one_token_is_known_by_its_id() -> None:
    known = single_tokens(TOKENIZER)
    assert TOKENIZER.eos_token not in known
    assert len(known) > 200
    for text, token in known.items():
        assert TOKENIZER.decode([token]) == text


def sentence_pieces() -> Any:
    """Return a tokenizer that writes spaces into the words behind them and leaves out the one that opens a text."""
    pieces_ = ["<unk>", "<end>", "<0x61>", "a", "\u2581a", "b", "\u2581b", "\u2581"]
    made = Tokenizer(models.BPE(vocab={text: i for i, text in enumerate(pieces_)}, merges=[], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", unk_token="<unk>")


def test_the_space_of_a_sentence_piece_is_part_of_its_text() -> None:
    assert single_tokens(sentence_pieces()) == {"a": 3, " a": 4, "b": 5, " b": 6, " ": 7}


class OddTokenizer:
    """Its tokens change what stands before them, have no text of their own, or no readable one; cleaned up, all do."""

    all_special_ids = (0,)
    texts = ("<s>", "ab", "xb", "a", "a\ufffd", "a .")

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        assert (text, add_special_tokens) == ("a", False)
        return {"input_ids": [9]}

    def __len__(self) -> int:
        return len(self.texts)

    def decode(self, ids: list[int], **options: bool) -> str:
        assert (ids, options) == ([9], {"skip_special_tokens": False, "clean_up_tokenization_spaces": False})
        return "a"

    def batch_decode(self, batch: list[list[int]], **options: bool) -> list[str]:
        assert options == {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        return [self.texts[token] for _, token in batch]


def test_a_token_without_a_text_of_its_own_behind_another_is_none() -> None:
    assert single_tokens(OddTokenizer()) == {"b": 1, " .": 5}  # type: ignore[arg-type]


def test_what_a_teacher_thought_impossible_is_no_target() -> None:
    told = TeacherToken(0, 1, (("a", 0.0), ("b", 0.5), ("zz", 0.25)))
    assert align([(0, 1)], [1], [told], "a", {"a": 1, "b": 2}) == [SoftTarget((2,), (0.5,), 0.25)]
    assert align([(0, 1)], [1], [TeacherToken(0, 1, (("a", 0.0),))], "a", {"a": 1}) == [None]


# --- encoding


def rows_of(columns: dict[str, list[Any]]) -> list[list[tuple[int, dict[int, float]]]]:
    """Return (token, what it is to be) of every token of every sequence."""
    return [
        [
            (token, dict(zip(ids, probs, strict=True)))
            for token, ids, probs in zip(*(columns[name][i] for name in ("input_ids", *SOFT_COLUMNS)), strict=True)
        ]
        for i in range(len(columns["input_ids"]))
    ]


def test_only_tokens_of_the_segment_are_soft() -> None:
    (row,) = soft_chains(1)
    columns, report = encode(TOKENIZER, [row], soft_stage(), None)
    chain, label = rows_of(columns)
    rationale = TOKENIZER(" " + row["chain"]["rationale"])["input_ids"]
    first = len(TOKENIZER(f"Q: {row['question']}\nA:")["input_ids"])
    for place_, (token, target) in enumerate(chain):
        if not first <= place_ < first + len(rationale):
            assert target == {token: 1.0}
            continue
        expected = {token: chance(place_ - first)}
        for text, prob in OTHERS[:2]:
            other = TOKENIZER(text)["input_ids"][0]
            expected[other] = expected.get(other, 0.0) + prob
        assert target == pytest.approx(expected)
    assert all(target == {token: 1.0} for token, target in label)
    mass = sum(chance(i) + 0.2 + 0.125 for i in range(len(rationale)))
    assert report.softened == {
        "chain": Softened(
            len(rationale), len(rationale), pytest.approx(mass), pytest.approx(OTHERS[2][1] * len(rationale))
        )
    }
    assert json.loads(json.dumps(asdict(report)))["softened"]["chain"]["aligned"] == len(rationale)


def test_a_stage_without_soft_targets_has_no_columns_of_them() -> None:
    columns, report = encode(TOKENIZER, soft_chains(1), stage({"chain": COT}), None)
    assert not set(SOFT_COLUMNS) & set(columns)
    assert report.softened == {}


@pytest.mark.parametrize("vocabulary", [270, 300])
def test_a_teacher_with_another_tokenizer_shares_the_tokens_of_the_same_characters(vocabulary: int) -> None:
    other = tiny_tokenizer(vocabulary)
    rows = soft_chains(6, other)
    ours = theirs = 0
    for row, sequence in zip(rows, rows_of(encode(TOKENIZER, rows, stage({"chain": SOFT}), None)[0]), strict=True):
        text = " " + row["chain"]["rationale"]
        of_teacher = set(other(written(row), return_offsets_mapping=True)["offset_mapping"])
        of_student = TOKENIZER(text, return_offsets_mapping=True)["offset_mapping"]
        shared = [TOKENIZER(text)["input_ids"][i] for i, span in enumerate(of_student) if span in of_teacher]
        soft = [token for token, target in sequence if target != {token: 1.0}]
        assert soft == shared
        ours, theirs = ours + len(of_student), theirs + len(shared)
    assert 0 < theirs < ours


def test_records_come_as_well_from_a_dataset(tmp_path: Path) -> None:
    rows = soft_chains(2)
    Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    read = list(Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path)))
    assert encode(TOKENIZER, read, soft_stage(), None)[0] == encode(TOKENIZER, rows, soft_stage(), None)[0]


def test_a_record_whose_teacher_told_nothing_is_learnt_as_it_is() -> None:
    rows = soft_chains(2)
    rows[0]["chain"]["logprobs"] = None
    columns, report = encode(TOKENIZER, rows, stage({"chain": SOFT}), None)
    hard, soft = rows_of(columns)
    assert all(target == {token: 1.0} for token, target in hard)
    assert any(target != {token: 1.0} for token, target in soft)
    assert 0 < report.softened["chain"].aligned < report.softened["chain"].tokens


def test_tokens_keep_their_targets_behind_a_segment_whose_tokens_were_dropped() -> None:
    rows = soft_chains(3)
    masked = {"text": " {question}", "transform": {"kind": "mask", "unit": "token", "share": 0.5, "symbol": None}}
    view = {"prompt": PROMPT, "target": [masked, *SOFT["target"]]}
    of_stage = stage({"view": view})
    sequences = rows_of(encode(TOKENIZER, rows, of_stage, None)[0])
    assert len(sequences) == 3
    for row, sequence in zip(rows, sequences, strict=True):
        tokens = encode_record(TOKENIZER, StageViews(of_stage, rows), rows.index(row))[0][0]
        soft = [token for token, target in sequence if target != {token: 1.0}]
        assert soft == TOKENIZER(" " + row["chain"]["rationale"])["input_ids"]
        assert [int(token) for token in tokens.input_ids[tokens.segments == 1]] == soft


def test_targets_that_no_record_has_refuse_the_run(student: str, tmp_path: Path) -> None:
    rows = soft_chains(3)
    for row in rows:
        row["chain"]["logprobs"] = None
    with pytest.raises(UserError, match=r"stages.s.views.chain: none of \d+ tokens with soft_targets"):
        make_trainer(soft_stage(), rows, student, tmp_path, {}, "plain")


def test_a_column_of_another_form_names_record_and_column() -> None:
    (row,) = soft_chains(1)
    row["chain"]["logprobs"] = [0.5]
    with pytest.raises(UserError, match=r"soft_targets: column 'chain.logprobs' of record 'sum/0#0': found no list"):
        encode(TOKENIZER, [row], soft_stage(), None)


# --- the loss


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_student(tmp_path_factory.mktemp("student"))


ROWS = soft_chains(6)
SEQUENCES = 2 * len(ROWS)


def step(student: str, of_stage: Stage, folder: Path, rows: list[dict[str, Any]] = ROWS) -> tuple[float, torch.Tensor]:
    """Take one optimizer step; return its loss and its gradient."""
    trainer, _ = make_trainer(of_stage, rows, student, folder, {}, "plain")
    gradients = Gradients()
    trainer.add_callback(gradients)
    trainer.train()
    return next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry), gradients.steps[0]


LAYOUTS: dict[str, dict[str, Any]] = {
    "padded": {"per_device_train_batch_size": SEQUENCES},
    "padded to multiples": {"per_device_train_batch_size": SEQUENCES, "pad_to_multiple_of": 16},
    "accumulated": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": SEQUENCES // 2},
    "packed": {"per_device_train_batch_size": SEQUENCES, "packing": True, "max_length": 160},
    "packed and accumulated": {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": SEQUENCES,
        "packing": True,
        "max_length": 160,
    },
    "padding-free": {"per_device_train_batch_size": SEQUENCES, "padding_free": True},
    "checkpointed": {"per_device_train_batch_size": SEQUENCES, "activation_checkpointing": True},
}


@pytest.fixture(scope="module")
def by_hand(student: str) -> tuple[float, torch.Tensor]:
    return soft_by_hand(student, ROWS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_loss_is_the_cross_entropy_against_the_teacher(
    student: str, by_hand: tuple[float, torch.Tensor], tmp_path: Path, layout: str
) -> None:
    loss, gradient = step(student, soft_stage(**LAYOUTS[layout]), tmp_path)
    assert loss == pytest.approx(by_hand[0], rel=1e-5)
    assert difference(gradient, by_hand[1]) < 1e-5


def test_the_loss_on_held_out_records_does_not_depend_on_their_batches(student: str, tmp_path: Path) -> None:
    def held_out(batch: int) -> float:
        of_stage = soft_stage(eval_strategy="steps", per_device_eval_batch_size=batch)
        trainer, report = make_trainer(
            of_stage.model_copy(update={"validation": 0.5}), soft_chains(9), student, tmp_path, {}, "plain"
        )
        assert report.held_out is not None
        assert report.held_out.softened["chain"].aligned
        loss: float = trainer.evaluate()["eval_loss"]
        return loss

    assert held_out(4) == pytest.approx(held_out(64), rel=1e-5)


def test_the_head_that_tells_one_probability_a_token_is_not_used(student: str, tmp_path: Path) -> None:
    trainer, _ = make_trainer(soft_stage(), ROWS, student, tmp_path, {}, "plain")
    batch = next(iter(trainer.get_train_dataloader()))
    assert trainer.head == "plain"
    assert batch["soft_ids"].shape == batch["soft_probs"].shape == (*batch["input_ids"].shape, 3)
    assert batch["soft_ids"].dtype == torch.int64
    # What fills a batch up, and what stands in it for a token without alternatives, has no probability.
    filled = batch["attention_mask"] == 0
    assert filled.any()
    assert not batch["soft_probs"][filled].any()


# --- what people see


def test_explain_underlines_soft_tokens_and_tells_what_was_likely() -> None:
    view, label = shown_views(TOKENIZER, ROWS[:1], [soft_stage()], "plain", 1)
    rationale = TOKENIZER(" " + ROWS[0]["chain"]["rationale"])["input_ids"]
    assert f"{len(rationale)} of {len(rationale)} tokens with soft targets are the teacher's too" in view.about
    assert "soft" not in label.about
    assert [view.tokens[position][0] for position in sorted(view.soft)] == [TOKENIZER.decode([t]) for t in rationale]
    likely = [(TOKENIZER.decode(rationale[:1]), 0.25), (" the", 0.2), (" of", 0.125)]  # " zebra crossings" is no token
    assert [(text, pytest.approx(prob)) for text, prob in view.soft[min(view.soft)]] == likely
    styled = [span for span in as_terminal_text(view).spans if "underline" in str(span.style)]
    assert len(styled) == len(rationale)
    page = as_html([view])
    assert page.count('class="soft"') == len(rationale)
    assert "&#x27; the&#x27; 0.200" in page
