"""LoRA on a loaded student: whatever of its embeddings is adapted, the student that is saved is the one trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.records import duals, imitation, saved_student
from toolkit import student_saving
from toolkit.adapters import NEW_TOKENS, embeddings_at, new_tokens
from toolkit.errors import UserError
from toolkit.stages import make_trainer, train_stage
from toolkit.students import add_tokens, load_tokenizer, save_atomically, set_tokens, student_with_tokenizer

pytestmark = pytest.mark.slow

Q = ["q_proj"]
# Where an adapter may meet embeddings: what the recipe says of it, and whether tied weights stay tied.
MEETINGS: dict[str, tuple[dict[str, Any], bool]] = {
    "none": ({"lora_target_modules": Q}, True),
    "all linear layers": ({"lora_target_modules": ["all-linear"]}, True),
    "an adapter on the input": ({"lora_target_modules": [*Q, "embed_tokens"]}, False),
    "the input alone": ({"lora_target_modules": ["embed_tokens"]}, False),
    "the whole input": ({"lora_target_modules": Q, "lora_modules_to_save": ["embed_tokens"]}, False),
    "the whole output": ({"lora_target_modules": Q, "lora_modules_to_save": ["lm_head"]}, False),
    "both": ({"lora_target_modules": Q, "lora_modules_to_save": ["embed_tokens", "lm_head"]}, False),
    "an adapter and the whole output": (
        {"lora_target_modules": [*Q, "embed_tokens"], "lora_modules_to_save": ["lm_head"]},
        False,
    ),
}
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def adapted(**fields: Any) -> dict[str, Any]:
    return {"use_peft": True, "lora_r": 4, "lora_dropout": 0.0} | fields


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Mapping[bool, str]:
    """A loaded student with tied embeddings, and one without."""
    return {
        tied: saved_student(tmp_path_factory.mktemp("base"), tie_word_embeddings=tied, num_hidden_layers=1)
        for tied in (True, False)
    }


@pytest.fixture(scope="module")
def starts(bases: Mapping[bool, str], tmp_path_factory: pytest.TempPathFactory) -> Mapping[bool, str]:
    """The same, with tokens of their own for a chat template, one of which ends turns."""
    return {tied: chatting(base, tmp_path_factory.mktemp("start") / "start") for tied, base in bases.items()}


def chatting(base: str, folder: Path) -> str:
    tokenizer = load_tokenizer(base)
    add_tokens(tokenizer, ["<|im_start|>", "<|im_end|>"])
    set_tokens(tokenizer, "<|im_end|>", None, CHATML)
    added = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    save_atomically(folder, student_with_tokenizer(base, {}, tokenizer, seed=0), tokenizer, {NEW_TOKENS: added})
    return str(folder)


class Trained:
    """What a stage's trainer had in memory when it was saved, beside what was saved.

    The logits in memory are taken by the model's own forward, the adapter unmerged, and not by the code under test.
    """

    def __init__(self, start: str, folder: Path, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        self.ids = torch.tensor([[*range(2, 30), *range(len(load_tokenizer(start)))[-3:], 40, 50]])
        saved = student_saving.save_trained

        def save(trainer: Any, *rest: Any) -> None:
            with torch.no_grad():
                self.logits = trainer.model.eval()(input_ids=self.ids).logits
            saved(trainer, *rest)

        monkeypatch.setattr("toolkit.stages.save_trained", save)
        of_stage = imitation(max_steps=3, learning_rate=5e-2)
        train_stage(of_stage, duals(8), start, folder, fields, "chat" if new_tokens(start) else "plain")
        self.model = AutoModelForCausalLM.from_pretrained(folder / "student")
        self.start = AutoModelForCausalLM.from_pretrained(start)

    def difference(self, model: Any) -> float:
        """Return how far the logits of a model are from those in memory, as a share of their spread."""
        with torch.no_grad():
            logits = model(input_ids=self.ids).logits
        return float((logits - self.logits).abs().max() / self.logits.std())

    def moved(self, tokens: list[int]) -> list[bool]:
        """Return whether the rows of tokens have moved, all at the input first, then all at the output."""
        modules = [(model.get_input_embeddings(), model.get_output_embeddings()) for model in (self.start, self.model)]
        return [
            not torch.equal(before.weight[token], after.weight[token])
            for before, after in zip(*modules, strict=True)
            for token in tokens
        ]


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("meeting", MEETINGS)
def test_the_saved_student_is_the_one_in_memory(
    bases: Mapping[bool, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meeting: str, tied: bool
) -> None:
    fields, stays = MEETINGS[meeting]
    trained = Trained(bases[tied], tmp_path, adapted(**fields), monkeypatch)
    assert trained.difference(trained.start) > 0.01  # it has learnt something
    assert trained.difference(trained.model) < 1e-4
    assert trained.model.config.tie_word_embeddings == (tied and stays)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("meeting", MEETINGS)
def test_the_rows_of_new_tokens_are_trained_and_saved_or_the_recipe_is_refused(
    starts: Mapping[bool, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meeting: str, tied: bool
) -> None:
    fields, _ = MEETINGS[meeting]
    if tied and meeting == "the whole output":
        with pytest.raises(UserError, match=r"student\.lora_modules_to_save: found 'lm_head' without 'embed_tokens'"):
            train_stage(imitation(), duals(4), starts[tied], tmp_path, adapted(**fields), "chat")
        assert not (tmp_path / "student").exists()
        return
    trained = Trained(starts[tied], tmp_path, adapted(**fields), monkeypatch)
    opening, closing = new_tokens(starts[tied])
    assert trained.difference(trained.model) < 1e-4
    assert trained.moved([opening, closing]) == [True] * 4
    if meeting in ("none", "all linear layers"):
        assert not any(trained.moved([2, 40, 41]))


def test_new_rows_are_trained_in_every_stage_that_follows(starts: Mapping[bool, str], tmp_path: Path) -> None:
    fields, of_stage = adapted(lora_target_modules=Q), imitation(max_steps=1, learning_rate=5e-2)
    train_stage(of_stage, duals(4), starts[True], tmp_path / "first", fields, "chat")
    train_stage(of_stage, duals(4), str(tmp_path / "first" / "student"), tmp_path / "second", fields, "chat")
    rows = [
        AutoModelForCausalLM.from_pretrained(tmp_path / name / "student").get_input_embeddings().weight[-1]
        for name in ("first", "second")
    ]
    assert not torch.equal(*rows)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_the_fused_head_reads_the_trained_rows(starts: Mapping[bool, str], tmp_path: Path, tied: bool) -> None:
    """TRL's head reads the output layer's weight and bypasses its forward, where the rows are put in place."""
    losses = {}
    fields = adapted(lora_target_modules=Q)
    trainer, _ = make_trainer(imitation(), duals(4), starts[tied], tmp_path, fields, "chat")
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if "trainable_tokens" in name:
                weight.add_(1.0)
    batch = next(iter(trainer.get_train_dataloader()))
    for trainer.head in ("plain", "fused"):
        trainer.model.zero_grad()
        loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=torch.tensor([100.0]))
        loss.backward()
        gradients = [p.grad for n, p in trainer.model.named_parameters() if "trainable_tokens" in n]
        losses[trainer.head] = torch.cat([loss.detach().flatten(), *(g.flatten() for g in gradients)])
    assert losses["plain"].abs().max() > 0
    assert torch.allclose(losses["plain"], losses["fused"], rtol=1e-4, atol=1e-6)


def test_an_adapter_on_the_output_layer_is_refused_by_its_key(bases: Mapping[bool, str], tmp_path: Path) -> None:
    fields = adapted(lora_target_modules=["q_proj", "lm_head"])
    with pytest.raises(UserError, match=r"student\.lora_target_modules: found 'lm_head'.*lora_modules_to_save"):
        train_stage(imitation(), duals(4), bases[False], tmp_path, fields, "plain")


def test_embeddings_are_found_by_what_they_are(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPTNeoXConfig

    sizes: dict[str, Any] = {
        "vocab_size": 64,
        "bos_token_id": None,
        "eos_token_id": None,
        "num_hidden_layers": 1,
        "hidden_size": 16,
        "num_attention_heads": 2,
    }
    found = []
    for kind, config in {"gpt2": GPT2Config(**sizes), "gpt_neox": GPTNeoXConfig(**sizes, intermediate_size=32)}.items():
        config.save_pretrained(tmp_path / kind)
        names = embeddings_at(str(tmp_path / kind))
        found.append((names.inputs, names.outputs, names.tied))
    assert found == [("transformer.wte", "lm_head", True), ("gpt_neox.embed_in", "lm_head", False)]


# --- what is not the same is refused


def test_a_student_that_would_be_loaded_as_another_one_is_refused_and_trained_no_second_time(
    bases: Mapping[bool, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As merging into tied weights did: it wrote into both."""
    monkeypatch.setattr("toolkit.adapters.comes_apart", lambda *_: False)
    fields = adapted(lora_target_modules=["q_proj", "embed_tokens"])
    of_stage = imitation(max_steps=3, learning_rate=5e-2, save_strategy="steps", save_steps=3)
    with pytest.raises(UserError, match=r"stages\.imitate: the student that was saved.*student\.lora_target_modules"):
        train_stage(of_stage, duals(8), bases[True], tmp_path, fields, "plain")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "checkpoints"]
    monkeypatch.undo()
    facts = train_stage(of_stage, duals(8), bases[True], tmp_path, fields, "plain")
    assert (facts["resumed_from_step"], facts["steps"]) == (3, 3)


