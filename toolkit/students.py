"""Where students come from, and what every student must agree on before it is trained: tokens that end and pad.

A student is a folder that `from_pretrained` reads, or a model of the Hub. The embedded one is made here from a
configuration, with a small tokenizer trained on the dataset it will learn from.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.adapters import ADAPTER_CONFIG, load_adapted
from toolkit.chat_templates import check_template
from toolkit.errors import UserError, nearest
from toolkit.installed import ENVIRONMENT, lock
from toolkit.tokenizing import RECIPE_TOKENS
from toolkit.vocabulary import END, PAD, train_vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FACTS = "stage.json"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, special_tokens: Sequence[str] = ()
) -> PreTrainedTokenizerBase:
    """Train a tokenizer on what a student will read and write; see `vocabulary.train_vocabulary`.

    Raises:
        UserError: A special token is one of those that every such tokenizer has.
    """
    from transformers import PreTrainedTokenizerFast

    _refuse_known(special_tokens, (PAD, END))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_vocabulary(texts, vocab_size, special_tokens),
        pad_token=PAD,
        eos_token=END,
        clean_up_tokenization_spaces=False,
    )
    _mark(tokenizer, special_tokens)
    return tokenizer


def student_from_config(config: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """Make an untrained student; its weights depend on the seed alone.

    Args:
        config: `model_type` and any fields of that model's configuration.
        tokenizer: Gives the vocabulary's size and the special tokens.
        seed: Of the initial weights.

    Raises:
        UserError: An unknown model type, or fields its configuration refuses.
    """
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, set_seed

    fields = dict(config)
    model_type = fields.pop("model_type")
    if model_type not in CONFIG_MAPPING:
        raise UserError(
            f"student.from_config.model_type: found {model_type!r}, which transformers does not know"
            f"{nearest(model_type, list(CONFIG_MAPPING))}"
        )
    configuration_class: Any = CONFIG_MAPPING[model_type]
    try:
        configuration = configuration_class(
            **fields,
            vocab_size=len(tokenizer),
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    except Exception as error:  # a dozen types, from a refused head count to a division by it
        raise UserError(f"student.from_config: {configuration_class.__name__} refuses it: {error}") from error
    unknown = [name for name in fields if not hasattr(configuration_class(), name)]
    if unknown:
        known = list(configuration_class().to_dict())
        raise UserError(
            f"student.from_config: {type(configuration).__name__} has no field {unknown[0]!r}"
            f"{nearest(unknown[0], known)}"
        )
    set_seed(seed)
    try:
        model = AutoModelForCausalLM.from_config(configuration, dtype=torch.float32)
    except (RuntimeError, ValueError, AssertionError, ArithmeticError, LookupError) as error:
        raise UserError(f"student.from_config: no {model_type} can be made from it: {error}") from error
    agree(model, tokenizer)
    return model


def add_tokens(tokenizer: PreTrainedTokenizerBase, special_tokens: Sequence[str]) -> None:
    """Give a tokenizer further tokens, each of them one wherever it is written.

    Raises:
        UserError: It has one of them already.
    """
    _refuse_known(special_tokens, tokenizer.get_vocab())
    tokenizer.add_special_tokens({"extra_special_tokens": list(special_tokens)}, replace_extra_special_tokens=False)
    _mark(tokenizer, special_tokens)


def _mark(tokenizer: PreTrainedTokenizerBase, special_tokens: Sequence[str]) -> None:
    """Note in a tokenizer, and in its saved configuration, which tokens a recipe gave it: records may hold these."""
    if special_tokens:
        tokenizer.init_kwargs[RECIPE_TOKENS] = list(special_tokens)


def _refuse_known(special_tokens: Sequence[str], known: Container[str]) -> None:
    if again := [token for token in special_tokens if token in known]:
        raise UserError(f"student.special_tokens: the student has the token {again[0]!r} already; leave it out")


def set_tokens(
    tokenizer: PreTrainedTokenizerBase, eos_token: str | None, pad_token: str | None, chat_template: str | None
) -> None:
    """Have a tokenizer end turns, pad and speak otherwise than it was loaded; None leaves a thing as it is.

    Raises:
        UserError: It does not have such a token, it would pad with the one that ends its turns, or the template does
            not make a question of what a user says.
    """
    for name, token in (("eos_token", eos_token), ("pad_token", pad_token)):
        if token is None:
            continue
        if token not in tokenizer.get_vocab():
            raise UserError(
                f"student.{name}: found {token!r}, which is no token of the student; name one of its own"
                f"{nearest(token, tokenizer.get_added_vocab())}, or add it in student.special_tokens"
            )
        setattr(tokenizer, name, token)
    if tokenizer.pad_token_id == tokenizer.eos_token_id and (eos_token or pad_token):
        raise UserError(
            f"student.{'pad_token' if pad_token else 'eos_token'}: found {tokenizer.eos_token!r}, but then the student "
            "pads with the token that ends its turns; set student.pad_token to another token"
        )
    if chat_template is not None:
        check_template(chat_template, tokenizer.special_tokens_map)
        tokenizer.chat_template = chat_template


def student_with_tokenizer(
    source: str, model_fields: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, seed: int
) -> PreTrainedModel:
    """Load a student for a tokenizer that is its own but for added tokens or other ends.

    The embeddings of added tokens are drawn around the mean of those it has.
    """
    from transformers import AutoModelForCausalLM, set_seed

    model = AutoModelForCausalLM.from_pretrained(
        source, revision=model_fields.get("model_revision") or "main", dtype=model_fields.get("dtype", "auto")
    )
    set_seed(seed)
    embeddings: Any = model.get_input_embeddings()
    if len(tokenizer) > embeddings.num_embeddings:  # many models have rows to spare
        model.resize_token_embeddings(len(tokenizer))
    agree(model, tokenizer)
    return model


def load_tokenizer(source: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load a student's tokenizer and see to it that it pads with a token that does not end a turn.

    A missing pad token, or one that is the end-of-sequence token, is replaced by one the vocabulary already has
    for no other use: the unknown token, or a reserved special one. Padding never carries loss here; the point is
    that a published student whose pad ends its turn loses its end of turn in other people's trainers.

    Raises:
        UserError: There is no such student, or none that brings a tokenizer.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        raise UserError(f"student.model_name_or_path: no tokenizer can be loaded from {source!r}: {error}") from error
    if tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        spare = [
            token
            for token in (tokenizer.unk_token, *sorted(tokenizer.get_added_vocab()))
            if token not in (None, tokenizer.eos_token)
            and (token == tokenizer.unk_token or any(word in token for word in ("reserved", "unused", "pad")))
        ]
        tokenizer.pad_token = spare[0] if spare else tokenizer.eos_token
    return tokenizer


def agree(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the model's configurations name the tokens that the tokenizer ends and pads with.

    A padding token that the model also counts among its ends (Qwen's `<|endoftext|>`) is struck from them: the student
    ends its turns with the tokenizer's end of sequence.
    """
    for configuration in (model.config.get_text_config(), model.generation_config):
        configuration.pad_token_id = tokenizer.pad_token_id
        ends = configuration.eos_token_id
        ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        ends = [end for end in ends if end not in (tokenizer.eos_token_id, tokenizer.pad_token_id)]
        ends.insert(0, tokenizer.eos_token_id)
        configuration.eos_token_id = ends[0] if len(ends) == 1 else ends


