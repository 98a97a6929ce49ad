"""What must agree between the parts of a recipe, checked on plain data.

A part that is wrong in itself is passed over here: `recipe_faults.shape_faults` tells of it, and one faulty section
must not hide what is wrong in the others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from toolkit.errors import UserError, nearest
from toolkit.held_out import validation_faults
from toolkit.recipe_faults import Path, shape_faults, show
from toolkit.training_fields import configuration_model, model_types
from toolkit.views import columns as columns_of

Found = Iterator[tuple[Path, str]]


def meaning_faults(data: Mapping[str, Any], builders: Collection[str], columns: Collection[str] | None) -> Found:
    """Give path and text of everything that is well-formed and still cannot be meant.

    Args:
        data: The recipe as plain data.
        builders: Names of the dataset builders.
        columns: Dotted paths of the columns that views may use, or None where they are not known.
    """
    yield from _dataset(_mapping(data.get("dataset")), builders)
    yield from _student(data)
    views = _names_of_views(data.get("stages"))
    yield from _stages(("stages",), data.get("stages"), columns)
    yield from _decode(("decode",), data.get("decode"), views)
    if data.get("evaluation") is not None and data.get("decode") is None:
        yield ("decode",), "missing: `evaluation` needs to know how answers are got, at least decode.view"
    for name, reference in _mapping(data.get("references")).items():
        reference = _mapping(reference)
        path: Path = ("references", name)
        yield from _stages((*path, "stages"), reference.get("stages"), columns)
        own = _names_of_views(reference.get("stages")) or views
        if reference.get("decode") is not None:
            yield from _decode((*path, "decode"), reference["decode"], own)
        else:
            inherited = _mapping(data.get("decode")).get("view")
            if inherited in views and inherited not in own:
                yield path, f"decode missing: the recipe's decode.view {inherited!r} is not one of {_listed(own)}"


def _dataset(dataset: Mapping[str, Any], builders: Collection[str]) -> Found:
    builder = dataset.get("builder")
    if isinstance(builder, str) and builder not in builders:
        yield (
            ("dataset", "builder"),
            f"found {builder!r}, allowed {_listed(builders)}{nearest(builder, builders)}, "
            "or null for a dataset that is published already",
        )
    if builder is None and dataset.get("config") is not None:
        yield ("dataset", "config"), "found a builder's settings, but dataset.builder names no builder"
    revision = dataset.get("revision")
    if builder is not None and isinstance(revision, str) and len(revision) == 40 and "." not in revision:
        yield ("dataset", "revision"), f"found {revision!r}, allowed a version tag like 'v1.2.3' for what is built here"


# --- student


def _student(data: Mapping[str, Any]) -> Found:
    trained = bool(data.get("stages")) or bool(data.get("references"))
    if data.get("student") is None:
        if trained:
            yield ("student",), "missing: there are stages, but no student to train"
        return
    student = _mapping(data["student"])
    config, name = student.get("from_config"), student.get("model_name_or_path")
    if config is None and name is None and isinstance(data["student"], Mapping):
        yield ("student",), "missing: model_name_or_path, the model to load, or from_config, the one to make"
    if config is not None and name is not None:
        yield ("student", "from_config"), "found beside model_name_or_path, allowed is one of the two"
    if name is not None and student.get("tokenizer") is not None:
        yield ("student", "tokenizer"), "found beside model_name_or_path, whose own tokenizer is used"
    if config is not None and student.get("model_revision") is not None:
        yield ("student", "model_revision"), "found beside from_config, but there is nothing to load"
    if student.get("load_in_8bit") is True and student.get("load_in_4bit") is True:
        yield ("student", "load_in_8bit"), "found beside load_in_4bit, allowed is one of the two"
    if isinstance(config, Mapping):
        yield from _configuration(config)


def _configuration(config: Mapping[str, Any]) -> Found:
    path: Path = ("student", "from_config")
    kind = config.get("model_type")
    if kind is None:
        yield (*path, "model_type"), "missing, a value is required, e.g. llama"
    elif not isinstance(kind, str):
        yield (*path, "model_type"), f"found {show(kind)}, allowed text, e.g. llama"
    elif kind not in model_types():
        hint = nearest(kind, model_types())
        yield (*path, "model_type"), f"found {kind!r}, allowed a causal language model of transformers{hint}"
    elif model := configuration_model(kind):
        yield from shape_faults(model, config, path)


# --- stages


def _stages(path: Path, stages: Any, columns: Collection[str] | None) -> Found:
    seen: dict[str, int] = {}
    for index, stage in enumerate(stages if isinstance(stages, list) else []):
        if not isinstance(stage, Mapping):
            continue
        name = stage.get("name")
        if isinstance(name, str) and seen.setdefault(name, index) != index:
            yield (*path, index, "name"), f"found {name!r}, the name of stage {seen[name]} already"
        yield from _views((*path, index, "views"), _mapping(stage.get("views")), columns)
        training = _mapping(stage.get("training"))
        if training.get("bf16") is True and training.get("fp16") is True:
            yield (*path, index, "training", "fp16"), "found beside bf16, allowed is one of the two"
        for key, text in validation_faults(stage, training):
            yield (*path, index, *key.split(".")), text


def _views(path: Path, views: Mapping[str, Any], columns: Collection[str] | None) -> Found:
    keyed = [name for name, view in views.items() if _mapping(view).get("token_weights") == "key_steps"]
    if len(keyed) not in (0, 2):
        yield path, f"found token_weights key_steps on {_listed(keyed)}, allowed on two views of a stage or on none"
    for name, view in views.items():
        view = _mapping(view)
        yield from _template((*path, name, "prompt"), view.get("prompt"), columns)
        target = view.get("target")
        if not isinstance(target, list):
            continue
        for index, piece in enumerate(target):
            if isinstance(piece, Mapping):
                yield from _template((*path, name, "target", index, "text"), piece.get("text"), columns)
            else:
                yield from _template((*path, name, "target", index), piece, columns)
        if all(isinstance(piece, Mapping) and piece.get("weight", 1) == 0 for piece in target):
            yield (*path, name, "target"), "found no segment with a weight other than 0, nothing of it would be learnt"


def _template(path: Path, template: Any, columns: Collection[str] | None) -> Found:
    if not isinstance(template, str):
        return
    try:
        used = columns_of(template)
    except UserError as error:
        yield path, str(error)
        return
    for column in dict.fromkeys(used if columns is not None else ()):
        if column not in columns:  # type: ignore[operator]
            some = _listed(sorted(columns)) if len(columns) <= 12 else "one of the builder's"  # type: ignore[arg-type]
            yield path, f"found the column {column!r}, allowed {some}{nearest(column, columns)}"  # type: ignore[arg-type]


def _names_of_views(stages: Any) -> list[str]:
    staged = [_mapping(stage) for stage in stages] if isinstance(stages, list) else []
    return list(dict.fromkeys(name for stage in staged for name in _mapping(stage.get("views"))))


def _decode(path: Path, decode: Any, views: Collection[str]) -> Found:
    decode = _mapping(decode)
    view = decode.get("view")
    if isinstance(view, str) and view not in views:
        has = f"allowed {_listed(views)}{nearest(view, views)}" if views else "but no stage has views"
        yield (*path, "view"), f"found {view!r}, {has}"
    samples, temperature = decode.get("samples"), decode.get("temperature", 0)
    if isinstance(samples, int) and samples > 1 and temperature == 0:
        yield (*path, "samples"), f"found {samples}, allowed 1 at temperature 0, where all samples are the same"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words) or "nothing"
