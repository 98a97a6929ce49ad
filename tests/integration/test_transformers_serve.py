"""Collecting from `transformers serve`: a real OpenAI-compatible server that nobody here wrote."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataset_builders import load_builder
from dataset_builders.building import build_dataset
from toolkit.collect import collect
from toolkit.collect_settings import CollectSettings
from toolkit.errors import UserError
from toolkit.store import Store
from toolkit.tally import CollectReport
from toolkit.teachers.openai_compatible import OpenAIConfig, OpenAITeacher
from toolkit.teachers.protocol import Request, Sampling

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn")),
        reason="needs the extra `serve`: pip install cot-distillery[serve]",
    ),
]

CHAT_TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def save_tiny_model(folder: Path) -> None:
    """Save a one-layer Llama with random weights and a byte-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<eos>", "<pad>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(vocabulary), **sizes, bos_token_id=None, eos_token_id=0, pad_token_id=1)
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny-llama")
    save_tiny_model(folder)
    return str(folder)


@pytest.fixture(scope="module")
def address(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path_factory.mktemp("home")
    command = [str(Path(sys.executable).with_name("transformers")), "serve", model, "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    with (home / "log").open("wb") as log:
        arguments = [*command, "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(arguments, stdout=log, stderr=log, env=environment)
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/health", server, home / "log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


def wait_until_healthy(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the server never answered:\n{log.read_text()}")


def asks(model: str, number: int) -> list[Request]:
    sampling = Sampling(temperature=0.0, max_tokens=8, stop=("\nQ:",), seed=0)
    return [Request(model, (("user", f"Q: {n} + 1?\nA:"),), sampling) for n in range(number)]


def run(address: str, model: str, requests: list[Request], store: Store) -> CollectReport:
    teacher = OpenAITeacher(OpenAIConfig(model=model, base_url=address, api_key_env="NO_KEY_IS_NEEDED_HERE"))
    return asyncio.run(collect(requests, teacher, store, CollectSettings(concurrency=4)))


def test_completions_are_collected_once_and_kept(address: str, model: str, tmp_path: Path) -> None:
    requests = asks(model, 6)
    with Store(tmp_path / "s.db") as store:
        first = run(address, model, requests, store)
        assert (first.asked, first.answered, first.failed) == (6, 6, 0)
        assert run(address, model, requests, store) == CollectReport(cached=6)
        completions = [store.get(request) for request in requests]
    for completion in completions:
        assert completion is not None
        assert completion.finish_reason in ("stop", "length")
        assert 0 < completion.completion_tokens <= 8
        assert completion.raw["object"] == "chat.completion"
    assert first.prompt_tokens == sum(completion.prompt_tokens for completion in completions if completion) > 0


def test_a_model_the_server_does_not_have_fails_in_the_servers_words(address: str, tmp_path: Path) -> None:
    requests = asks("another-model", 1)
    with Store(tmp_path / "s.db") as store, pytest.raises(UserError, match=r"HTTP 4\d\d.*another-model"):
        run(address, "another-model", requests, store)


def test_a_build_asks_once_for_each_sample_and_says_what_came_of_it(address: str, model: str, tmp_path: Path) -> None:
    config = {
        "problems": {"source": "procedural", "n": 3},
        "teacher": {"kind": "openai", "model": model, "base_url": address, "api_key_env": "NO_KEY_IS_NEEDED_HERE"},
        "samples": 2,
        "sampling": {"temperature": 1.0, "max_tokens": 8, "seed": 0},
    }
    settings = load_builder("teacher_cots").SETTINGS.model_validate(config)
    places = {"hub_dir": tmp_path / "hub", "repo_id": "r", "revision": "v1.0.0", "command": "", "show_progress": False}
    for _ in range(2):
        # Random weights say nothing of use, and every sample is rejected for it.
        with pytest.raises(UserError, match="no record is left to train on; cot: "):
            build_dataset("teacher_cots", settings, tmp_path / "s.db", **places)
        with Store(tmp_path / "s.db", read_only=True) as store:
            assert store.stats().completions == 6