def save_atomically(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, facts: Mapping[str, Any]
) -> None:
    """Write a student's folder; it is there whole, or not at all."""
    with staged(folder) as staging:
        model.save_pretrained(staging)
        write_beside(staging, tokenizer, facts)


def write_beside(folder: Path, tokenizer: PreTrainedTokenizerBase, facts: Mapping[str, Any]) -> None:
    """Write what goes with a student's weights: its tokenizer, its facts in `stage.json`, and the libraries it is from.

    The libraries may be others when it is published.
    """
    tokenizer.save_pretrained(folder)
    (folder / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    (folder / ENVIRONMENT).write_text(lock())


def is_whole(folder: Path) -> bool:
    """Whether a student's folder has all that it is loaded from; one that is not there has nothing."""
    parts = ("config.json", "tokenizer_config.json", FACTS, ENVIRONMENT)
    return all((folder / part).is_file() for part in parts) and any(folder.glob("model*.safetensors"))


@contextmanager
def staged(folder: Path, name: str = "") -> Iterator[Path]:
    """Give an empty folder that takes the place of `folder` at the end; after an error nothing of it stays.

    Whoever calls holds `folder` (`folder_lock.owned`), so what else is staged for it was left by one that was killed.

    Args:
        folder: The folder to write.
        name: Of the folder given, as of `staging_name`, where several processes have to agree on it.
    """
    for left in folder.parent.glob(f"{folder.name}.partial*"):
        shutil.rmtree(left, ignore_errors=True)
    staging = folder.with_name(name or staging_name(folder))
    staging.mkdir(parents=True)
    try:
        yield staging
        shutil.rmtree(folder, ignore_errors=True)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def staging_name(folder: Path) -> str:
    """Return a name that no other process gives to what it stages for a folder."""
    return f"{folder.name}.partial-{os.getpid()}-{secrets.token_hex(4)}"


def leave_adapter(folder: Path, adapter: Path) -> None:
    """Put an adapter in the place of the weights that it was merged into; tokenizer and generation settings stay.

    Args:
        folder: A student's, as of `save_atomically`.
        adapter: The adapter that it was trained as.
    """
    for path in [*folder.glob("model*.safetensors*"), folder / "config.json"]:
        path.unlink()
    (folder / _ADAPTER_WEIGHTS).write_bytes((adapter / _ADAPTER_WEIGHTS).read_bytes())
    config = json.loads((adapter / ADAPTER_CONFIG).read_text())
    for name in ("target_modules", "exclude_modules"):  # sets of PEFT's, listed in an order of the process
        if isinstance(config.get(name), list):
            config[name] = sorted(config[name])
    config["revision"] = json.loads((folder / FACTS).read_text())["start_commit"]
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def merge_adapter(base: str, adapter: Path, model_fields: Mapping[str, Any]) -> PreTrainedModel:
    """Merge a LoRA adapter into its base in the base's own precision; see `adapters.load_adapted`."""
    return load_adapted(base, adapter, model_fields).merge_and_unload()  # type: ignore[no-any-return]
