"""What changed between the versions of a published dataset, for its changelog: rows, settings and the builder.

A version is compared with the newest lower one that lies in the same hub, by what that says of itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from toolkit import hub
from toolkit.cards import split
from toolkit.version_rules import CARD, version

_BLOCK = re.compile(r"<!-- generated:changelog -->\n(.*?)<!-- /generated:changelog -->", re.DOTALL)
_BUILT_BY = re.compile(r"this dataset was built by (\d+\.\d+\.\d+)")
_ROWS = re.compile(r"Configuration (\w+), rows (\w+)")
_OUTSIDE = ("repo_id", "revision")  # of a recipe's section `dataset`: names, not settings
_MOST = 20  # settings that are listed


def changelog(
    hub_dir: str | Path,
    repo_id: str,
    revision: str,
    *,
    splits: Mapping[str, int],
    recipe: str,
    builder_version: str,
    changes: Mapping[str, str],
    digests: tuple[str, str],
) -> list[str]:
    """Return the entries of a dataset's changelog, the newest first.

    Args:
        hub_dir: The local hub.
        repo_id: Name of the dataset.
        revision: The version that is being built.
        splits: Rows by `config / split`.
        recipe: The recipe that asks for it, as YAML; empty where none does.
        builder_version: Version of the builder.
        changes: What the builder's own versions changed.
        digests: Of settings, prompts and code, and of the rows.

    Raises:
        UserError: The card of the version before cannot be read.
    """
    before = [name for name in hub.revisions(hub_dir, "dataset", repo_id) if version(name) < version(revision)]
    if not before:
        return [f"{revision}: the first version here, {_counted(splits)}."]
    folder = hub.folder(hub_dir, "dataset", repo_id, before[-1])
    card = hub.card_text(folder / CARD) if (folder / CARD).exists() else ""
    file = folder / "recipe.yaml"
    said = [
        *_rows(_splits(card), splits),
        *_settings(file.read_text(encoding="utf-8") if file.is_file() else "", recipe),
        *_builder(_BUILT_BY.search(card), builder_version, changes),
        *([] if _splits(card) != splits else _contents(_ROWS.search(card), digests)),
    ]
    entry = f"{revision}, after {before[-1]}: {'; '.join(said) or 'rows and settings are the same'}."
    block = _BLOCK.search(card)
    earlier = [line.removeprefix("- ") for line in (block[1] if block else "").splitlines() if line.startswith("- v")]
    return [entry, *earlier]


def _counted(splits: Mapping[str, int]) -> str:
    return ", ".join(f"{rows} rows of `{name}`" for name, rows in splits.items())


def _splits(card: str) -> dict[str, int]:
    """Return the rows by `config / split` as a card's front matter has them."""
    listed = split(card)[0].get("dataset_info") or []
    infos = [listed] if isinstance(listed, dict) else listed
    return {
        f"{info.get('config_name', 'default')} / {one['name']}": one["num_examples"]
        for info in infos
        for one in info.get("splits", ())
    }


def _rows(before: Mapping[str, int], after: Mapping[str, int]) -> Iterator[str]:
    for name in dict.fromkeys([*after, *before]):
        old, new = before.get(name, 0), after.get(name, 0)
        if old != new:
            yield f"`{name}` has {new} rows, before {old}"


def _settings(before: str, after: str) -> Iterator[str]:
    old, new = (dict(_leaves((yaml.safe_load(text) or {}).get("dataset") or {})) for text in (before, after))
    if not old or not new:
        return
    changed = [key for key in dict.fromkeys([*new, *old]) if old.get(key) != new.get(key)]
    for key in changed[:_MOST]:
        yield f"`dataset.{key}` is {_shown(new.get(key))}, before {_shown(old.get(key))}"
    if len(changed) > _MOST:
        yield f"{len(changed) - _MOST} more settings are others"


def _leaves(section: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what is set, each by its dotted key."""
    if not isinstance(section, dict) or not section:
        yield path, section
        return
    for key, value in section.items():
        if path or key not in _OUTSIDE:
            yield from _leaves(value, f"{path}.{key}" if path else str(key))


def _shown(value: Any) -> str:
    text = " ".join(str(value).split())
    return "not set" if value is None else text if len(text) <= 60 else f"{text[:57]}..."


def _builder(before: re.Match[str] | None, after: str, changes: Mapping[str, str]) -> Iterator[str]:
    if before is None or before[1] == after:
        return
    newer = [text.rstrip(".") for name, text in changes.items() if version(name) > version(before[1])]
    yield f"its builder is {after}, before {before[1]}" + (f" ({'; '.join(newer)})" if newer else "")


def _contents(before: re.Match[str] | None, after: tuple[str, str]) -> Iterator[str]:
    """Say that rows are others where there are as many as before."""
    if before is not None and before[2] != after[1]:
        same = "settings, prompts and code" if before[1] == after[0] else "numbers of rows"
        yield f"rows have other content, with the same {same}"
