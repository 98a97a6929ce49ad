"""Files that settings name: which fields hold them, where a relative path leads, and what stands in digests.

A field says by its type that it names a file (`DataFile`, `ModelName`, ...); nothing else keeps a list of such fields.
A relative path in a recipe is relative to the file that it is written in; on the command line to the working directory.
What is recorded or digested is the path from the project that holds the recipe, so that a checkout may be moved and a
command typed anywhere.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, PlainSerializer

Path = tuple[str | int, ...]
Kind = Literal["rows", "text", "store", "recipe", "settings", "model", "tokenizer", "dataset", "rows of a dataset"]
# These may be names of the Hub as well, and are files only where they look like one or there is one.
_OR_ON_THE_HUB: tuple[Kind, ...] = ("model", "tokenizer", "dataset")
_PROJECT = (".git", "pyproject.toml")


@dataclass(frozen=True)
class Names:
    """Marks a field whose texts are paths.

    Attributes:
        kind: What they name.
    """

    kind: Kind


class NamedFile(str):
    """A path that a recipe names, as it is used from the working directory.

    Attributes:
        portable: The same from the project's folder, for what is recorded and digested; an absolute path as it is.
    """

    portable: str


def portable(value: Any) -> Any:
    """Return a value with the paths in it as they are recorded."""
    if isinstance(value, NamedFile):
        return value.portable
    if isinstance(value, Mapping):
        return {key: portable(inner) for key, inner in value.items()}
    return [portable(inner) for inner in value] if isinstance(value, list | tuple) else value


_RECORDED = PlainSerializer(portable, when_used="json")
DataFile = Annotated[str, Names("rows"), _RECORDED]
"""File or glob pattern of rows; `{split}` stands for any text."""
TextFile = Annotated[str, Names("text"), _RECORDED]
"""File of text; `{task}` stands for any text."""
_AS_TEXT = BeforeValidator(lambda path: os.fspath(path) if isinstance(path, os.PathLike) else path)
StoreFile = Annotated[str, _AS_TEXT, Names("store"), _RECORDED]
"""File of a store of completions."""
RecipeFile = Annotated[str, Names("recipe"), _RECORDED]
"""Recipe that makes what a setting names."""
ModelName = Annotated[str, Names("model"), _RECORDED]
"""Folder of a model, or its name on the Hub."""
TokenizerName = Annotated[str, Names("tokenizer"), _RECORDED]
"""Folder of a tokenizer, or its name on the Hub."""
DatasetName = Annotated[str, Names("dataset"), _RECORDED]
"""Folder of a dataset, its name on the Hub, or a format."""
DatasetFiles = Annotated[str | list[str] | dict[str, str | list[str]], Names("rows of a dataset"), _RECORDED]
"""Files as `load_dataset` takes them; those of a format are files here, others are the dataset's own."""
SettingsFile = Annotated[dict[str, Any] | str, Names("settings"), _RECORDED]
"""File of a library's settings, or the settings."""


@dataclass(frozen=True)
class Named:
    """A file that settings name.

    Attributes:
        path: Keys that lead to it.
        kind: What it is.
        text: Its path or name.
        owner: The section that names it; a mapping for `training`.
    """

    path: Path
    kind: Kind
    text: str
    owner: Any


def named_files(section: BaseModel, above: Path = ()) -> Iterator[Named]:
    """Yield every file that a section and those in it name."""
    for name in type(section).model_fields:
        annotation = _annotations(type(section))[name]
        yield from _named_in(getattr(section, name), annotation, (*above, name), section)


def _named_in(value: Any, annotation: Any, path: Path, owner: Any) -> Iterator[Named]:
    kind = _kind_of(annotation)
    if isinstance(value, BaseModel):
        yield from named_files(value, path)
    elif isinstance(value, str):
        if kind is not None:
            yield Named(path, kind, value, owner)
    elif isinstance(value, Mapping) and (model := _model_of(annotation)):  # `training` is kept as a plain mapping
        for key, inner in value.items():
            yield from _named_in(inner, _annotations(model)[key], (*path, key), value)
    elif isinstance(value, Mapping | list | tuple) and kind != "settings":  # which are written out there
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _named_in(inner, annotation, (*path, key), owner)


