"""Whether training shows a student what decoding will give it: the same tokens up to where it begins to write.

Looked at before anything is trained, on every record (`faults`, by `encoding`), and once on the bare templates
(`check_views`), which needs no record and so no teacher. What is not as it should be:

- decoding's ids are no prefix of training's: a tokenizer that merges across the end of the prompt;
- a control token of the student's, an end of turn above all, that stands in a record as text;
- a chat template that opens a thinking block which the target does not close.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.chat_templates import PROBE, check_template, user_turn
from toolkit.errors import UserError
from toolkit.thinking import left_open
from toolkit.tokenized_views import TokenizedView
from toolkit.tokenizing import added_tokens, chat_template, control_tokens, prompt_ids, prompt_text, tokenize_text
from toolkit.views import columns, fill, literals

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from toolkit.recipe import Recipe, Stage, View

_SAMPLES = ("Tom has 7 kites", "7 kites", "(B)")


class Seams:
    """Looks at the sequences of one stage.

    Args:
        tokenizer: The student's.
        prompt_format: `plain` or `chat`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt_format: str) -> None:
        self._tokenizer: Any = tokenizer
        self._prompt_format = prompt_format
        self._control = control_tokens(tokenizer)
        self._written: dict[str, Counter[int]] = {}
        self._told: dict[tuple[str, str], str] = {}
        self._frame: Counter[int] | None = None

    def faults(self, tokenized: Sequence[TokenizedView]) -> list[str | None]:
        """Return what is wrong with each sequence, None where decoding is a beginning of training."""
        if not tokenized:
            return []
        plain = self._prompt_format == "plain"
        texts = [prompt_text(self._tokenizer, one.view.prompt, self._prompt_format) for one in tokenized]
        given = prompt_ids(self._tokenizer, texts, plain)
        opening = added_tokens(self._tokenizer, texts)[0] if plain else 0
        return [
            self._control_fault(one, opening) or self._seam_fault(one, ids)
            for one, ids in zip(tokenized, given, strict=True)
        ]

    def _control_fault(self, one: TokenizedView, opening: int) -> str | None:
        """Count: a control token that no template wrote is a record's."""
        found = Counter(token for token in one.input_ids[opening:-1].tolist() if token in self._control)
        if not found:
            return None
        unwritten = found - self._of_templates(one.view.literals)
        if not unwritten:
            return None
        return f"holds {self._control[min(unwritten)]!r} as text, which is a control token of the student's"

    def _of_templates(self, text: str) -> Counter[int]:
        if self._frame is None:
            framed = (
                ""
                if self._prompt_format == "plain"
                else user_turn(chat_template(self._tokenizer), self._tokenizer.special_tokens_map, PROBE)
            )
            self._frame = self._counted(framed)
        if text not in self._written:
            self._written[text] = self._counted(text)
        return self._frame + self._written[text]

    def _counted(self, text: str) -> Counter[int]:
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        return Counter(token for token in ids if token in self._control)

    def _seam_fault(self, one: TokenizedView, given: Sequence[int]) -> str | None:
        if one.input_ids[: len(given)].tolist() == list(given):
            return None
        target = "".join(segment.text for segment in one.view.target)
        # Neighbours of a seam differ little from record to record, and several remedies are tried on each.
        around = one.view.prompt[-2:], target[:2]
        if around not in self._told:
            self._told[around] = describe_seam(
                self._tokenizer, self._prompt_format, one.view.prompt, target, one.input_ids[:-1].tolist(), given
            )
        return self._told[around]


def describe_seam(
    tokenizer: Any, prompt_format: str, prompt: str, target: str, trained: Sequence[int], given: Sequence[int]
) -> str:
    """Return how training and decoding differ at a prompt's end, and where the whitespace belongs, in words.

    Args:
        tokenizer: The student's.
        prompt_format: `plain` or `chat`.
        prompt: What is given at decoding, before any chat template.
        target: What follows it in training.
        trained: Ids of both.
        given: Ids of the prompt alone, no beginning of `trained`.
    """
    first = next((place for place, ids in enumerate(zip(trained, given, strict=False)) if ids[0] != ids[1]), 0)
    begin, end = max(first - 2, 0), len(given) + 2

    def shown(ids: Sequence[int]) -> str:
        some = list(ids[begin:end])
        return f"{[tokenizer.decode([token]) for token in some]} (ids {some})"

    return (
        f"the tokenizer runs the prompt's end and the target's start together: decoding gives {shown(given)}, training "
        f"has {shown(trained)}, so the student is asked what it never saw. "
        f"{_remedy(tokenizer, prompt_format, prompt, target)}"
    )


