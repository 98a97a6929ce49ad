"""A teacher in this process: any causal language model of the Hub or of a folder, through `transformers`.

It decodes what waits together in batches; what a completion becomes does not depend on its neighbours. Torch and the
model are loaded when the first request is to be answered, and stay for the rounds that follow.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from toolkit.contrastive_decoding import decode_contrastively
from toolkit.decoding import Decoding, Generation, end_token_ids, generate_batches
from toolkit.errors import UserError
from toolkit.hub_revisions import commit_of, is_on_hub
from toolkit.named_files import ModelName, RecipeFile
from toolkit.schema import Strict
from toolkit.teachers.logprobs import measure_logprobs
from toolkit.teachers.protocol import Completion, Request, TeacherError
from toolkit.thinking import split_completion
from toolkit.tokenizing import prompt_ids


class LocalModelConfig(Strict):
    """A causal language model that answers in this process.

    Attributes:
        kind: Tells this teacher from the others.
        model: Model of the Hub, or a folder.
        revision: Branch, tag or commit on the Hub.
        recipe: Recipe that trains the model, where it is a student; named where the model is missing.
        prompt_format: Prompts as they are written, or as a user's turn in the model's chat template.
        device: `auto` is the accelerator where there is one, or else the CPU; otherwise as torch names it (`cuda:1`).
        dtype: `auto` is that of the checkpoint.
        batch_size: Prompts decoded at once; answers do not depend on it.
        contrast_beta: How much a contrast prompt counts, in builders that decode contrastively: 0.5 in SCOTT.
        stop_at_newline: End a contrastively decoded answer at its first line break, as SCOTT does.
    """

    kind: Literal["transformers"] = "transformers"
    model: ModelName = Field(min_length=1)
    revision: str | None = None
    recipe: RecipeFile | None = None
    prompt_format: Literal["plain", "chat"] = "plain"
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch_size: int = Field(default=8, ge=1)
    contrast_beta: float = Field(default=0.5, ge=0)
    stop_at_newline: bool = False


class LocalModelTeacher:
    """Decodes with one model. Greedy at temperature 0; else a draw by seed, prompt and sample index alone.

    A request with a `contrast` is decoded contrastively (`toolkit.contrastive_decoding`), which is greedy.

    Attributes:
        kind: `transformers`.
        model: The model's name; of a folder its last part, as folders belong to a machine, and of a version in a local
            hub the one before too.
    """

    kind = "transformers"

    def __init__(self, config: LocalModelConfig) -> None:
        self.model = _name_of(Path(config.model)) if Path(config.model).is_dir() else config.model
        self._config = config
        self._loaded: tuple[Any, Any] | None = None
        self._waiting: list[tuple[Request, asyncio.Future[Completion]]] = []
        self._turn = asyncio.Lock()

    async def complete(self, request: Request) -> Completion:
        """Answer one request, in a batch with others of the same sampling parameters that wait.

        Raises:
            TeacherError: `permanent`, where the prompt with its completion does not fit into the model's positions;
                `fatal`, where the model cannot be loaded or does not fit into memory, there is no chat template, or a
                contrastive request has a temperature.
        """
        if request.contrast is not None and request.sampling.temperature:
            reason = "contrastive decoding is greedy: set `sampling.temperature` to 0"
            raise TeacherError("fatal", reason)
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        async with self._turn:
            await asyncio.sleep(0)  # whoever asks in the same moment joins
            if not future.done():
                await self._answer_batch(request)
        return await future

    async def check(self) -> None:
        """Load the model.

        Raises:
            TeacherError: `fatal`, where it cannot be loaded.
        """
        self._open()

    async def close(self) -> None:
        """Forget whoever waits; the model stays for the next round and goes with the teacher."""
        self._waiting.clear()
        self._turn = asyncio.Lock()  # the next round may run in another event loop

    async def _answer_batch(self, first: Request) -> None:
        """Answer a request together with those that wait and are decoded alike."""
        alike = [item for item in self._waiting if _kind_of(item[0]) == _kind_of(first)]
        own = next(item for item in alike if item[0] is first)
        batch = [own, *(item for item in alike if item is not own)][: self._config.batch_size]
        self._waiting = [item for item in self._waiting if item not in batch]
        try:
            answers = await asyncio.to_thread(self._answer, [request for request, _ in batch])
        except TeacherError as error:
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():  # its task was cancelled
                continue
            if isinstance(answer, TeacherError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _answer(self, requests: Sequence[Request]) -> list[Completion | TeacherError]:
        """Answer requests of one kind; those that do not fit get an error of their own."""
        import torch

        model, tokenizer = self._open()
        answers: list[Completion | TeacherError | None] = [self._too_long(request) for request in requests]
        fitting = [index for index, answer in enumerate(answers) if answer is None]
        try:
            done = self._decode([requests[index] for index in fitting]) if fitting else []
            for index, generation in zip(fitting, done, strict=True):
                answers[index] = self._completion(model, tokenizer, requests[index], generation)
        except torch.OutOfMemoryError:
            reason = f"the accelerator's memory is too small for `teacher.batch_size` {self._config.batch_size}"
            raise TeacherError("fatal", reason) from None
        except UserError as error:
            raise TeacherError("fatal", str(error)) from None
        return [answer for answer in answers if answer is not None]

    def _decode(self, requests: Sequence[Request]) -> list[Generation]:
        model, tokenizer = self._open()
        sampling = requests[0].sampling
        if sampling.temperature is None or sampling.top_p is None:
            raise UserError("a model in this process has no sampling parameters of its own: set temperature and top_p")
        decoding = Decoding(
            sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            stop=sampling.stop,
            add_special_tokens=self._adds_special_tokens,
        )
        if requests[0].contrast is not None:
            pairs = [(self._prompt(request), self._contrast(request)) for request in requests]
            return decode_contrastively(
                model,
                tokenizer,
                pairs,
                decoding,
                beta=self._config.contrast_beta,
                stop_at_newline=self._config.stop_at_newline,
                batch_size=len(pairs),
            )
        rows = [(self._prompt(request), request.sample_index) for request in requests]
        done: dict[int, Generation] = {}
        for some in generate_batches(model, tokenizer, rows, decoding, batch_size=len(rows), seed=sampling.seed or 0):
            done |= some
        return [done[index] for index in range(len(rows))]

    def _completion(self, model: Any, tokenizer: Any, request: Request, generation: Generation) -> Completion:
        shown = self._prompt(request)
        text, reasoning = split_completion(shown, generation.text)
        prompt = self._encode(tokenizer, shown)
        commit = getattr(model.config, "_commit_hash", None)
        choice: dict[str, Any] = {"message": {"role": "assistant", "content": generation.text}}
        if wanted := request.sampling.top_logprobs:
            ends = end_token_ids(model, tokenizer)
            ids = [token for token in generation.ids if token not in ends]
            tokens = measure_logprobs(model, tokenizer, prompt, ids, wanted)
            choice["logprobs"] = {"content": [token.as_response() for token in tokens]}
        return Completion(
            text=text,
            reasoning=reasoning,
            finish_reason="stop" if generation.stopped else "length",
            model=f"{self.model}@{commit[:12]}" if commit else self.model,
            prompt_tokens=len(prompt),
            completion_tokens=generation.tokens,
            raw={"choices": [choice], "transformers": {"commit": commit, "dtype": str(model.dtype)}},
        )

    def _too_long(self, request: Request) -> TeacherError | None:
        model, tokenizer = self._open()
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        prompts = [self._prompt(request), *([self._contrast(request)] if request.contrast is not None else [])]
        longest = max(len(self._encode(tokenizer, prompt)) for prompt in prompts)
        if positions is None or longest + request.sampling.max_tokens <= positions:
            return None
        return TeacherError(
            "permanent",
            f"a prompt of {longest} tokens leaves no room for `sampling.max_tokens` {request.sampling.max_tokens}: the "
            f"model has {positions} positions",
        )

    @property
    def _adds_special_tokens(self) -> bool:
        return self._config.prompt_format == "plain"  # a chat template brings its own

    def _encode(self, tokenizer: Any, prompt: str) -> list[int]:
        [ids] = prompt_ids(tokenizer, [prompt], self._adds_special_tokens)
        return ids

    def _contrast(self, request: Request) -> str:
        """Return the contrast prompt: that of the request with its last message replaced."""
        role, _ = request.messages[-1]
        contrast = request.contrast or ""
        return self._prompt(replace(request, messages=(*request.messages[:-1], (role, contrast)), contrast=None))

    def _prompt(self, request: Request) -> str:
        _, tokenizer = self._open()
        if self._config.prompt_format == "plain":
            return "\n\n".join(content for _, content in request.messages)
        if not tokenizer.chat_template:
            reason = f"`teacher.prompt_format` is chat, but {self.model} has no chat template; use plain"
            raise TeacherError("fatal", reason)
        messages = [{"role": role, "content": content} for role, content in request.messages]
        try:
            return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # a template is a foreign program: it may raise anything
            raise TeacherError("fatal", f"the chat template of {self.model} fails: {error}") from None

    def _open(self) -> tuple[Any, Any]:
        if self._loaded is None:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer

            config = self._config
            device = config.device
            if device == "auto":
                accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
                device = str(accelerator or "cpu")
            try:
                revision = commit_of("model", config.model, config.revision) if is_on_hub(config.model) else None
                tokenizer = AutoTokenizer.from_pretrained(config.model, revision=revision)
                model: Any = AutoModelForCausalLM.from_pretrained(config.model, revision=revision, dtype=config.dtype)
                self._loaded = model.to(device).eval(), tokenizer
            except (OSError, ValueError, RuntimeError, AssertionError, UserError) as error:
                reason = f"`teacher.model` {self.model!r} cannot be loaded: {error}"
                if config.recipe and not Path(config.model).exists():
                    reason = (
                        f"`teacher.model` {config.model!r} is not there. Train it first: "
                        f"accelerate launch toolkit/train.py {config.recipe}"
                    )
                raise TeacherError("fatal", " ".join(reason.split())) from None
        return self._loaded


def _name_of(folder: Path) -> str:
    """Return how a folder's model is called: `name`, or `name@v1.2.3`."""
    return f"{folder.parent.name}@{folder.name}" if re.fullmatch(r"v\d+\.\d+\.\d+", folder.name) else folder.name


def _kind_of(request: Request) -> tuple[Any, ...]:
    """Return what requests must share to be decoded together."""
    return request.sampling, request.contrast is not None
