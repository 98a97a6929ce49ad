"""Random students small enough for tests: a Llama of a few thousand parameters and its byte-level BPE tokenizer."""

from __future__ import annotations

from functools import cache
from typing import Any

PAD = "<|pad|>"
END = "<|end|>"

CORPUS = [
    "Q: Tom has 3 boxes of 4 apples and eats 2 of them. How many apples are left?",
    "A: There are 3 * 4 = 12 apples. After eating 2, 12 - 2 = 10 are left.\nTherefore, the answer is 10.",
    "Q: Ann is taller than Bob and Bob is taller than Cy. Who is the shortest?",
    "A: Ann is taller than Bob, and Bob is taller than Cy, so Cy is the shortest.\nTherefore, the answer is Cy.",
    "Q: A train leaves at 9:15 and arrives at 11:40. How many minutes does the trip take?",
    "A: Let's think step by step. From 9:15 to 11:15 is 120 minutes, and 25 more make 145 minutes.",
] * 4


@cache
def _trained_vocabulary(vocab_size: int) -> str:
    """Train a byte-level BPE on `CORPUS` once per process and return it as the tokenizer's JSON."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer.to_str()


def tiny_tokenizer(vocab_size: int = 384) -> Any:
    """A fresh fast tokenizer with every byte in its vocabulary, pad `<|pad|>` (id 0) and end `<|end|>` (id 1)."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained_vocabulary(vocab_size)), pad_token=PAD, eos_token=END
    )


def tiny_llama(tokenizer: Any = None, *, seed: int = 0, **config: Any) -> Any:
    """A float32 Llama with random weights that depend on `seed` alone, in eval mode: hidden 32, 2 layers, 4 heads.

    Its vocabulary and special tokens are the tokenizer's. Random weights are drawn wide enough (standard deviation 0.3)
    that greedy decoding does not hang on near-ties between logits.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer or tiny_tokenizer()
    settings: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
        **config,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                bos_token_id=None,
                **settings,
            )
        )
    return model.float().eval()
