"""Where students come from: tokenizers that pad with a token of their own, configurations, merged adapters."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from tests.chains import chains, stage
from tests.records import duals, imitation, saved_student
from tests.tiny_students import END, tiny_llama, tiny_tokenizer
from toolkit.encoding import encode, encode_record
from toolkit.errors import UserError
from toolkit.recipe import Recipe
from toolkit.reporting import check_padding
from toolkit.stage_views import StageViews
from toolkit.stages import make_trainer, train_stage
from toolkit.students import (
    add_tokens,
    agree,
    load_tokenizer,
    merge_adapter,
    save_atomically,
    set_tokens,
    student_from_config,
    student_with_tokenizer,
    train_tokenizer,
)

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def saved(folder: Path, **special: Any) -> str:
    """Save the tiny tokenizer with other special tokens and return its folder."""
    tokenizer = tiny_tokenizer()
    extra = special.pop("extra", [])
    tokenizer.add_special_tokens({"additional_special_tokens": extra})
    for name, token in special.items():
        setattr(tokenizer, name, token)
    tokenizer.save_pretrained(folder)
    return str(folder)


# --- tokens that pad and end


@pytest.mark.parametrize(
    ("special", "pad"),
    [
        ({"pad_token": "<|pad|>"}, "<|pad|>"),
        ({"pad_token": None, "unk_token": "<unk>"}, "<unk>"),
        ({"pad_token": END, "unk_token": "<unk>"}, "<unk>"),
        ({"pad_token": END, "unk_token": END, "extra": ["<|reserved_7|>"]}, "<|pad|>"),
        ({"pad_token": None, "extra": ["<|reserved_7|>"]}, "<|pad|>"),
    ],
    ids=["its own", "none, but an unknown", "the end, but an unknown", "all the end, but a spare", "none, but a spare"],
)
def test_padding_never_ends_a_turn_where_another_token_is_free(
    tmp_path: Path, special: dict[str, Any], pad: str
) -> None:
    tokenizer = load_tokenizer(saved(tmp_path, **special))
    assert tokenizer.pad_token == pad
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_no_token_is_added_to_pad_with(tmp_path: Path) -> None:
    source = saved(tmp_path, pad_token=None)
    assert len(load_tokenizer(source)) == len(AutoTokenizer.from_pretrained(source))


def test_a_missing_student_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model_name_or_path.*missing-student"):
        load_tokenizer(str(tmp_path / "missing-student"))


def test_configurations_take_the_tokenizers_ends() -> None:
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    model.generation_config.eos_token_id = [7]
    model.config.pad_token_id = model.generation_config.pad_token_id = None
    agree(model, tokenizer)
    assert model.generation_config.eos_token_id == [tokenizer.eos_token_id, 7]
    assert model.config.pad_token_id == model.generation_config.pad_token_id == tokenizer.pad_token_id


def test_a_padding_token_is_struck_from_the_models_ends() -> None:
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    model.generation_config.eos_token_id = [7, tokenizer.pad_token_id]
    agree(model, tokenizer)
    assert model.generation_config.eos_token_id == [tokenizer.eos_token_id, 7]


def test_a_student_that_could_pad_with_its_end_alone_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    vocabulary = Tokenizer(WordLevel({"a": 0, "</s>": 1}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=vocabulary, eos_token="</s>").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="nothing to pad with but its end of sequence"):
        check_padding(cast("Recipe", SimpleNamespace(publish=True, student=None)), str(tmp_path))


# --- tokenizers trained here


TRAINED = train_tokenizer(["Q: What is 12 + 30?\nA: 12 + 30 = 42.\nTherefore, the answer is 42."] * 3, 300)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_a_trained_tokenizer(text: str) -> None:
    assert TRAINED.decode(TRAINED(text)["input_ids"]) == text


def test_a_trained_tokenizer_has_at_most_the_tokens_asked_for() -> None:
    assert 258 <= len(TRAINED) <= 300


def test_a_trained_tokenizer_reads_the_same_after_saving(tmp_path: Path) -> None:
    TRAINED.save_pretrained(tmp_path)
    text = "Q:  12 + 30 ?\n\nA: über 42."
    assert load_tokenizer(str(tmp_path))(text)["input_ids"] == TRAINED(text)["input_ids"]


# --- students from a configuration


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(99)
    first = student_from_config(CONFIG, TRAINED, seed=3).state_dict()
    torch.manual_seed(7)
    again, other = (student_from_config(CONFIG, TRAINED, seed=seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model_type": "lama"}, "did you mean 'llama'"),
        ({"model_type": "t5"}, "T5Config"),
        ({"hiden_size": 32}, "did you mean 'hidden_size'"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"hidden_size": 30, "num_attention_heads": 4}, "not a multiple of the number of attention heads"),
        ({"num_attention_heads": 0}, "division"),
        ({"hidden_size": -4}, "negative dimension"),
        ({"hidden_act": "no_such_function"}, "no_such_function"),
        ({"vocab_size": 9}, "vocab_size"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_a_configuration_that_makes_no_student_is_the_users_mistake(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=rf"(?s)^student\.from_config.*{told}"):
        student_from_config(CONFIG | fields, TRAINED, seed=0)


# --- saving and merging


def test_a_student_is_saved_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny_llama(), tiny_tokenizer()

    def fails(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(type(tokenizer), "save_pretrained", fails)
    with pytest.raises(OSError, match="no space left"):
        save_atomically(tmp_path / "student", model, tokenizer, {})
    assert not (tmp_path / "student").exists()


def test_what_a_broken_save_left_behind_is_not_in_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "student.partial").mkdir()
    (tmp_path / "student.partial" / "litter").touch()
    save_atomically(tmp_path / "student", tiny_llama(), tiny_tokenizer(), {"steps": 3})
    assert [path.name for path in tmp_path.iterdir()] == ["student"]
    assert not (tmp_path / "student" / "litter").exists()
    assert json.loads((tmp_path / "student" / "stage.json").read_text()) == {"steps": 3}


@pytest.mark.parametrize("modules", [["q_proj", "v_proj"], ["o_proj"], ["all-linear"]])
def test_a_merged_adapter_answers_as_the_adapter_did(tmp_path: Path, modules: list[str]) -> None:
    base = saved_student(tmp_path / "base")
    fields = {"use_peft": True, "lora_r": 4, "lora_target_modules": modules}
    stage = imitation(max_steps=4, learning_rate=5e-2)
    trainer, _ = make_trainer(stage, duals(8), base, tmp_path / "out", fields, "plain")
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    ids = torch.arange(2, 30).reshape(1, -1)
    with torch.no_grad():
        adapted = trainer.model.eval()(input_ids=ids).logits
        merged = merge_adapter(base, tmp_path / "adapter", fields)(input_ids=ids).logits
        untouched = AutoModelForCausalLM.from_pretrained(base)(input_ids=ids).logits
    assert torch.allclose(merged, adapted, atol=1e-4)
    assert not torch.allclose(merged, untouched, atol=1e-2)


# --- special tokens

PAUSED: dict[str, Any] = {
    "prompt": "Q: {question}<pause> A:<pause>",
    "target": [{"text": "<pause>" * 3, "weight": 0.0}, " {answer}", "<done>"],
}


def encoded_pauses(tokenizer: Any) -> dict[str, list[Any]]:
    """Encode the view above; return where its pauses stand, what they weigh, how it ends and what the end weighs."""
    of_stage = stage({"paused": PAUSED})
    ((tokens, sequence),) = encode_record(tokenizer, StageViews(of_stage, chains(1)), 0)
    pause, done = tokenizer.convert_tokens_to_ids(["<pause>", "<done>"])
    ids = tokens.input_ids.tolist()
    of_pauses = [place for place, token in enumerate(ids) if token == pause]
    return {
        "segments": [int(tokens.segments[place]) for place in of_pauses],
        "weights": [sequence.weights[place] for place in of_pauses],
        "end": [token == expected for token, expected in zip(ids[-2:], [done, tokenizer.eos_token_id], strict=True)],
        "end weights": sequence.weights[-2:],
    }


# One token wherever it is written, in prompt and target, between any neighbours.
PAUSES = {"segments": [-1, -1, 0, 0, 0], "weights": [0.0] * 5, "end": [True, True], "end weights": [1.0, 1.0]}


def test_the_special_tokens_of_a_trained_tokenizer_are_one_each_wherever_they_are_written() -> None:
    assert (
        encoded_pauses(train_tokenizer(["Q: What is 0 + 1?<pause> A:<pause><pause>"], 300, ["<pause>", "<done>"]))
        == PAUSES
    )


def test_special_tokens_that_nobody_writes_are_there_all_the_same() -> None:
    tokenizer = train_tokenizer(["Q: What?"], 300, ["<pause>"])
    assert tokenizer.convert_ids_to_tokens(tokenizer("a<pause>b")["input_ids"]) == ["a", "<pause>", "b"]


def test_added_tokens_are_special_beside_those_that_the_tokenizer_had(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(saved(tmp_path, extra=["<|turn|>"]))
    add_tokens(tokenizer, ["<pause>", "<done>"])
    assert encoded_pauses(tokenizer) == PAUSES
    assert {"<|turn|>", "<pause>", "<done>", END} <= set(tokenizer.all_special_tokens)
    add_tokens(tokenizer, [])
    assert "<pause>" in tokenizer.all_special_tokens


def test_a_token_that_the_student_has_is_not_added_again() -> None:
    with pytest.raises(UserError, match=r"student\.special_tokens: the student has the token '<\|end\|>' already"):
        add_tokens(tiny_tokenizer(), ["<pause>", END])
    with pytest.raises(UserError, match=r"student\.special_tokens: the student has the token '<pad>' already"):
        train_tokenizer(["Q: What?"], 300, ["<pad>"])


def with_tokens(source: str, special_tokens: list[str]) -> tuple[Any, Any]:
    tokenizer = load_tokenizer(source)
    add_tokens(tokenizer, special_tokens)
    return student_with_tokenizer(source, {}, tokenizer, seed=0), tokenizer


def test_a_loaded_student_grows_by_its_new_tokens_alone(tmp_path: Path) -> None:
    source = saved_student(tmp_path)
    before = AutoModelForCausalLM.from_pretrained(source)
    model, tokenizer = with_tokens(source, ["<pause>", "<done>"])
    again, _ = with_tokens(source, ["<pause>", "<done>"])
    assert encoded_pauses(tokenizer) == PAUSES
    assert len(tokenizer) == model.config.vocab_size == before.config.vocab_size + 2
    for grown, same, old in zip(*(m.parameters() for m in (model, again, before)), strict=True):
        assert torch.equal(grown, same)
        assert torch.equal(grown[: len(old)], old)
    old_rows, new_rows = (model.get_input_embeddings().weight[part] for part in (slice(None, -2), slice(-2, None)))
    assert (new_rows - old_rows.mean(0)).abs().max() < 0.1 * old_rows.std()


def test_a_student_with_rows_to_spare_takes_new_tokens_into_them(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_llama(tokenizer)
    model.resize_token_embeddings(len(tokenizer) + 8)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    grown, tokenizer = with_tokens(str(tmp_path), ["<pause>"])
    assert grown.config.vocab_size == len(tokenizer) + 7


def test_a_student_trained_with_new_tokens_is_loaded_with_them(tmp_path: Path) -> None:
    model, tokenizer = with_tokens(saved_student(tmp_path / "base"), ["<pause>", "<done>"])
    start = tmp_path / "start"
    save_atomically(start, model, tokenizer, {})
    of_stage = stage({"paused": PAUSED}, max_steps=2, learning_rate=1e-2)
    train_stage(of_stage, chains(4), str(start), tmp_path / "stage", {}, "plain")
    loaded = load_tokenizer(str(tmp_path / "stage" / "student"))
    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "stage" / "student")
    assert encoded_pauses(loaded) == PAUSES
    pause, done = loaded.convert_tokens_to_ids(["<pause>", "<done>"])
    moved = [
        (after - before).abs().max() > 1e-3
        for after, before in (
            (trained.get_input_embeddings().weight[pause], model.get_input_embeddings().weight[pause]),
            (trained.get_output_embeddings().weight[done], model.get_output_embeddings().weight[done]),
        )
    ]
    assert moved == [True, True]


# --- tokens that end and pad, and a chat template

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_base_student_learns_to_speak_and_to_end_as_it_is_told(tmp_path: Path) -> None:
    source = saved_student(tmp_path / "base")
    tokenizer = load_tokenizer(source)
    add_tokens(tokenizer, ["<|im_start|>", "<|im_end|>"])
    set_tokens(tokenizer, "<|im_end|>", END, CHATML)
    model = student_with_tokenizer(source, {}, tokenizer, seed=0)
    save_atomically(tmp_path / "start", model, tokenizer, {})
    of_stage = stage({"cot": {"prompt": "{question}", "target": ["{chain.rationale}"]}}, max_steps=1)
    columns, _ = encode(load_tokenizer(str(tmp_path / "start")), chains(2), of_stage, 128, "chat")
    written = tokenizer.decode(columns["input_ids"][0])
    assert written.startswith("<|im_start|>user\nWhat is 0 + ")
    assert written.endswith("<|im_end|>")
    train_stage(of_stage, chains(2), str(tmp_path / "start"), tmp_path / "stage", {}, "chat")
    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "stage" / "student")
    end, pad = tokenizer.convert_tokens_to_ids(["<|im_end|>", END])
    for configuration in (trained.config, trained.generation_config):
        assert (configuration.eos_token_id, configuration.pad_token_id) == (end, pad)
    assert load_tokenizer(str(tmp_path / "stage" / "student")).chat_template == CHATML


def test_what_is_not_said_stays_as_it_was() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHATML
    before = tokenizer.eos_token, tokenizer.pad_token
    set_tokens(tokenizer, None, None, None)
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.chat_template) == (*before, CHATML)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (("<|ent|>", None, None), r"student\.eos_token: found '<\|ent\|>'.*did you mean '<\|end\|>'.*special_tokens"),
        ((None, "<pat>", None), r"student\.pad_token: found '<pat>'.*did you mean '<\|pad\|>'"),
        (
            (None, END, None),
            r"student\.pad_token: found '<\|end\|>', but then the student pads with the token that ends",
        ),
        (("<|pad|>", None, None), r"student\.eos_token: found '<\|pad\|>', but then"),
        ((None, None, "{% for a in b %}\n{{ a }"), r"student\.chat_template: line 2: "),
    ],
)
def test_tokens_that_cannot_be_are_refused(tokens: tuple[Any, Any, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        set_tokens(tiny_tokenizer(), *tokens)
