"""What a student's configuration must be for a model to come of it: sizes, heads, rates. Without torch.

Checked are the rules that the architectures of transformers share, with the defaults of the one at hand: sizes are
positive, heads divide the hidden size (where the architecture asks for it, or has no `head_dim` of its own), heads of
keys and values divide those of queries, rotary positions need an even head, rates lie in [0, 1), and the activation
function exists. What else an architecture refuses `toolkit.training_checks` finds by making a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from toolkit.errors import nearest
from toolkit.training_fields import Architecture, activations

_SIZES = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
    *("head_dim", "intermediate_size", "n_inner", "ffn_dim", "word_embed_proj_dim", "num_kv_heads"),
)
_POSITIVE = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon", "rope_theta")
_ACTIVATIONS = ("hidden_act", "activation_function", "hidden_activation")
_RATES = ("dropout", "pdrop")

Found = Iterator[tuple[str, str]]


def shape_of_model_faults(config: Mapping[str, Any], architecture: Architecture) -> Found:
    """Give key and text of everything that makes no model of a configuration.

    Args:
        config: `student.from_config`. A value of a wrong type is reported elsewhere and passed over here.
        architecture: That of its `model_type`.
    """
    faulty = set()
    for key, text in _single(config, architecture):
        faulty.add(key)
        yield key, text
    sizes = {name: architecture.value(config, name) for name in _SIZES}
    if not any(architecture.key(config, name) in faulty for name in _SIZES):
        yield from _heads(config, architecture, sizes)


def _single(config: Mapping[str, Any], architecture: Architecture) -> Found:
    """Check values that are wrong whatever the others are."""
    sizes = {architecture.key(config, name) for name in _SIZES}
    for key, value in config.items():
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            continue
        if isinstance(value, str):
            if key in _ACTIVATIONS and value not in activations():
                allowed = "an activation function of transformers, such as silu or gelu"
                yield key, f"found {value!r}, allowed {allowed}{nearest(value, activations())}"
        elif key in sizes and value < 1:
            yield key, f"found {value}, allowed a number >= 1"
        elif key in _POSITIVE and not value > 0:
            yield key, f"found {value:g}, allowed a number > 0"
        elif key.endswith(_RATES) and not 0 <= value < 1:
            yield key, f"found {value:g}, allowed a number >= 0 and < 1"
        elif key == "initializer_range" and not 0 <= value <= 1:
            yield key, f"found {value:g}, allowed a number >= 0 and <= 1"
        elif key == "partial_rotary_factor" and not 0 < value <= 1:
            yield key, f"found {value:g}, allowed a number > 0 and <= 1"


def _heads(config: Mapping[str, Any], architecture: Architecture, sizes: Mapping[str, Any]) -> Found:
    """Check that sizes go with each other; a fault names the one that the recipe sets, the last where it sets both."""
    hidden, heads, key_heads = (
        sizes[name] if isinstance(sizes[name], int) else None
        for name in ("hidden_size", "num_attention_heads", "num_key_value_heads")
    )
    own_head = sizes["head_dim"]
    if hidden is None or heads is None:
        return
    at = architecture.key(config, "hidden_size")
    if at not in config:
        at = architecture.key(config, "num_attention_heads")
    if hidden % heads and (architecture.divides_by_heads or (own_head is None and architecture.follows_heads)):
        yield at, f"found {hidden}, which is not a multiple of the number of attention heads, {heads}"
        return
    if key_heads is not None and heads % key_heads:
        key = architecture.key(config, "num_key_value_heads")
        at_key = key if key in config else architecture.key(config, "num_attention_heads")
        yield at_key, f"found {config.get(at_key)}: {key_heads} heads of keys and values do not divide {heads} heads"
    head = own_head if isinstance(own_head, int) else hidden // heads
    if architecture.is_rotary and head % 2 and not architecture.is_partly_rotary(config):
        at_key = "head_dim" if config.get("head_dim") is not None else at
        yield at_key, f"found {config.get(at_key)}, which gives heads of {head}; rotary positions need an even number"
