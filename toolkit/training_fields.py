"""What a recipe may set of `trl.SFTConfig`, of `trl.ModelConfig` and of a model's configuration: names and types.

They are read from the installed packages' source by `ast`, because importing trl takes ten seconds and torch, and a
recipe is to be checked at once. A field whose type is no plain one (a class of torch's, say) takes any value here and
is left to its owner. What a field does is not this module's business, but for those that the toolkit owns.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, reduce
from importlib.util import find_spec
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model
from pydantic_core import PydanticCustomError

from toolkit.errors import nearest
from toolkit.named_files import SettingsFile
from toolkit.schema import Strict

_SCORES = "scores come from the recipe's `evaluation`; training computes the loss of held-out questions and no more"
_PUBLISHED = "a student is published only with its data, recipe and scores; use the recipe's `publish`"
_VIEWS = "which tokens carry loss is said by `views` (segment weights, token_weights)"
_LOSS = "the loss is the recipe's own: `views` and `reduction` say what it is"
_TEXT = "prompt and target are said by `views`, the prompt's form by student.prompt_format"
_LENGTH = "a record that does not fit is left out and counted, never cut; use max_length and the stage's `max_dropped`"

# Fields that have one right value here: setting them would be ignored, or would break what the toolkit promises.
OWNED = {
    "output_dir": "checkpoints of each stage lie under the recipe's `output_dir`",
    "resume_from_checkpoint": "the same command again resumes by itself",
    "local_rank": "the launcher sets it",
    "do_train": "`distill train` trains",
    "do_eval": "eval_strategy and eval_on_start say when held-out questions are evaluated",
    **dict.fromkeys(("do_predict", "include_for_metrics", "batch_eval_metrics", "prediction_loss_only"), _SCORES),
    **dict.fromkeys(("eval_do_concat_batches", "eval_use_gather_object"), _SCORES),
    **dict.fromkeys(("bf16_full_eval", "fp16_full_eval"), "held-out questions are evaluated as they are trained on"),
    "eval_packing": "the loss of held-out questions is the same packed or not",
    **dict.fromkeys(("push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo"), _PUBLISHED),
    **dict.fromkeys(("hub_always_push", "hub_revision"), _PUBLISHED),
    "hub_token": "a secret never stands in a recipe; set HF_TOKEN in the environment",
    **dict.fromkeys(("remove_unused_columns", "label_names", "dataset_kwargs"), "the trainer owns its columns"),
    "dataset_num_proc": "encoding is batched in one process",
    "include_num_input_tokens_seen": "tokens are always counted, without padding; `tokens` of the stage's facts",
    **dict.fromkeys(("completion_only_loss", "assistant_only_loss"), _VIEWS),
    **dict.fromkeys(("loss_type", "label_smoothing_factor", "average_tokens_across_devices"), _LOSS),
    **dict.fromkeys(("use_liger_kernel", "liger_kernel_config"), _LOSS),
    "dataset_text_field": _TEXT,
    "chat_template_path": "it is the same in all stages: student.chat_template",
    **{name: f"it is the same in all stages: student.{name}" for name in ("eos_token", "pad_token")},
    "truncation_mode": _LENGTH,
    "packing_strategy": "packing never cuts a record; set `packing` alone",
}
# Deprecated names of fields, which transformers drops in version 6; recipes that use one are read under the new name.
RENAMED = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
_OWNED_CONFIG = {
    "vocab_size": "the tokenizer says it; use student.tokenizer.vocab_size",
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), "the student's tokenizer says it"),
}

_POSITIVE, _NOT_NEGATIVE, _COUNT = Field(gt=0), Field(ge=0), Field(ge=1)
_BELOW_ONE = Field(ge=0, lt=1)
_RANGES: dict[str, Any] = {
    "learning_rate": _POSITIVE,
    "num_train_epochs": _POSITIVE,
    "per_device_train_batch_size": _COUNT,
    "per_device_eval_batch_size": _COUNT,
    "gradient_accumulation_steps": _COUNT,
    "max_length": _COUNT,
    "weight_decay": _NOT_NEGATIVE,
    "warmup_steps": _NOT_NEGATIVE,
    "max_grad_norm": _NOT_NEGATIVE,
    "adam_beta1": _BELOW_ONE,
    "adam_beta2": _BELOW_ONE,
    "adam_epsilon": _POSITIVE,
    "logging_steps": _POSITIVE,
    "save_steps": _POSITIVE,
    "save_total_limit": _COUNT,
    "eval_steps": _POSITIVE,
    "eval_delay": _NOT_NEGATIVE,
    "eval_accumulation_steps": _COUNT,
    "seed": Field(ge=0, lt=2**32),
    "data_seed": _NOT_NEGATIVE,
    "dataloader_num_workers": _NOT_NEGATIVE,
    "neftune_noise_alpha": _POSITIVE,
    "pad_to_multiple_of": _COUNT,
    "torch_empty_cache_steps": _COUNT,
    "dataloader_prefetch_factor": _COUNT,
    "ddp_timeout": _COUNT,
    "lora_r": _COUNT,
    "lora_alpha": _COUNT,
    "lora_dropout": _BELOW_ONE,
}
# Packages of what `report_to` names, where they are called otherwise; any of several will do.
_TRACKER_PACKAGES: dict[str, tuple[str, ...]] = {
    "azure_ml": ("azureml",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "flyte": ("flytekit",),
    "kubeflow": (),  # needs none
}
# Configurations take these without naming them as fields; rope's stood by themselves before transformers 5.
_ALSO_TAKEN = ("output_attentions", "partial_rotary_factor", "rope_scaling", "rope_theta")


@cache
def training_model() -> type[BaseModel]:
    """Return a model of a stage's `training` section: the fields of `trl.SFTConfig`, none of them required."""
    fields: dict[str, Any] = {}
    fields |= _fields("transformers", "training_args.py", "TrainingArguments")
    fields |= _fields("trl", "trainer/base_config.py", "_BaseConfig")
    fields |= _fields("trl", "trainer/sft_config.py", "SFTConfig")
    fields["max_steps"] = Annotated[int, AfterValidator(_steps)]
    fields |= dict.fromkeys(("accelerator_config", "deepspeed", "fsdp_config"), SettingsFile | None)
    return _model("Training", fields, OWNED)


