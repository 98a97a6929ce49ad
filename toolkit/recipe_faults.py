"""What is wrong with a recipe and where, as lines for people. Knows no file format and no recipe."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from toolkit.errors import UserError, nearest

Path = tuple[str | int, ...]
"""Keys and list positions that lead from the root of a recipe to a value."""

_ALLOWED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "mapping_type": "a mapping",
    "finite_number": "a finite number",
    "none_required": "null",
    "greater_than": "a number > {gt:g}",
    "greater_than_equal": "a number >= {ge:g}",
    "less_than": "a number < {lt:g}",
    "less_than_equal": "a number <= {le:g}",
    "literal_error": "{expected}",
    "union_tag_invalid": "{expected_tags}",
    "too_short": "at least {min_length} of them",
    "string_too_short": "text of at least {min_length} characters",
    "string_pattern_mismatch": "text that matches {pattern}",
}


_MOST_SHOWN = 100


@dataclass(frozen=True, order=True)
class Place:
    """Where a value stands.

    Attributes:
        source: A file, or an override as it was written.
        line: Line in the file, from 1; 0 where there is none.
        folder: What relative paths are relative to that are written there: the file's own folder; empty for the
            working directory, as for overrides, which are typed in it.
    """

    source: str
    line: int = 0
    folder: str = field(default="", compare=False)

    def at(self, line: int) -> Place:
        """Return the place of a line of the same file."""
        return replace(self, line=line)

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True)
class Fault:
    """One mistake: its place, the dotted key it concerns (may be empty), and what was found and is allowed."""

    place: Place
    key: str
    text: str

    def __str__(self) -> str:
        # Whoever wrote the file chose the key: it must neither fill a terminal nor command it.
        key = self.key if len(self.key) <= 200 else f"{self.key[:100]}...{self.key[-90:]}"
        key = key if key.isprintable() else repr(key)[1:-1]
        return f"{self.place} {key}: {self.text}" if key else f"{self.place}: {self.text}"


class RecipeFaults(UserError):
    """Everything that is wrong with a recipe, one line for each fault, in the order of files and lines.

    What is shown is cut behind the first hundred: nobody reads on, and a file of another kind has a fault in each line.
    """

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = sorted(dict.fromkeys(faults), key=lambda fault: (not fault.place.line, fault.place))
        more = len(self.faults) - _MOST_SHOWN
        super().__init__(
            "\n".join([*map(str, self.faults[:_MOST_SHOWN]), *([f"... and {more:,} more faults"] if more > 0 else [])])
        )


def dotted(path: Path) -> str:
    """Return a path as a person writes it: `stages.1.views.wrong`."""
    return ".".join(map(str, path))


def show(value: Any) -> str:
    """Return a value as a fault names it: short, and as YAML spells it."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return str(value).lower()
        case Mapping():
            return "a mapping" if value else "an empty mapping"
        case list():
            return "a list" if value else "an empty list"
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "...")
        case _:
            return str(value)[:60]


def shape_faults(model: type[BaseModel], data: Any, above: Path = ()) -> list[tuple[Path, str]]:
    """Return what keeps `data` from being a `model`: unknown and missing keys, wrong types, values out of range.

    Args:
        model: A pydantic model; it is applied strictly, so "3" is no number and 3.0 no whole one.
        data: Plain data as read from YAML.
        above: Path at which the data stands in the recipe.
    """
    try:
        # By way of JSON, whose strict mode takes a list for a tuple and text for a path, which YAML needs as well.
        model.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as invalid:
        return [((*above, *path), text) for path, text in _phrases(model, data, invalid)]
    return []


def _phrases(model: type[BaseModel], data: Any, invalid: ValidationError) -> Iterator[tuple[Path, str]]:
    """Give one text for each faulty path; what the members of a union say about one value becomes one text."""
    by_path: dict[Path, list[ErrorDetails]] = {}
    for error in invalid.errors(include_url=False):
        by_path.setdefault(_path(data, error), []).append(error)
    around = {path[:end] for path in by_path for end in range(len(path))}
    keys = _Keys(model)
    for path, errors in by_path.items():
        if path in around and errors[0]["type"] not in ("missing", "extra_forbidden"):
            continue  # another member of a union says more exactly what is wrong
        yield path, _phrase(keys, errors)


