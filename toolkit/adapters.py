"""LoRA where it meets embeddings: rows of new tokens are trained, tied weights come apart, what is merged is the same.

PEFT 0.21 adapts one of two tied weights without a word. While it trains, the other one keeps what it was; merging then
writes into both, and the student that comes out is another one. What `lora_target_modules` and `lora_modules_to_save`
name is therefore looked up in the student's own modules, before training and again before merging.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import UserError

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

ADAPTER_CONFIG = "adapter_config.json"
NEW_TOKENS = "new_tokens"
"""Fact of a student's `stage.json`: ids of tokens whose embeddings were drawn for it and trained by no one before."""


@dataclass(frozen=True)
class Embeddings:
    """The modules of a student that hold a row for every token.

    Attributes:
        inputs: Full name of the input embeddings, e.g. `model.embed_tokens`.
        outputs: Full name of the output layer, e.g. `lm_head`.
        tied: Whether both are one weight.
    """

    inputs: str
    outputs: str
    tied: bool


def embeddings_of(model: PreTrainedModel) -> Embeddings:
    """Return how a causal language model calls its embeddings, and whether they are tied."""
    inputs: Any = model.get_input_embeddings()
    outputs: Any = model.get_output_embeddings()
    names = {id(module): name for name, module in model.named_modules()}
    return Embeddings(names[id(inputs)], names[id(outputs)], inputs.weight is outputs.weight)


def embeddings_at(start: str, revision: str | None = None) -> Embeddings:
    """Return the same of a student that is not loaded: it is built without weights, from its configuration."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return embeddings_of(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(start, revision=revision)))


def new_tokens(start: str) -> tuple[int, ...]:
    """Return the ids of the tokens that a student was given here and did not come with; none where it was loaded."""
    facts = Path(start) / "stage.json"
    return tuple(json.loads(facts.read_text()).get(NEW_TOKENS, ())) if facts.is_file() else ()


def train_new_rows(config: LoraConfig, embeddings: Embeddings, tokens: Sequence[int]) -> None:
    """Have an adapter train the rows of new tokens too: an adapter of other layers would leave them as they were drawn.

    Rows that `modules_to_save` or `target_modules` train already are left to them.

    Raises:
        UserError: An adapter on the output layer, which TRL would ignore; or new tokens, and of two tied weights the
            output alone is trained whole.
    """
    if _is_named(embeddings.outputs, _listed(config.target_modules)):
        raise UserError(
            f"student.lora_target_modules: found {_last(embeddings.outputs)!r}, the output layer, whose weight the "
            "loss reads without an adapter; train it whole, with student.lora_modules_to_save"
        )
    if not tokens:
        return
    saved = _listed(config.modules_to_save)
    inputs_saved, outputs_saved = (_is_named(name, saved) for name in (embeddings.inputs, embeddings.outputs))
    adapted = _is_named(embeddings.inputs, _listed(config.target_modules))
    if embeddings.tied and outputs_saved and not (inputs_saved or adapted):
        raise UserError(
            f"student.lora_modules_to_save: found {_last(embeddings.outputs)!r} without {_last(embeddings.inputs)!r}, "
            "but new tokens need a trained row in both, and the two are tied; name both or neither"
        )
    rows = sorted(tokens)
    trained: dict[str, list[int]] = {}
    if not inputs_saved and not adapted:
        trained[embeddings.inputs] = rows
    # Of two tied weights PEFT trains the rows of both where the input's are named.
    if not outputs_saved and not (embeddings.tied and embeddings.inputs in trained):
        trained[embeddings.outputs] = rows
    config.trainable_token_indices = trained or None


def load_adapted(base: str, adapter: Path, model_fields: Mapping[str, Any]) -> PeftModel:
    """Load an adapter over its base, ready to be merged, in the base's own precision.

    The base is loaded again, unquantised: merging into 4-bit weights would round the adapter away. Where the adapter
    changes one of two tied weights, they are untied first.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        base, revision=model_fields.get("model_revision") or "main", dtype=model_fields.get("dtype", "float32")
    )
    names, config = embeddings_of(model), json.loads((adapter / ADAPTER_CONFIG).read_text())
    if names.tied and comes_apart(names, config):
        untie(model)
    return PeftModel.from_pretrained(model, str(adapter))


def comes_apart(embeddings: Embeddings, config: Mapping[str, Any]) -> bool:
    """Whether an adapter changes the input embeddings or the output layer as a whole.

    Args:
        embeddings: The student's.
        config: Fields of the adapter's configuration. Trained rows alone leave tied weights tied.
    """
    named = [
        name.removesuffix(".weight")
        for key in ("target_modules", "modules_to_save", "target_parameters")
        for name in _listed(config.get(key))
    ]
    return _is_named(embeddings.inputs, named) or _is_named(embeddings.outputs, named)


def untie(model: PreTrainedModel) -> None:
    """Give the output layer a weight of its own, equal to the input embeddings'."""
    import torch

    outputs: Any = model.get_output_embeddings()
    outputs.weight = torch.nn.Parameter(outputs.weight.detach().clone())
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False


def _listed(names: str | Iterable[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else sorted(names or ())


def _is_named(module: str, names: Iterable[str]) -> bool:
    """Whether PEFT takes one of these names for a module: its full name, or how that ends."""
    return any(module == name or module.endswith(f".{name}") for name in names)


def _last(module: str) -> str:
    return module.rpartition(".")[2]
