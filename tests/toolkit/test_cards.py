from __future__ import annotations

import jinja2
import pytest
import yaml
from huggingface_hub import DatasetCard

from toolkit.cards import document, merge, render, shown_files, with_block
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
