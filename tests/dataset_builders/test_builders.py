from __future__ import annotations

import subprocess
import sys

import pytest
from datasets import Version

from dataset_builders import BUILDERS, load_builder
from dataset_builders.asking import sorted_out
from dataset_builders.columns import leaves
from toolkit.errors import UserError


def test_an_unknown_builder_is_named_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match="did you mean 'dual_cots'"):
        load_builder("dual_cot")


def test_the_package_and_its_builders_load_no_torch_and_no_client() -> None:
    code = (
        "import sys, dataset_builders as d; print('datasets' in sys.modules, end=' ');"
        "[d.load_builder(name) for name in d.BUILDERS]; print('torch' in sys.modules, 'openai' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False False False\n"


@pytest.mark.parametrize("name", BUILDERS)
def test_columns_for_views_are_columns_of_the_records(name: str) -> None:
    builder = load_builder(name)

    assert {path for path, _ in leaves(builder.RECORD)} >= builder.COLUMNS
    assert {"question", "answer"} <= builder.COLUMNS


def test_dual_records_offer_both_chains_to_views() -> None:
    assert {"right.rationale", "right.answer", "wrong.rationale", "wrong.answer"} <= load_builder("dual_cots").COLUMNS


def test_two_records_of_one_name_are_an_error() -> None:
    with pytest.raises(UserError, match="two records are called 'a'"):
        sorted_out([{"id": "a", "reason": None}, {"id": "b", "reason": None}, {"id": "a", "reason": "wrong"}], [])


@pytest.mark.parametrize("name", BUILDERS)
def test_the_newest_change_of_a_builder_is_that_of_its_version(name: str) -> None:
    builder = load_builder(name)

    versions = [Version(version) for version in builder.CHANGES]
    assert versions[0] == builder.VERSION
    assert versions == sorted(versions, reverse=True)
    assert all(builder.CHANGES.values())


@pytest.mark.parametrize("name", BUILDERS)
def test_a_record_that_says_it_is_wrong_is_not_for_plain_trl_whoever_built_it(name: str) -> None:
    builder = load_builder(name)

    says = [builder.is_right({"id": "a", "correct": correct}) for correct in (True, False, None)]
    assert (says, builder.is_right({"id": "a"})) == ([True, False, False], True)
