"""What must agree within a recipe's student, and between it and what is published; checked on plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from toolkit.chat_templates import check_template
from toolkit.errors import UserError, nearest
from toolkit.model_shape import shape_of_model_faults
from toolkit.recipe_faults import Path, shape_faults, show
from toolkit.training_fields import architecture, configuration_model, model_types

_NAMED_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
Found = Iterator[tuple[Path, str]]


def student_faults(data: Mapping[str, Any]) -> Found:
    """Give path and text of everything that keeps a recipe's student from being made, loaded, or published as asked.

    Args:
        data: The recipe as plain data.
    """
    yield from _student(data)
    yield from _publish(data)


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
    for name in ("eos_token", "pad_token"):
        if config is not None and student.get(name) is not None:
            yield ("student", name), "found beside from_config, whose tokenizer is made with tokens that end and pad"
    if student.get("eos_token") is not None and student.get("eos_token") == student.get("pad_token"):
        yield (
            ("student", "pad_token"),
            f"found {student['pad_token']!r}, which is eos_token: padding must not end a turn",
        )
    if student.get("prompt_format") == "chat" and config is not None and student.get("chat_template") is None:
        yield (
            ("student", "prompt_format"),
            (
                "found 'chat', allowed 'plain': a student from a configuration has no chat template but "
                "student.chat_template, and there is none"
            ),
        )
    if isinstance(student.get("chat_template"), str):
        try:
            # What a template takes of a tokenizer is known once there is one: any tokens will do.
            check_template(student["chat_template"], dict.fromkeys(_NAMED_TOKENS, "<|token|>"))
        except UserError as error:
            yield ("student", "chat_template"), str(error).partition(": ")[2]
    yield from _special_tokens(student.get("special_tokens"))
    if isinstance(config, Mapping):
        yield from _configuration(config)


def _special_tokens(given: Any) -> Found:
    tokens: list[Any] = given if isinstance(given, list) else []
    for index, token in enumerate(tokens):
        if token in tokens[:index]:
            yield ("student", "special_tokens", index), f"found {token!r} a second time"


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
        if found := architecture(kind):
            yield from (((*path, key), text) for key, text in shape_of_model_faults(config, found))


def _publish(data: Mapping[str, Any]) -> Found:
    """Refuse to publish an adapter of what nobody else has: a base with tokens of its own, or an earlier stage."""
    student, stages = _mapping(data.get("student")), data.get("stages")
    if _mapping(data.get("publish")).get("form") != "adapter" or not student:
        return
    own_tokens = [name for name in ("special_tokens", "eos_token", "pad_token", "chat_template") if student.get(name)]
    if student.get("use_peft") is not True:
        why = "student.use_peft is not set, so there is no adapter"
    elif own_tokens:
        why = f"student.{own_tokens[0]} makes another base of the student's, which is published nowhere"
    elif isinstance(stages, list) and len(stages) > 1:
        why = f"the adapter of stage {len(stages)} fits the merged student of the stage before, published nowhere"
    else:
        return
    yield ("publish", "form"), f"found 'adapter', allowed 'full': {why}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
