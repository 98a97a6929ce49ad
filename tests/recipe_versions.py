"""What each recipe's version stands for: digests of what its results come from, in `tests/recipe_versions.json`.

python -m tests.recipe_versions          # after a recipe's version has been raised
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from toolkit.cli import open_recipe

ROOT = Path(__file__).parents[1]
FILE = Path(__file__).with_suffix(".json")
# What a result does not come from: names, places, what cards say, and how fast a teacher is asked.
_OUTSIDE = ("recipe", "publish", "output_dir", "hub_dir")
_OF_THE_DATASET = ("title", "summary", "license", "source_terms", "language", "check_against", "tokenizer", "collect")

# Keys of a teacher that the schema has gained, as they are where nobody sets them: those change no older recipe.
_GAINED = dict.fromkeys(("temperature", "top_p", "seed", "stop"), "sampling") | {"request": {}, "query": {}}


def recipes() -> list[Path]:
    """Return every recipe that is scored."""
    return [
        path
        for folder in ("", "chat", "counterfactual", "mixed", "mysteries", "paper")
        for path in sorted((ROOT / "recipes" / folder).glob("*.yaml"))
    ]


def identity(path: Path) -> dict[str, Any]:
    """Return a recipe's version, and the digest of everything in it that its results come from."""
    recipe = open_recipe(str(path))
    content = {key: value for key, value in recipe.resolved().items() if key not in _OUTSIDE}
    settings = content["dataset"]["config"] or {}
    content["dataset"]["config"] = {key: value for key, value in settings.items() if key not in _OF_THE_DATASET}
    teachers = settings.get("teacher") or []
    for teacher in teachers if isinstance(teachers, list) else [teachers]:
        teacher.pop("max_response_mb", None)  # a bound, and no setting of the answers
        for key in [key for key, value in _GAINED.items() if teacher.get(key) == value]:
            del teacher[key]
    digest = hashlib.sha256(json.dumps(_said(content), sort_keys=True).encode()).hexdigest()
    return {"version": recipe.recipe.version, "digest": digest[:16]}


def _said(content: Any) -> Any:
    """Return content without what is not set: a key that the schema has gained changes no older recipe."""
    if isinstance(content, dict):
        return {key: _said(value) for key, value in content.items() if value is not None}
    return [_said(item) for item in content] if isinstance(content, list) else content


if __name__ == "__main__":
    known = {str(path.relative_to(ROOT)): identity(path) for path in recipes()}
    FILE.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
