from __future__ import annotations

from pathlib import Path

import pytest

from dataset_builders import figures
from tests.scripted_answers import problem
from toolkit.errors import UserError


def test_micro_share_counts_words_and_the_median_counts_pairs() -> None:
    share = figures.key_share([("a b c d", "a b c x"), ("a b", "a b"), ("p", "q")])

    assert share is not None
    assert (share.right, share.median_right) == (2 / 7, 0.25)
    assert share.median_spans == 1


def test_without_pairs_there_is_no_share() -> None:
    assert figures.key_share([]) is None


def test_shares_are_given_for_all_and_for_each_task() -> None:
    records = [
        {"task": task, "right": {"rationale": right}, "wrong": {"rationale": "a b"}}
        for task, right in (("t2", "a b"), ("t1", "a c"))
    ]

    shares = figures.key_shares(records, {"words": figures.split_words})["words"]

    assert {task: share.right for task, share in shares.items()} == {"all tasks": 0.25, "t1": 0.5, "t2": 0.0}


def test_shares_may_be_measured_in_a_tokenizer_s_tokens(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    share = figures.key_share([("aaab", "aaaa")], figures.tokenizer_split(str(tmp_path)))

    assert share is not None
    assert share.right == 0.25


def test_a_tokenizer_that_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be loaded"):
        figures.tokenizer_split(str(tmp_path))


def test_overlap_finds_the_same_words_and_long_runs_of_them() -> None:
    run = " ".join(f"word{index}" for index in range(13))
    asked = [problem("a"), problem("b"), problem("c"), problem("d")]
    texts = ["What IS  this!", f"Now {run} then?", "Something else.", f"Short {run.rsplit(' ', 1)[0]}"]
    asked = [type(one)(id=one.id, task="t", question=text, answer="1") for one, text in zip(asked, texts, strict=True)]

    (found,) = figures.overlaps({"set": asked}, ["What is this?", f"Here {run} again."])

    assert (found.questions, found.exact, found.ngram) == (4, 1, 2)


@pytest.mark.parametrize(
    ("question", "other", "ngram"),
    [
        ("小明有十二个苹果他吃了三个还剩几个", "问：小明有十二个苹果他吃了三个，共几个？", 1),
        ("小明有十二个苹果他吃了三个还剩几个", "小红有九支笔", 0),
        ("राम की किताब", "राम का किताब", 0),  # vowel signs tell words apart
        ("Café au lait", "Cafe\u0301 au lait", 1),
    ],
)
def test_overlap_is_found_in_any_script(question: str, other: str, ngram: int) -> None:
    asked = [type(problem("a"))(id="a", task="t", question=question, answer="1")]
    (found,) = figures.overlaps({"set": asked}, [other])
    assert found.ngram == ngram


def test_lengths_are_in_words_and_marks() -> None:
    (measured,) = figures.lengths([{"x": "a b c."}, {"x": "a"}])

    assert (measured.column, measured.median) == ("x", 2.5)
    assert (measured.mean, measured.longest) == (2.5, 4)


def test_without_a_tokenizer_shares_are_measured_in_tokens_trained_on_the_chains() -> None:
    records = [{"right": {"rationale": "two plus two is four"}, "wrong": {"rationale": "two plus two is five"}}] * 4
    split = figures.trained_split(records)

    assert [len(split(text)) for text in ("two plus two is four", "")] == [5, 0]
    assert split("zebra \N{SNOWMAN}") != split("zebra ")  # any text can be written


def test_completeness_counts_the_records_that_have_an_error() -> None:
    assert figures.completeness([0.01, None, 0.03, 0.2, 0.02]) == figures.Completeness(4, 0.025, 0.03, 0.25)
    assert figures.completeness([None]) is None