@cache
def _annotations(model: type[BaseModel]) -> dict[str, Any]:
    """Return the annotations of a model's fields, with what pydantic has taken out of them."""
    return {
        name: Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation  # type: ignore[valid-type]
        for name, field in model.model_fields.items()
    }


def _kind_of(annotation: Any) -> Kind | None:
    """Return the kind of file that texts of a type name, None where they name none."""
    for part in get_args(annotation):
        if isinstance(part, Names):
            return part.kind
        if kind := _kind_of(part):
            return kind
    return None


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a value was checked against, None where it is no section."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def project_of(recipe: str) -> str:
    """Return the folder that recorded paths are relative to: the nearest above a recipe with `.git` or
    `pyproject.toml`, or else the recipe's own.
    """
    own = folder = os.path.dirname(os.path.abspath(recipe))
    while not any(os.path.exists(os.path.join(folder, name)) for name in _PROJECT):
        if folder == os.path.dirname(folder):
            return own
        folder = os.path.dirname(folder)
    return folder


def leads_to(text: str, kind: Kind, folder: str) -> str:
    """Return where a path leads from the working directory; a name that may be one of the Hub is left as it is.

    Args:
        text: The path, as it is written.
        kind: What it names.
        folder: Folder of the file that it is written in; empty for the working directory.
    """
    if not folder or os.path.isabs(text) or "://" in text or "\0" in text:
        return text
    joined = os.path.join(folder, text)
    if kind in _OR_ON_THE_HUB and not is_written_as_path(text) and not os.path.isdir(joined):
        return text
    found = os.path.relpath(joined) if os.path.isabs(folder) else os.path.normpath(joined)
    # A folder that is gone when it is loaded must not be taken for a name on the Hub.
    return f"./{found}" if kind in _OR_ON_THE_HUB and not is_written_as_path(found) else found


def is_written_as_path(text: str) -> bool:
    """Whether a text is a path by its look, and no name on the Hub."""
    return text.startswith(("/", "./", "../", "~")) or text in (".", "..")


def recorded(text: str, project: str) -> str:
    """Return a path as it is recorded: from the project's folder; an absolute one as it is."""
    is_file = not os.path.isabs(text) and "://" not in text
    return os.path.relpath(text, project) if is_file else text


def locate(section: BaseModel, folder_of: Callable[[Path], str | None], project: str) -> None:
    """Have the paths in a section lead from the working directory to where they were written to lead.

    Args:
        section: A section that nobody else has yet.
        folder_of: Gives the folder of the file that a value is written in, by its keys; None for a default.
        project: As of `project_of`.
    """
    for named in list(named_files(section)):
        folder = folder_of(named.path)
        is_name = named.kind in _OR_ON_THE_HUB and not is_written_as_path(named.text)
        if folder is None or (named.kind == "rows of a dataset" and not _is_format(named.owner)):
            continue
        if is_name and not os.path.isdir(os.path.join(folder, named.text)):
            continue  # a name on the Hub, or one that can be refused: a folder of the working directory alone
        plain = leads_to(named.text, named.kind, folder)
        # A pattern is what the recipe says, and not what the folder happens to be called that it lies in.
        is_pattern = named.kind in ("rows", "rows of a dataset")
        found = NamedFile(leads_to(named.text, named.kind, glob.escape(folder)) if is_pattern else plain)
        found.portable = recorded(plain, project)
        _put(section, named.path, found)


def _is_format(dataset: Any) -> bool:
    """Whether a dataset is just a format, such as `json`, so that its files are files here."""
    return "/" not in dataset.path and not os.path.isdir(dataset.path)


def _put(section: Any, path: Path, value: NamedFile) -> Any:
    """Put a value into a section and return that; sections are frozen for all but the loader of recipes."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(section, BaseModel):
        section.__dict__[str(key)] = _put(section.__dict__[str(key)], rest, value)
        return section
    if isinstance(section, tuple):
        return tuple(_put(inner, rest, value) if index == key else inner for index, inner in enumerate(section))
    section[key] = _put(section[key], rest, value)
    return section
