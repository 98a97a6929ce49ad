"""Is a student fit to be published? One completion is made, and its end, padding and tokenizer are looked at.

What is checked is what other people's students fail on: they never stop, they pad with the end of a turn, or
their `generation_config` names other tokens than their tokenizer.
"""

from __future__ import annotations

from typing import Any

from toolkit.decoding import end_token_ids, generate
from toolkit.errors import UserError
from toolkit.tokenizing import prompt_ids


def check_student(
    model: Any,
    tokenizer: Any,
    prompt: str,
    *,
    max_new_tokens: int = 256,
    add_special_tokens: bool = True,
    end_of_turn: str | None = None,
) -> list[str]:
    """Complete one prompt and check that the student may be published.

    Args:
        model: The student.
        tokenizer: Its tokenizer.
        prompt: A prompt of the kind it was trained on.
        max_new_tokens: Tokens within which it should stop.
        add_special_tokens: As in `toolkit.decoding.Decoding`.
        end_of_turn: Token that ends what it was trained to write; the tokenizer's end token by default.

    Returns:
        Warnings: what looks odd in the completion and stands in nobody's way.

    Raises:
        UserError: Lists every fault that makes the student useless to others.
    """
    faults = _token_faults(model, tokenizer, end_of_turn) + _text_faults(model, tokenizer, prompt, add_special_tokens)
    if faults:
        raise UserError("the student must not be published:\n" + "\n".join(f"  - {fault}" for fault in faults))
    [[generation]] = generate(
        model,
        tokenizer,
        [prompt],
        max_new_tokens=max_new_tokens,
        batch_size=1,
        seed=0,
        add_special_tokens=add_special_tokens,
    )
    warnings = []
    if not generation.stopped:
        warnings.append(f"the student did not stop within {max_new_tokens} tokens: {generation.text[-80:]!r}")
    if not generation.text.strip():
        warnings.append("the student's completion is empty")
    return warnings


def _token_faults(model: Any, tokenizer: Any, end_of_turn: str | None) -> list[str]:
    """What is wrong with the tokens that end and pad."""
    faults = []
    config = model.generation_config
    ends = end_token_ids(model, tokenizer) if config.eos_token_id is not None else []
    end = tokenizer.convert_tokens_to_ids(end_of_turn) if end_of_turn else tokenizer.eos_token_id
    if end is None:
        faults.append("the tokenizer has no end token, so the student cannot have learned to stop")
    elif end not in ends:
        token = tokenizer.convert_ids_to_tokens(end)
        faults.append(f"generation_config.eos_token_id is {ends}, without {end} ({token!r}), which ends a completion")
    if config.pad_token_id is None:
        faults.append("generation_config.pad_token_id is not set")
    elif config.pad_token_id != tokenizer.pad_token_id:
        faults.append(f"generation_config pads with {config.pad_token_id}, the tokenizer with {tokenizer.pad_token_id}")
    if config.pad_token_id is not None and config.pad_token_id in {end, *ends}:
        faults.append(f"padding token {config.pad_token_id} also ends a completion: whoever trains on masks the end")
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        faults.append(f"the tokenizer has {len(tokenizer)} tokens, the student's embedding {rows} rows")
    try:
        config.validate(strict=True)
    except ValueError as error:
        faults.append(f"generation_config is refused by save_pretrained: {error}")
    return faults


def _text_faults(model: Any, tokenizer: Any, prompt: str, add_special_tokens: bool) -> list[str]:
    """What is wrong with a prompt's way through tokenizer and model."""
    import torch

    [ids] = prompt_ids(tokenizer, [prompt], add_special_tokens)
    if max(ids) >= model.get_input_embeddings().weight.shape[0]:
        return []  # a fault of the tokens; the model cannot read them
    faults = []
    # Tokenizers may add or drop a space at the start; letters they may not lose.
    shown = tokenizer.decode(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    if "".join(shown.split()) != "".join(prompt.split()):
        faults.append(f"the tokenizer does not give the prompt back: {prompt[:80]!r} became {shown[:80]!r}")
    with torch.inference_mode():
        logits = model(torch.tensor([ids], device=model.device)).logits
    if not bool(torch.isfinite(logits).all()):
        faults.append("the student's logits are not finite")
    return faults