def _remedy(tokenizer: Any, prompt_format: str, prompt: str, target: str) -> str:
    """Return which end of the prompt and start of the target the tokenizer keeps apart, tried out, in words."""
    bare, rest = prompt.rstrip(), target.lstrip()
    space = prompt[len(bare) :] + target[: len(target) - len(rest)]
    ways = [(space[:cut], space[cut:]) for cut in range(len(space), -1, -1)] if prompt_format == "plain" else []
    ways += [("", "") if prompt_format == "chat" else ("\n", ""), ("", " "), ("", "\n")]
    for ending, start in ways:
        framed = prompt_text(tokenizer, bare + ending if prompt_format == "plain" else prompt, prompt_format)
        alone, whole = prompt_ids(tokenizer, [framed, framed + start + rest], prompt_format == "plain")
        if whole[: len(alone)] == alone:
            end = f"end the prompt with {(bare[-1:] + ending)!r} and " if prompt_format == "plain" else ""
            return f"Move the whitespace: {end}begin the target with {(start + rest[:1])!r}"
    return "Part them by a line break or a space on one of the two sides"


def check_views(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> None:
    """Try the templates of every view on a student's tokenizer, on words in the place of columns.

    Raises:
        UserError: The student's chat template is of no use, or in some view the student would be asked what training
            never shows it, whatever the record; names them all.
    """
    assert recipe.student is not None
    prompt_format = recipe.student.prompt_format
    opened = None
    if prompt_format == "chat":
        try:
            opened = left_open(check_template(chat_template(tokenizer), tokenizer.special_tokens_map))
        except UserError as error:
            whose = (
                "" if recipe.student.chat_template else "; so is the template that the tokenizer brings: set another"
            )
            raise UserError(f"{error}{whose}") from None
    wrong = {
        f"{where}: {fault}": None
        for where, name, view in _views(recipe)
        for fault in _template_faults(tokenizer, prompt_format, view, _forced(recipe, name), opened)
    }
    if wrong:
        raise UserError("\n".join(wrong))


def _views(recipe: Recipe) -> Iterator[tuple[str, str, View]]:
    """Yield every view that is trained on, with its dotted key and its name."""
    places: list[tuple[str, Sequence[Stage]]] = [("stages", recipe.stages)]
    places += [(f"references.{name}.stages", reference.stages) for name, reference in recipe.references.items()]
    for place, stages in places:
        for stage in stages:
            for name, view in stage.views.items():
                if view.coefficient:
                    yield f"{place}.{stage.name}.views.{name}", name, view


def _forced(recipe: Recipe, name: str) -> set[int]:
    """Return how many of a view's first segments the student is given, over all turns that ask for it; 0 included."""
    decodes = [recipe.decode, *(reference.decode for reference in recipe.references.values())]
    turns = [turn for decode in decodes if decode for turn in (*decode.turns, decode.beside)]
    return {0} | {turn.forced for turn in turns if turn and turn.view == name}


def _template_faults(
    tokenizer: Any, prompt_format: str, view: View, forced: set[int], opened: tuple[str, str] | None
) -> Iterator[str]:
    written = "".join(literals(piece.text) for piece in view.target)
    if opened and opened[1] not in written:
        yield (
            f"the chat template opens a thinking block ({opened[0]}) that the target does not close: begin the target "
            f"with {opened[1] + chr(10) * 2!r}, or set student.chat_template to one that does not open it"
        )
        return
    if tokenizer.eos_token in written:
        yield (
            f"the target writes {tokenizer.eos_token!r}, the student's end of sequence, which is put behind every "
            "target by itself; leave it out"
        )
        return
    faults = []
    for sample in _SAMPLES:
        prompt, *pieces = (
            fill(template, {}, dict.fromkeys(columns(template), sample))
            for template in (view.prompt, *(piece.text for piece in view.target))
        )
        faults.append(next(_sample_faults(tokenizer, prompt_format, prompt, pieces, forced), None))
    if all(faults):  # what only some records do is counted with the records
        yield str(faults[0])


def _sample_faults(
    tokenizer: Any, prompt_format: str, prompt: str, pieces: Sequence[str], forced: set[int]
) -> Iterator[str]:
    plain = prompt_format == "plain"
    text = prompt_text(tokenizer, prompt, prompt_format)
    [(trained, _)] = tokenize_text(tokenizer, [text + "".join(pieces)], prompt_format)
    for given in sorted(number for number in forced if number < len(pieces)):
        start = "".join(pieces[:given])
        [ids] = prompt_ids(tokenizer, [text + start], plain)
        if trained[: len(ids)] != ids:
            yield describe_seam(tokenizer, prompt_format, prompt + start, "".join(pieces[given:]), trained, ids)
