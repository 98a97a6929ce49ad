"""What identifies a recipe's results is the same in every process: for every recipe, whatever the order of sets."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.identities import recipes
from tests.tiny_recipe import ROOT, environment

pytestmark = pytest.mark.slow

# In these two, `{"a", ..., "f"}` lists its items in different orders.
SEEDS = ("0", "1")


@pytest.fixture(scope="module")
def computed() -> list[dict[str, Any]]:
    """The identities of all recipes, as two processes compute them side by side."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.identities"],
            cwd=ROOT,
            env=environment() | {"PYTHONHASHSEED": seed, "COT_DATA": "/nowhere"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in SEEDS
    ]
    told = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    return [json.loads(text) for text in told]


def test_the_two_processes_order_sets_otherwise(computed: list[dict[str, Any]]) -> None:
    orders = [found["set"]["order of a set"] for found in computed]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_identities_are_computed_without_torch(computed: list[dict[str, Any]]) -> None:
    assert [found["set"]["torch"] for found in computed] == [False, False]


@pytest.mark.parametrize("recipe", [str(path.relative_to(ROOT)) for path in recipes()])
def test_a_recipe_has_the_same_identities_in_every_process(computed: list[dict[str, Any]], recipe: str) -> None:
    one, other = (found[str(ROOT / recipe)] for found in computed)
    assert one == other
    assert {"recipe", "resolved"} < one.keys() or recipe.startswith("recipes/data/")


def test_all_kinds_of_identities_are_compared(computed: list[dict[str, Any]]) -> None:
    found = [identities for name, identities in computed[0].items() if name != "set"]
    assert len(found) == len(recipes())
    for kind, fewest in {"settings": 90, "requests": 50, "origin": 80, "run": 80, "start": 80}.items():
        assert sum(bool(identities.get(kind)) for identities in found) >= fewest, kind
    adapted = [identities for identities in found if '"lora_target_modules": [' in identities["resolved"]]
    assert len(adapted) >= 6