class _Keys:
    """The keys that a model allows, with the nearest to unknown ones; for the first of these, as nobody reads on."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model
        self._asked = 0

    def said_of(self, location: tuple[str | int, ...]) -> str:
        """Return what there is to say of an unknown key."""
        self._asked += 1
        if self._asked > _MOST_SHOWN:
            return ""
        allowed = keys_allowed(self._schema, location[:-1])
        listed = f"; allowed are {', '.join(allowed)}" if 0 < len(allowed) <= 12 else ""
        return f"{listed}{nearest(str(location[-1])[:60], allowed)}"

    @cached_property
    def _schema(self) -> dict[str, Any]:
        return self._model.model_json_schema()


def _path(data: Any, error: ErrorDetails) -> Path:
    """Translate pydantic's location into a path of the data: names of union members and tags are no keys."""
    path: list[str | int] = []
    here = data
    for part in error["loc"]:
        if (isinstance(here, dict) and part in here) or (
            isinstance(here, list) and isinstance(part, int) and part < len(here)
        ):
            path.append(part)
            here = here[part]  # type: ignore[index]
    if error["type"] == "missing":
        path.append(error["loc"][-1])
    elif error["type"].startswith("union_tag"):
        discriminator = str(error.get("ctx", {}).get("discriminator", "")).strip("'")
        if isinstance(here, dict) and discriminator.isidentifier():
            path.append(discriminator)
    return tuple(path)


def _phrase(keys: _Keys, errors: list[ErrorDetails]) -> str:
    error = errors[0]
    kind, found, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "missing":
        return "missing, a value is required"
    if kind == "union_tag_not_found":
        return "missing, it says which kind of section this is"
    if kind == "owned":
        return error["msg"]
    if kind == "extra_forbidden":
        return f"unknown key{keys.said_of(error['loc'])}"
    if kind in ("value_error", "assertion_error"):
        reason = error["msg"].partition(", ")[2] or error["msg"]
        return reason if isinstance(found, (dict, list)) else f"found {show(found)}, {reason}"
    if kind == "union_tag_invalid":
        found = context["tag"]
    allowed_here = dict.fromkeys(
        _ALLOWED.get(each["type"], each["msg"]).format(**each.get("ctx", {})) for each in errors
    )
    options = [option for each in errors for option in re.findall(r"'([^']*)'", _options(each))]
    hint = nearest(found, options) if isinstance(found, str) else ""
    return f"found {show(found)}, allowed {' or '.join(allowed_here)}{hint or _quotes(kind, found)}"


def _options(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    return str(context.get("expected", context.get("expected_tags", "")))


def _quotes(kind: str, found: Any) -> str:
    """Say what to do about text that YAML reads as something else, or a number that it reads as text."""
    if kind == "string_type" and isinstance(found, (int, float, dict)):
        return " (put it in quotes)"
    if kind in ("int_type", "float_type") and isinstance(found, str) and re.fullmatch(r"[-+.\deE]*\d[-+.\deE]*", found):
        return " (write it without quotes)"
    return ""


def keys_allowed(schema: Mapping[str, Any], location: Iterable[str | int]) -> list[str]:
    """Return the keys that a JSON schema allows at a location as pydantic gives it, union members' names included."""
    definitions = schema.get("$defs", {})
    here = _alternatives(schema, definitions)
    for part in location:
        below = [inner for each in here for inner in _below(each, part, definitions)]
        here = below or here  # a part that leads nowhere is the name of a union member
    return sorted({name for each in here for name in each.get("properties", {})})


def _below(schema: Mapping[str, Any], part: str | int, definitions: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the schemas that one step down a location leads to."""
    tags = schema.get("discriminator", {}).get("mapping", {})
    if part in tags:
        return _alternatives({"$ref": tags[part]}, definitions)
    if part in schema.get("properties", {}):
        return _alternatives(schema["properties"][part], definitions)
    if isinstance(part, int):
        inner = [schema.get("items")]
    else:
        inner = [schema.get("additionalProperties"), *schema.get("patternProperties", {}).values()]
    return [found for each in inner if isinstance(each, Mapping) for found in _alternatives(each, definitions)]


def _alternatives(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return a schema and all those it stands for: what it refers to, and the members of its unions."""
    found = [schema]
    if "$ref" in schema:
        found += _alternatives(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
    for members in ("anyOf", "oneOf", "allOf"):
        for member in schema.get(members, ()):
            found += _alternatives(member, definitions)
    return found