@cache
def model_config_fields() -> dict[str, Any]:
    """Return type annotations of the fields of `trl.ModelConfig` by their names, ranges included."""
    fields = _fields("trl", "trainer/model_config.py", "ModelConfig")
    return {name: _ranged(name, annotation) for name, annotation in fields.items()}


@cache
def model_types() -> tuple[str, ...]:
    """Return the types of causal language models that the installed transformers can make from a configuration."""
    return tuple(_mapping("modeling_auto.py", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"))


@cache
def configuration_model(model_type: str) -> type[BaseModel] | None:
    """Return a model of the configuration of a model type, or None where its source is not where it should be."""
    found = _configuration_class(model_type)
    if found is None:
        return None
    path, name = found
    fields: dict[str, Any] = dict.fromkeys(_ALSO_TAKEN, Any)
    fields |= _fields("transformers", "configuration_utils.py", "PreTrainedConfig")
    for base in _lineage("transformers", path, name):
        fields |= dict.fromkeys(_attribute_map(base), Any) | dict(_annotated(base, {}))
    return _model(name, {**fields, "model_type": str}, _OWNED_CONFIG)


@dataclass(frozen=True)
class Architecture:
    """What the source of a configuration class says about the sizes of its models.

    Attributes:
        defaults: Plain defaults of its fields.
        names: Its own names of fields by the usual ones (`hidden_size` is `n_embd`).
        divides_by_heads: Whether it refuses a hidden size that its heads do not divide, whatever the size of a head.
    """

    defaults: Mapping[str, Any]
    names: Mapping[str, str]
    divides_by_heads: bool

    def key(self, config: Mapping[str, Any], name: str) -> str:
        """Return the key under which a configuration has a field, or would."""
        own = self.names.get(name, name)
        return name if name in config and own not in config else own

    def value(self, config: Mapping[str, Any], name: str) -> Any:
        """Return a field's value, the default where a configuration does not set it; None where there is no such."""
        key = self.key(config, name)
        return config[key] if key in config else self.defaults.get(self.names.get(name, name))

    @property
    def follows_heads(self) -> bool:
        """Whether the heads of its default divide the hidden size, so that no other field gives their size."""
        hidden, heads = self.value({}, "hidden_size"), self.value({}, "num_attention_heads")
        return isinstance(hidden, int) and isinstance(heads, int) and heads > 0 and hidden % heads == 0

    @property
    def is_rotary(self) -> bool:
        """Whether its positions are rotary."""
        return "rope_parameters" in self.defaults

    def is_partly_rotary(self, config: Mapping[str, Any]) -> bool:
        """Whether, as far as can be told, only a part of a head is rotated."""
        told = [*self.defaults, *config, *(config.get("rope_parameters") or {})]
        return any("rotary" in key or key == "rope_scaling" for key in told)


@cache
def architecture(model_type: str) -> Architecture | None:
    """Return what is known of the models of a type, or None where its source is not where it should be."""
    found = _configuration_class(model_type)
    if found is None:
        return None
    defaults: dict[str, Any] = {}
    names: dict[str, str] = {}
    divides = False
    for base in _lineage("transformers", *found):
        names |= _attribute_map(base)
        for node in base.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                defaults[node.target.id] = _literal(node.value)
            elif isinstance(node, ast.FunctionDef) and node.name == "validate_architecture":
                divides = "multiple of the number of attention heads" in ast.unparse(node)
    return Architecture(defaults, names, divides)


@cache
def activations() -> tuple[str, ...]:
    """Return the names of transformers' activation functions."""
    return _keys_of("activations.py", "ACT2CLS")


@cache
def trackers() -> tuple[str, ...]:
    """Return the names of what `report_to` may send logs to."""
    return _keys_of("integrations/integration_utils.py", "INTEGRATION_TO_CALLBACK")


def tracker_fault(name: str) -> str | None:
    """Return what keeps `report_to` from sending logs somewhere, None where nothing does."""
    if name in ("none", "all"):
        return None
    if name not in trackers():
        return (
            f"found {name!r}, allowed none, all, {', '.join(trackers())}{nearest(name, ['none', 'all', *trackers()])}"
        )
    packages = _TRACKER_PACKAGES.get(name, (name,))
    if not packages or any(find_spec(package) for package in packages):
        return None
    return f"found {name!r}, which needs a package that is not installed: pip install {packages[0]}"


def _keys_of(path: str, name: str) -> tuple[str, ...]:
    """Return the keys of a dictionary that a module of transformers assigns."""
    for node in _source("transformers", path).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name and isinstance(node.value, ast.Dict):
            return tuple(str(key.value) for key in node.value.keys if isinstance(key, ast.Constant))
    return ()


def _literal(node: ast.expr | None) -> Any:
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:  # computed, or `interval(...)(default=...)`
        return None


def _configuration_class(model_type: str) -> tuple[str, str] | None:
    """Return path and name of the configuration class of a model type."""
    module = _mapping("auto_mappings.py", "SPECIAL_MODEL_TYPE_TO_MODULE_NAME").get(model_type, model_type)
    module = module.replace("-", "_")
    name = _mapping("auto_mappings.py", "CONFIG_MAPPING_NAMES").get(model_type)
    path = f"models/{module}/configuration_{module}.py"
    return None if name is None or not (_root("transformers") / path).is_file() else (path, name)


def _model(name: str, fields: dict[str, Any], owned: dict[str, str]) -> type[BaseModel]:
    """Make a strict model without required fields; setting an owned field is an error that says why."""
    annotations = {field: _ranged(field, annotation) for field, annotation in fields.items()}
    annotations |= {field: Annotated[Any, AfterValidator(_Refusal(reason))] for field, reason in owned.items()}
    defaults: dict[str, Any] = {field: (annotation, None) for field, annotation in annotations.items()}
    return create_model(name, __base__=_Finite, **defaults)


class _Finite(Strict):
    model_config = ConfigDict(allow_inf_nan=False, protected_namespaces=())


class _Refusal:
    """A validator that accepts nothing and says why; the value is not repeated, it may be a secret."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __call__(self, value: Any) -> Any:
        raise PydanticCustomError("owned", "not a recipe's to set: {reason}", {"reason": self.reason})


def _steps(value: int) -> int:
    if value != -1 and value < 1:
        raise ValueError("allowed a whole number >= 1, or -1 for no limit")
    return value


def _ranged(name: str, annotation: Any) -> Any:
    return Annotated[annotation, _RANGES[name]] if name in _RANGES else annotation


def _fields(package: str, path: str, name: str) -> dict[str, Any]:
    enumerations = _enumerations() if package == "transformers" and path == "training_args.py" else {}
    (definition,) = [node for node in _classes(package, path) if node.name == name]
    return dict(_annotated(definition, enumerations))


def _annotated(definition: ast.ClassDef, enumerations: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Give name and type of each field that a dataclass's body annotates."""
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            written = ast.unparse(node.annotation)
            if not node.target.id.startswith("_") and not written.startswith("ClassVar"):
                yield node.target.id, _type(written, enumerations, _choices(node.value))


class _Names(dict[str, Any]):
    """Names that may stand in an annotation; one that is not known takes any value."""

    def __missing__(self, name: str) -> Any:
        return Any


def _type(written: str, enumerations: dict[str, Any], choices: tuple[str, ...]) -> Any:
    """Turn a written annotation into a type; where only certain texts are meant, into those."""
    names = _Names(bool=bool, dict=dict, float=float, int=int, list=list, str=str, Literal=Literal, **enumerations)
    try:
        annotation = eval(written, {"__builtins__": {}}, names)  # the installed library's own source
        annotation = eval(annotation, {"__builtins__": {}}, names) if isinstance(annotation, str) else annotation
    except (AttributeError, SyntaxError, TypeError):
        return Any
    parts = list(get_args(annotation)) if _is_union(annotation) else [annotation]
    if choices:
        parts = [Literal[choices] if part is str else part for part in parts]
    elif any(get_origin(part) is Literal and get_args(part) != (False,) for part in parts):
        parts = [part for part in parts if part is not str]  # `SchedulerType | str` means the scheduler's names
    return reduce(or_, parts)


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) is Union or type(annotation).__name__ == "UnionType"


def _choices(default: ast.expr | None) -> tuple[str, ...]:
    """Return the `choices` of a dataclass field's metadata, where they are written out."""
    for node in ast.walk(default) if default is not None else ():
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "choices" and isinstance(value, ast.List):
                    return tuple(ast.literal_eval(value))
    return ()


@cache
def _enumerations() -> dict[str, Any]:
    """Return transformers' enumerations of training arguments by name, each as a `Literal` of its values."""
    found = {}
    for path in ("trainer_utils.py", "training_args.py", "debug_utils.py"):
        for definition in _classes("transformers", path):
            if any(isinstance(base, ast.Name) and base.id == "ExplicitEnum" for base in definition.bases):
                assigned = [node.value for node in definition.body if isinstance(node, ast.Assign)]
                values = tuple(value.value for value in assigned if isinstance(value, ast.Constant))
                found[definition.name] = Literal[values]
    return found


def _lineage(package: str, path: str, name: str) -> list[ast.ClassDef]:
    """Return a class and those of its bases that stand in the same file, the deepest first."""
    known = {node.name: node for node in _classes(package, path)}
    if name not in known:
        return []
    bases = [base.id for base in known[name].bases if isinstance(base, ast.Name)]
    return [node for base in bases for node in _lineage(package, path, base)] + [known[name]]


def _attribute_map(definition: ast.ClassDef) -> dict[str, str]:
    """Return a configuration's own names of its fields by the other names under which it takes them."""
    for node in definition.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "attribute_map":
            return dict(ast.literal_eval(node.value))
    return {}


@cache
def _mapping(file: str, name: str) -> dict[str, str]:
    """Return an `OrderedDict([...])` that a module of `transformers.models.auto` assigns."""
    for node in _source("transformers", f"models/auto/{file}").body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name and isinstance(node.value, ast.Call):
            return dict(ast.literal_eval(node.value.args[0]))
    return {}


def _classes(package: str, path: str) -> list[ast.ClassDef]:
    return [node for node in _source(package, path).body if isinstance(node, ast.ClassDef)]


@cache
def _source(package: str, path: str) -> ast.Module:
    return ast.parse((_root(package) / path).read_text(encoding="utf-8"))


@cache
def _root(package: str) -> Path:
    spec = find_spec(package)  # finds a top-level package without importing it
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed", name=package)
    return Path(next(iter(spec.submodule_search_locations)))