def test_a_whole_student_that_is_saved_wrongly_is_refused_too(
    bases: Mapping[bool, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = student_saving.write_beside

    def write_and_spoil(folder: Path, *rest: Any) -> None:
        model = AutoModelForCausalLM.from_pretrained(folder)
        with torch.no_grad():
            model.get_input_embeddings().weight[:] += 0.1
        model.save_pretrained(folder)
        write(folder, *rest)

    monkeypatch.setattr(student_saving, "write_beside", write_and_spoil)
    with pytest.raises(UserError, match=r"the student that was saved is not the one that was trained: on one record"):
        train_stage(imitation(), duals(8), bases[False], tmp_path, {}, "plain")
    assert not (tmp_path / "student").exists()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_in_half_precision_is_no_difference(bases: Mapping[bool, str], tmp_path: Path, dtype: str) -> None:
    fields = adapted(lora_target_modules=["all-linear"], dtype=dtype)
    facts = train_stage(imitation(max_steps=3, learning_rate=2e-2), duals(8), bases[True], tmp_path, fields, "plain")
    assert facts["steps"] == 3


def test_a_student_that_diverged_is_not_saved(bases: Mapping[bool, str], tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"stages\.imitate: .*diverged\. Lower stages\.imitate\.training\.learning_rate"
    ):
        train_stage(imitation(max_steps=4, learning_rate=1e30), duals(8), bases[False], tmp_path, {}, "plain")
    assert not (tmp_path / "student").exists()
