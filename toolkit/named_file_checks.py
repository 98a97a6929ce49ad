"""Whether the files that a recipe names are there and hold what they should; without torch, and without the Hub.

Of rows the first ones are read. What is on the Hub is not asked for.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path as FilePath
from typing import Any

from toolkit.errors import UserError, nearest
from toolkit.named_files import Kind, Named, is_written_as_path
from toolkit.problem_files import Row, read_rows
from toolkit.prompts import check_prompt
from toolkit.recipe_faults import Path

_MOST_FILES, _MOST_ROWS = 3, 3  # that are looked into, of those that match a pattern
_MOST_BYTES = 32 << 20  # of a document that has to be read whole
_LINES = (".jsonl", ".csv", ".tsv")
_SLOT = re.compile(r"\{\w+\}")
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf", "*.index.json")
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "*.model", "vocab.json", "vocab.txt", "tokenizer_config.json")


def file_faults(files: Iterable[Named]) -> Iterator[tuple[Path, str]]:
    """Give path and text of every file that is missing or not what it should be."""
    files = list(files)
    fills_a_store = any(hasattr(named.owner, "completion") and named.kind == "rows" for named in files)
    for named in files:
        check = _CHECKS[named.kind]
        if named.kind == "store" and fills_a_store and not os.path.exists(named.text):
            continue  # recordings of the recipe are read into it first
        try:
            check(named)
        except UserError as error:
            yield named.path, str(error)
        except (OSError, ValueError) as error:  # ValueError: a path with a NUL byte
            yield named.path, f"found {_shown(named.text)}, which cannot be read: {error}"


def _rows(named: Named) -> None:
    found = _matching(named.text)
    check_row: Callable[[Row], None] | None = getattr(named.owner, "check_row", None)
    for path in found[:_MOST_FILES]:
        is_lines = path.removesuffix(".gz").endswith(_LINES)
        if check_row is None or (not is_lines and os.path.getsize(path) > _MOST_BYTES):
            continue
        for row in islice(read_rows(glob.escape(path), getattr(named.owner, "records", None)), _MOST_ROWS):
            if row.fault:
                raise UserError(f"{row.place}: {row.fault}")
            try:
                check_row(row)
            except UserError as error:
                told = str(error)
                raise UserError(told if told.startswith(row.place) else f"{row.place}: {told}") from None


def _text(named: Named) -> None:
    for path in _matching(glob.escape(named.text))[:_MOST_FILES]:
        if os.path.getsize(path) > _MOST_BYTES:
            raise UserError(f"{path}: found {os.path.getsize(path):,} bytes, which is no prompt")
        check_prompt(str(named.path[-1]), FilePath(path))


def _file(named: Named) -> None:
    _matching(glob.escape(named.text))


def _settings(named: Named) -> None:
    (path,) = _matching(glob.escape(named.text))
    try:
        is_object = isinstance(json.loads(FilePath(path).read_text(encoding="utf-8")), dict)
    except ValueError as error:  # also bytes that are no UTF-8
        raise UserError(f"{path}: is no JSON: {error}") from None
    if not is_object:
        raise UserError(f"{path}: holds no JSON object")


def _model(named: Named) -> None:
    folder = _folder(named)
    if folder is None:
        return
    adapter = (folder / "adapter_config.json").is_file()
    _require(folder, ("config.json", "adapter_config.json", "*.gguf"), "configuration (config.json)")
    _require(folder, ("adapter_model.*",) if adapter else _WEIGHTS, "weights")
    _require(folder, ("*.gguf", *_TOKENIZER), "tokenizer")
    if getattr(named.owner, "prompt_format", None) == "chat" and not getattr(named.owner, "chat_template", None):
        _require_chat_template(folder)
    config = folder / "config.json"
    if config.is_file():
        try:
            kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
        except (ValueError, AttributeError) as error:
            raise UserError(f"{config}: is no configuration of a model: {error}") from None
        if not isinstance(kind, str):
            raise UserError(f"{config}: has no model_type, so it is no configuration of a model")


def _require_chat_template(folder: FilePath) -> None:
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        settings = {}
    beside = [
        file for name in ("chat_template.*", "additional_chat_templates/*", "*.gguf") for file in folder.glob(name)
    ]
    if not beside and not (isinstance(settings, dict) and settings.get("chat_template")):
        raise UserError(f"{folder}: has no chat template, which prompt_format: chat needs")


def _tokenizer(named: Named) -> None:
    if folder := _folder(named):
        _require(folder, ("tokenizer.json",), "tokenizer.json")


def _dataset(named: Named) -> None:
    if folder := _folder(named):
        _require(folder, ("*", "*/*"), "files")


def _rows_of_a_dataset(named: Named) -> None:
    if hasattr(named.text, "portable") and "://" not in named.text:  # others are the dataset's own
        _matching(named.text)


_CHECKS: dict[Kind, Callable[[Named], None]] = {
    "rows": _rows,
    "text": _text,
    "store": _file,
    "recipe": _file,
    "settings": _settings,
    "model": _model,
    "tokenizer": _tokenizer,
    "dataset": _dataset,
    "rows of a dataset": _rows_of_a_dataset,
}


def _matching(pattern: str) -> list[str]:
    """Return the files that a pattern with slots matches.

    Raises:
        UserError: There is none, or what matches is no file.
    """
    patterns = [pattern.replace("{split}", split) for split in ("train", "test")]
    found = sorted({path for each in patterns for path in glob.glob(_SLOT.sub("*", each), recursive=True)})
    files = [path for path in found if os.path.isfile(path)]
    if files:
        return files
    if found:
        what = "a folder" if os.path.isdir(found[0]) else "no file (a named pipe, a socket or a device)"
        raise UserError(f"found {_shown(pattern)}, which is {what}, allowed a file")
    shown = re.sub(r"\[([*?[])\]", r"\1", pattern)  # without what `glob.escape` has put there
    raise UserError(f"found {_shown(shown)}, but there is no such file{_near(shown)}")


def _folder(named: Named) -> Any:
    """Return the folder that a name stands for; None for one of the Hub.

    Raises:
        UserError: It can be no name of the Hub, and there is no such folder; or only where the command is typed.
    """
    text = named.text
    if os.path.isdir(text):
        if not hasattr(text, "portable"):
            raise UserError(
                f"found {_shown(text)}, which is a folder in the working directory and not beside the recipe, whose "
                f"paths are relative to its file; write the folder's path from there, or its absolute one"
            )
        return FilePath(text)
    # What another recipe makes may be missing still: who needs it says by which recipe.
    if is_written_as_path(text) and not getattr(named.owner, "recipe", None):
        if os.path.exists(text):
            raise UserError(f"found {_shown(text)}, which is no folder")
        raise UserError(f"found {_shown(text)}, but there is no such folder{_near(text)}")
    return None


def _require(folder: FilePath, patterns: Iterable[str], what: str) -> None:
    if not any(file.exists() for pattern in patterns for file in folder.glob(pattern)):
        raise UserError(f"{folder}: holds no {what}")


def _near(path: str) -> str:
    missing = FilePath(path)
    while not missing.parent.is_dir():
        missing = missing.parent
    with os.scandir(missing.parent) as entries:
        names = [entry.name for entry in islice(entries, 2_000)]
    where = "" if missing == FilePath(path) else f": {str(missing.parent)!r} holds no {missing.name!r}"
    return where + nearest(missing.name, names)


def _shown(text: str) -> str:
    return repr(str(text) if len(text) <= 200 else f"{text[:100]}...{text[-90:]}")
