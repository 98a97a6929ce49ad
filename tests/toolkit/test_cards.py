from __future__ import annotations

import time
from typing import Any

import jinja2
import pytest
import yaml
from huggingface_hub import DatasetCard
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile_cards import DAMAGED, READABLE
from toolkit.cards import document, merge, read_card, render, shown_files, split, with_block
from toolkit.errors import UserError


def block(name: str, text: str) -> str:
    return f"<!-- generated:{name} -->\n{text}\n<!-- /generated:{name} -->\n"


def card(body: str, **data: object) -> str:
    return document({"license": "mit", **data}, body)


def test_front_matter_parses_as_the_hub_s_card_does() -> None:
    parsed = DatasetCard(card("# Title\n", pretty_name="A: b", tags=["x"], size_categories=None))

    assert parsed.data.to_dict() == {"license": "mit", "pretty_name": "A: b", "tags": ["x"]}


def test_a_variable_that_is_missing_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        render("dataset.md.jinja", title="x")


def test_a_card_made_again_without_edits_is_the_new_card() -> None:
    old, new = (card(f"# Title\n\n{block('a', text)}{block('b', 'same')}") for text in ("old", "new"))

    assert merge(old, new) == new
    assert merge(new, new) == new
    assert merge("", new) == new


def test_what_a_person_wrote_around_the_blocks_stays() -> None:
    old = card(f"# My title\n\nMy words.\n{block('a', 'old')}Between.\n{block('b', 'old')}\nBelow.\n")
    new = card(f"# Title\n{block('a', 'new')}{block('b', 'new')}")

    assert merge(old, new) == card(
        f"# My title\n\nMy words.\n{block('a', 'new')}Between.\n{block('b', 'new')}\nBelow.\n"
    )


def test_a_new_block_comes_behind_the_one_it_follows_and_an_old_one_goes() -> None:
    old = card(f"{block('a', '1')}Mine.\n{block('gone', '2')}{block('c', '3')}")
    new = card(f"{block('a', '1')}{block('b', 'new')}{block('c', '3')}")

    assert merge(old, new) == card(f"{block('a', '1')}{block('b', 'new')}Mine.\n{block('c', '3')}")


def test_generated_keys_win_and_others_stay() -> None:
    merged = merge(card("x", arxiv="2405.19737", license="mit"), card("x", license="apache-2.0"))

    assert yaml.safe_load(merged.split("---\n")[1]) == {"license": "apache-2.0", "arxiv": "2405.19737"}


def test_a_card_that_a_person_wrote_alone_keeps_all_its_text() -> None:
    merged = merge("# Mine\n\nAll of it.\n", card(block("a", "new")))

    assert merged == card(f"# Mine\n\nAll of it.\n{block('a', 'new')}")


def test_backslashes_and_braces_in_generated_text_survive_merging() -> None:
    new = card(block("a", r"\frac{1}{2} \1 \g<0>"))

    assert merge(card(block("a", "old")), new) == new


def test_front_matter_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(UserError, match="front matter"):
        merge("---\n- a\n---\n", card("x"))


def test_pictures_beside_a_card_are_told_from_those_elsewhere() -> None:
    text = "![a](own.png) ![b](<with/folder.jpg>) <img width=3 src='tag.svg'> [link](no.png) ![c](https://x.org/y.png)"
    assert shown_files(text + " ![d](/etc/passwd) ![e](../up.png) ![f](data:image/png;base64,AA==)") == {
        "own.png",
        "with/folder.jpg",
        "tag.svg",
    }


def test_one_block_is_replaced_and_the_others_stay() -> None:
    old = card(f"Mine.\n{block('a', '1')}Between.\n{block('b', '2')}")
    assert with_block(old, block("b", r"new \1")) == old.replace("2", r"new \1")
    assert with_block(old, block("c", "none")) == old


NEW = card(block("a", "new"))


@pytest.mark.parametrize("name", DAMAGED)
def test_a_card_that_is_not_understood_is_refused_by_name(name: str) -> None:
    content, reason = DAMAGED[name]
    with pytest.raises(UserError) as raised:
        merge(read_card(content, "the card there"), NEW)
    assert str(raised.value).startswith("the card there: ")
    assert reason in str(raised.value)


@pytest.mark.parametrize("name", READABLE)
def test_a_card_of_another_program_keeps_its_keys_and_words(name: str) -> None:
    merged = merge(read_card(READABLE[name], "the card there"), NEW)
    data, body = split(merged)
    assert data["license"] == "mit"
    assert data["mine"] == "kept"
    assert body.startswith("# Words\n")
    assert merge(merged, NEW) == merged


@pytest.mark.parametrize("body", ["# Words\n", "", "\n\n", "Words\n---\nmore\n", "Words\n\n---\n"])
def test_a_card_without_front_matter_is_all_body(body: str) -> None:
    assert split(body) == ({}, body)
    assert split(merge(f"x{body}", NEW))[1].startswith(f"x{body}")


@pytest.mark.parametrize("text", ["---\n---\n# Words\n", "---\n# a comment\n---\n# Words\n", "---\n~\n---\n# Words\n"])
def test_front_matter_may_be_empty(text: str) -> None:
    assert split(text) == ({}, "# Words\n")


def test_front_matter_may_end_with_the_file() -> None:
    assert split("---\na: b\n---") == ({"a": "b"}, "")


@pytest.mark.parametrize(
    "text",
    [
        "<!-- generated:a -->\n" * 200_000,
        "".join(f"<!-- generated:a{n} -->\n" for n in range(150_000)),
        "<!-- generated:a -->\nx\n<!-- /generated:a -->\n" * 80_000,
        "<!-- /generated:a -->\n" * 200_000,
        "![" * 2_000_000,
        "<img " * 900_000,
        "![](" * 1_000_000,
    ],
    ids=["openings", "openings of many names", "blocks", "closings", "labels", "tags", "pictures"],
)
def test_a_card_of_megabytes_is_merged_at_once(text: str) -> None:
    """Time that grows with the square of it would be hours."""
    began = time.process_time()
    shown_files(merge(text, NEW))
    assert time.process_time() - began < 20


def test_a_block_within_another_goes_with_it() -> None:
    inner = "<!-- generated:b -->\nb\n<!-- /generated:b -->\n"
    assert merge(card(block("a", inner.strip())), NEW) == NEW


def test_the_same_list_twice_is_written_out_twice() -> None:
    """An alias would not be read again."""
    tags = ["a"]
    assert split(document({"tags": tags, "others": tags}, ""))[0] == {"tags": ["a"], "others": ["a"]}


YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(), YAML, max_size=4), st.text(st.characters(exclude_characters="\0\r", codec="utf-8")))
def test_what_people_wrote_is_there_after_merging(data: dict[str, Any], words: str) -> None:
    """But for the generated keys, and keys without a value."""
    wrote = document(data, f"# Words\n{words}\n")
    kept, body = split(merge(wrote, NEW))
    assert {key: value for key, value in kept.items() if key != "license"} == {
        key: value for key, value in data.items() if value is not None and key != "license"
    }
    assert body.startswith(f"# Words\n{words}\n")


@given(st.binary(max_size=60) | st.text().map(lambda text: f"---\n{text}\n---\nx".encode(errors="replace")))
def test_any_bytes_are_merged_with_or_refused(content: bytes) -> None:
    try:
        merged = merge(read_card(content, "there"), NEW)
    except UserError:
        return
    assert split(merged)[0]["license"] == "mit"
