"""Thinking is not the answer: the one place that tells what a model thought from what it answered.

Teachers, recorded files, builders, scores and the answer extractor all ask here. Known are tags in any case and nesting
(`<think>`, `<seed:think>`, `[THINK]`, `<|begin_of_thought|>`, ...), Harmony's channels (gpt-oss) with their special
tokens or without, and the phrases of Granite and Ollama. What stands in chunks is read in `toolkit.teachers.messages`.

It fails closed. A text that ends within a block was never answered, whatever it says; a closing tag without an opening
one makes everything before it thinking, as templates open blocks in the prompt. A tag quoted in code is text. No
torch; linear in the text; nothing raises on any text.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from typing import NamedTuple

Span = tuple[int, int]

# A tag's name says what it is somewhere in it (`<think_fast>`, `<thought_process>`); in square brackets, which texts
# use for more, it says nothing else.
_NAME = re.compile(
    r"(?:\w+:)?(?:\S*(?:think|thought|reason|reflect|monolog|scratch_?pad)\S*|analysis|chain_of_thought|cot|思考|推理)"
)
_ANGLE_TAG = r"""(?P<tag>[|｜]?\s{0,2}(?P<slash>/?)\s{0,2}(?P<name>[\w:▁-]{2,80}+)
    (?:\s{1,4}[\w-]{1,30}+\s?=[^<>]{0,200})?\s{0,2}(?P<empty>/?)[|｜]?[>＞])"""
# Harmony's headers: `<|start|>assistant<|channel|>final<|message|>`, or what is left of one where a server strips
# special tokens. Words glued to the text (`analysisWe need ... assistantfinalThe answer`) count where no sentence has
# them: at the very start, and behind `assistant`.
_CHANNEL = "analysis|commentary|final"
_BEHIND_CHANNEL = (
    rf"\s{{0,2}}(?:{_CHANNEL}|\w{{0,40}}+)(?:[^<]{{0,200}}+(?:<\|constrain\|>[^<]{{0,100}}+)?<\|message\|>)?"
)
_FIRST_HEADER = re.compile(
    rf"""\s*+(?:(?i:(?:assistant)?(?P<bare>{_CHANNEL})?(?:[ ][^<\n]{{0,100}})?<\|message\|>)
    | (?:assistant)?(?P<first>analysis|commentary)(?=[^\W_]|[\n"'(\[{{$\\*`<]))""",
    re.VERBOSE,
)
# Blocks of other forms by name: how they open and close behind their first character, and their closing in full.
_BLOCKS = {
    "gemma": (r"\|channel>(?:\s{0,2}(?:thought|thinking|analysis)\b)?", r"channel\|>", "<channel|>"),
    "medgemma": (r"unused94>(?:\s?thought\b)?", r"unused95>", "<unused95>"),
    "apertus": (r"\|inner_prefix\|>", r"\|inner_suffix\|>", "<|inner_suffix|>"),
    "s1": (r"\|im_start\|>think\b", r"\|im_start\|>answer\b", "<|im_start|>answer"),
    "web": (r"details\s[^<>]{0,100}type=[\"']reasoning[^<>]{0,100}>", r"/details>", "</details>"),
}
_IN_PROMPTS = ("gemma", "medgemma", "apertus", "s1")  # those that templates open
# Phrases that part thinking from answer, where a text begins with the first of a pair.
_PHRASES = (
    (r"\s*+Here(?:'s| is) my thought process:?", r"^ {0,3}Here(?:'s| is) my response:?"),  # Granite
    (r"\s*+Thinking\.\.\.\s{0,3}\n", r"^\.\.\.done thinking\. ?$"),  # Ollama
)
_IN_ANGLES = "|".join(
    (
        rf"(?P<header>(?:\|end\|>\s{{0,2}}<)?\|(?:start\|>(?P<role>[^<]{{0,200}}+)<\|)?(?P<channel>channel\|>{_BEHIND_CHANNEL}|message\|>))",
        r"(?P<answer>\|(?:begin_of_solution|start_response|begin\|>assistant<\|content)\|>)",
        r"(?P<end>\|(?:end|return|call|end_of_solution|end_response)\|>)",
        r"(?P<wrapper>(?P<unwrap>/?)(?:response|output)>)",
        *(f"(?P<open_{name}>{opens})|(?P<close_{name}>{closes})" for name, (opens, closes, _) in _BLOCKS.items()),
        _ANGLE_TAG,
    )
)
_KINDS = rf"""
    (?<=[<＜])(?:{_IN_ANGLES})
  | (?<=\[)(?P<square_tag>(?P<square_slash>/?)(?P<square_name>think|thinking|thoughts?)\])
  | (?<=◁)(?P<moon_tag>(?P<moon_slash>/?)(?P<moon_name>\w{{2,80}}+)▷)
  | (?<=&)(?P<html_tag>lt;(?P<html_slash>/?)(?P<html_name>[\w:-]{{2,80}}+)&gt;)
  | (?<=`)(?P<code>`*)
"""
_GLUED = rf"(?<=a)(?P<glued>(?-i:ssistant(?:{_CHANNEL}|<\|channel\|>{_BEHIND_CHANNEL})))"
# Each begins with a set of characters, by which `re` skips most of a text; the second, slower one is for a text that
# has the word at all.
_TOKEN = re.compile(rf"[<＜\[◁&`](?i:{_KINDS})", re.VERBOSE)
_TOKEN_OR_GLUED = re.compile(rf"[<＜\[◁&`a](?i:{_GLUED}|{_KINDS})", re.VERBOSE)
_NAMED = re.compile(rf"(?i)(?:<\|channel\|>\s*|\Aassistant(?!<))({_CHANNEL}|\w*)")
_CUT = re.compile(r"(?:</|\[/|◁/|<\|/|<\|end_(?:of_)?)(?:t|th|th[io]\w*|re|rea\w*)\Z", re.IGNORECASE)
_AROUND = re.compile(r"(?i)(?:begin|start|end|close|stop)[_▁-](?:of[_▁-])?|[_▁-](?:begin|start|end|close|stop)\Z")
_QUOTES = {"`": "`", '"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "「": "」"}
_LONGEST_CODE = 200  # characters between two runs of backticks in a line that are taken for code
_TAIL = 100  # characters at the end of a prompt in which the opening of a block is looked for
_HARMONY = frozenset(f"<|{name}|>" for name in ("start", "channel", "constrain", "message", "end", "return", "call"))
_ANSWER = "<|end|><|start|>assistant<|channel|>final<|message|>"  # what ends Harmony's analysis


class _Open(NamedTuple):
    """A block that is open: its name, and the text that opened it."""

    name: str
    tag: str


_BETWEEN = _Open("between messages", "")  # of Harmony: nothing there is an answer, and nothing is cut off there


class _Reader:
    """Goes through a text once and cuts it into pieces, without what marks them.

    Attributes:
        pieces: (start, end, whether it stands outside of all blocks) in order.
        first: Index of the first piece that can be answer.
        open: The blocks that are open, the outermost first.
    """

    def __init__(self, text: str, *, is_whole: bool = True) -> None:
        self.text = text
        self.pieces: list[tuple[int, int, bool]] = []
        self.first = 0
        self.open: list[_Open] = []
        self._names: Counter[str] = Counter()  # of the open blocks
        self._begin = 0
        self._is_harmony = False
        self._is_behind_block = False
        self._passed = 0  # where the next token can begin, behind code
        self._has_fences = True  # from here on, as far as is known
        self._solid = len(text) - len(text.lstrip())
        if is_whole:
            self._take_start()
        pattern = _TOKEN_OR_GLUED if "assistant" in text else _TOKEN
        for token in pattern.finditer(text, self._passed):
            if token.start() >= self._passed:
                self._take(token)

    def finish(self) -> None:
        """Close the last piece. Nothing is answer where a block is still open, or its closing tag was cut off."""
        self._cut(len(self.text), len(self.text))
        is_within = self.open and self.open[0] is not _BETWEEN
        if is_within or (not self.open and _CUT.search(self.text, max(0, len(self.text) - _TAIL))):
            self.first = len(self.pieces)

    @property
    def is_plain(self) -> bool:
        """Whether a text that was read to its end holds nothing that marks thinking."""
        return not self.first and len(self.pieces) == 1

    def spans(self, *, answer: bool) -> list[Span]:
        """Return the pieces that are answer, or those that are not: none blank, no white space at their seams."""
        found = []
        for place, (start, end, is_outside) in enumerate(self.pieces):
            piece = self.text[start:end]
            if (is_outside and place >= self.first) == answer and piece.strip():
                start += len(piece) - len(piece.lstrip()) if start else 0
                end -= len(piece) - len(piece.rstrip()) if end < len(self.text) else 0
                found.append((start, end))
        return found

    def _take_start(self) -> None:
        """Take what counts at the very start of a text alone."""
        for opening, closing in _PHRASES:
            if opened := re.match(opening, self.text, re.IGNORECASE):
                self._open_block("phrase", opened)
                closed = re.compile(closing, re.IGNORECASE | re.MULTILINE).search(self.text, opened.end())
                if closed:
                    self._close_block("phrase", closed, may_lack_opening=False)
                self._passed = closed.end() if closed else len(self.text)
        if header := _FIRST_HEADER.match(self.text):
            channel = (header["bare"] or header["first"] or "").lower()
            self._begin_message(header, None if channel == "final" else _Open(channel, header[0]))
            self._passed = header.end()

    def _take(self, token: re.Match[str]) -> None:
        kind = str(token.lastgroup)
        if kind == "code":
            self._pass_code(token)
        elif self._is_quoted(token):
            return
        elif kind.endswith("tag"):
            self._take_tag(token, kind.removesuffix("tag"))
        elif kind in ("header", "glued"):
            self._take_header(token)
        elif kind == "answer":
            self._begin_message(token, None)
        elif kind == "wrapper":
            self._take_wrapper(token)
        elif kind == "end":
            if self._is_harmony:
                self._cut(*token.span())
                self._set_open([_BETWEEN])
        elif kind.startswith("open_"):
            self._open_block(kind.removeprefix("open_"), token)
        else:
            name = kind.removeprefix("close_")
            self._close_block(name, token, may_lack_opening=name in _IN_PROMPTS)

    def _cut(self, end: int, begin: int) -> None:
        self.pieces.append((self._begin, end, not self.open))
        self._begin = begin
        self._is_behind_block = False

    def _set_open(self, blocks: list[_Open]) -> None:
        self.open = blocks
        self._names = Counter(block.name for block in blocks)

    def _take_tag(self, token: re.Match[str], form: str) -> None:
        written = token[f"{form}name"]
        around = _AROUND.search(written)
        name = _AROUND.sub("", written).lower()
        if not _NAME.fullmatch(name):
            return
        if token[f"{form}slash"] or (around and re.search("(?i)end|close|stop", around[0])):
            self._close_block(name, token, may_lack_opening=True)
        elif form or not token["empty"]:
            self._open_block(name, token)
        elif not self.open:
            self._cut(*token.span())

    def _open_block(self, name: str, token: re.Match[str]) -> None:
        if not self.open:
            self._cut(*token.span())
        self.open.append(_Open(name, token[0].strip()))
        self._names[name] += 1

    def _close_block(self, name: str, token: re.Match[str], *, may_lack_opening: bool) -> None:
        """Close the innermost block of this name with those in it. Within others, a name that is not open is text."""
        if not self.open:
            if may_lack_opening:  # it was opened in the prompt
                self._cut(*token.span())
                self.first = len(self.pieces)
                self._is_behind_block = True
            return
        if not self._names[name]:
            return
        place = next(place for place in reversed(range(len(self.open))) if self.open[place].name == name)
        if not place:
            self._cut(*token.span())
            self._is_behind_block = True
        self._names.subtract(block.name for block in self.open[place:])
        del self.open[place:]

    def _take_header(self, token: re.Match[str]) -> None:
        role = (token["role"] or "assistant").strip().lower()
        found = _NAMED.search(token[0])
        channel = found[1].lower() if found else ""
        if not role.startswith("assistant"):
            self._begin_message(token, _BETWEEN)  # the turn of somebody else
        elif channel == "final" or (token["role"] and "<|channel|>" not in token[0].lower()):
            self._begin_message(token, None)
        else:
            self._begin_message(token, _Open(channel, token[0].strip()))

    def _begin_message(self, token: re.Match[str], block: _Open | None) -> None:
        self._cut(*token.span())
        if not self._is_harmony:  # what stands before the first header has its own in the prompt
            self._is_harmony, self.first = True, len(self.pieces)
        self._set_open([block] if block else [])

    def _take_wrapper(self, token: re.Match[str]) -> None:
        """Take a tag around an answer for that only right behind a block, and where its opening was taken so."""
        if not token["unwrap"]:
            if self._is_behind_block and not self.text[self._begin : token.start()].strip():
                self._begin_message(token, None)
        elif self._is_harmony and not self.open:
            self._cut(*token.span())
            self._set_open([_BETWEEN])

    def _is_quoted(self, token: re.Match[str]) -> bool:
        before = self.text[max(0, token.start() - 1) : token.start()]
        return before in _QUOTES and self.text.startswith(_QUOTES[before], token.end())

    def _pass_code(self, token: re.Match[str]) -> None:
        """Pass over code in an answer. In thinking, which breaks off anywhere, backticks need not come in pairs."""
        if self.open:
            return
        start, end = token.span()
        indent = self.text[max(self._begin, start - 4) : start].rpartition("\n")
        is_fence = end - start >= 3 and not indent[2].strip() and (bool(indent[1]) or start - 4 < self._begin)
        if is_fence and self._has_fences and start > self._solid:  # at the very start it is put around all of the text
            closing = self.text.find("\n```", end)
            self._has_fences = closing >= 0
            self._passed = max(end, closing + 4)
        elif not is_fence:
            closing = self.text.find(token[0], end, end + _LONGEST_CODE)
            if closing >= 0 and "\n" not in self.text[end:closing]:
                self._passed = closing + len(token[0])


def split_thinking(text: str) -> tuple[str, str]:
    """Split a completion into (answer, thinking), both without what marks them; either may be empty.

    Parts of an answer between which something was thought are joined by an empty line, and so is what was thought. A
    text without thinking comes back as it is, and so does an answer that is split again.
    """
    reader = _read(text)
    if reader.is_plain:
        return text, ""
    return _joined(text, reader.spans(answer=True)), _joined(text, reader.spans(answer=False)).strip()


def answer_spans(text: str) -> list[Span]:
    """Return where the parts of a completion stand that `split_thinking` takes for its answer, in order.

    Returns:
        (start, end) of each that is not blank; none where nothing was answered.
    """
    return _read(text).spans(answer=True)


def left_open(opening: str) -> tuple[str, str] | None:
    """Return the tag of a block that the opening of an answer, or a prompt, leaves open, and the tag that closes it."""
    reader = _Reader(opening, is_whole=False)
    if not reader.open or reader.open[-1] is _BETWEEN:
        return None
    name, tag = reader.open[-1]
    if name in _BLOCKS:
        return tag, _BLOCKS[name][2]
    if name in _CHANNEL.split("|"):
        return tag, _ANSWER
    if around := _AROUND.search(tag):
        end = re.sub("(?i)begin|start|open", lambda word: "END" if word[0].isupper() else "end", around[0])
        return tag, tag[: around.start()] + end + tag[around.end() :]
    return tag, re.sub(r"\A(<[|｜]?|\[|◁|&lt;)", r"\1/", tag.partition(" ")[0])


def split_completion(prompt: str, completion: str) -> tuple[str, str]:
    """Split a completion as `split_thinking` does, where its prompt is known and may have opened a block."""
    opened = left_open(prompt[-_TAIL:])
    if opened is None or completion.lstrip().startswith(opened[0]):
        return split_thinking(completion)
    return split_thinking(f"{opened[0]}\n{completion}")


def closes_thinking(text: str) -> bool:
    """Whether a text, say what stands before the answer in a view, closes a block that it does not open."""
    return _Reader(text, is_whole=False).first > 0


@lru_cache(maxsize=8)
def marking(tokens: tuple[str, ...]) -> frozenset[str]:
    """Return those of a tokenizer's special tokens that mark thinking: without them it reads as part of the answer."""
    special = frozenset(tokens)
    marks = {token for token in special if not _read(f"a{token}b").is_plain}
    return frozenset(marks) | (special & _HARMONY if "<|channel|>" in special else frozenset())


def _read(text: str) -> _Reader:
    reader = _Reader(text)
    reader.finish()
    if not reader.is_plain and (spans := reader.spans(answer=True)):
        again = _Reader(_joined(text, spans))
        again.finish()
        if not again.is_plain:  # what is left holds thinking of its own: not wholly understood
            reader.first = len(reader.pieces)
    return reader


def _joined(text: str, spans: list[Span]) -> str:
    return "\n\n".join(text[start:end] for start, end in spans)
