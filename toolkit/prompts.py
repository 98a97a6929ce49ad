"""Prompt templates: files in, rendered text out. What is put into a prompt is never read as a template.

Two kinds of file. `.jinja` gets the variables `task`, `task_description`, `question`, `choices`, `answer`, `right`,
`wrong`, `exemplars` and `answer_phrase`, for counterfactuals also `other`, `field`, `text` and `labels`; an unknown one
is an error. `.txt` is the form in which the authors of EDIT
and BBH published theirs: the slots {QUESTION}, {CORRECT}, {RIGHT} and {WRONG} are filled, the rest stands as it is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.answers import ANSWER_PHRASE
from toolkit.errors import UserError, nearest
from toolkit.problem import Problem

if TYPE_CHECKING:
    import jinja2

# Of a `.jinja` file.
_VARIABLES = frozenset(
    (
        *("task", "task_description", "question", "choices", "answer", "right", "wrong", "exemplars"),
        *("answer_phrase", "other", "field", "text", "labels"),
    )
)
# Without these the teacher would not know what is wanted. None of them has a slot, so such a prompt is a .jinja file.
_NEEDED = {"edit": {"other"}, "refute": {"other"}}
_SLOT = re.compile(r"\{(QUESTION|CORRECT|RIGHT|WRONG)\}")
# BBH's own few-shot files hold a canary and a rule above their exemplars, and no place for the question.
_CANARY_HEADER = re.compile(r"\A.*canary GUID.*\n-----\n")
_BBH_QUERY = "\n\nQ: {QUESTION}\nA: Let's think step by step."


@dataclass(frozen=True)
class Exemplar:
    """One worked example of a contrastive prompt; both responses end in their answer clause."""

    question: str
    right: str
    wrong: str


@dataclass(frozen=True)
class Template:
    """A prompt template.

    Attributes:
        name: What it asks for (`cot`, `answer_hint`, `contrastive`).
        text: Source text.
        is_jinja: A Jinja template, else one with {SLOTS}.
    """

    name: str
    text: str
    is_jinja: bool

    @cached_property
    def label(self) -> str:
        """Name and digest of the text, e.g. `cot@1a2b3c4d`; stands in the provenance of every row."""
        return f"{self.name}@{hashlib.sha256(self.text.encode()).hexdigest()[:8]}"

    @cached_property
    def _compiled(self) -> jinja2.Template:
        return _environment().from_string(self.text)

    def render(
        self,
        problem: Problem,
        right: str = "",
        wrong: str = "",
        exemplars: Sequence[Exemplar] = (),
        *,
        other: str = "",
        field: str = "",
        text: str = "",
        labels: Sequence[str] = (),
    ) -> str:
        """Render the prompt for one problem.

        Args:
            problem: Supplies question, gold answer, choices and task description.
            right: Right chain with its answer clause, for contrastive prompts.
            wrong: Start of the wrong chain, mostly empty.
            exemplars: Worked examples; files with {SLOTS} bring their own.
            other: Another answer than the problem's: the one to be edited towards, or to be refuted.
            field: Name of the part of the question to be edited.
            text: That part as it is.
            labels: All answers that there are to choose from.

        Raises:
            UserError: The template uses an unknown variable.
        """
        if not self.is_jinja:
            slots = {"QUESTION": problem.question, "CORRECT": problem.answer, "RIGHT": right, "WRONG": wrong}
            return _SLOT.sub(lambda slot: slots[slot.group(1)], self.text)
        import jinja2

        try:
            return self._compiled.render(
                task=problem.task,
                task_description=problem.task_description,
                question=problem.question,
                choices=problem.choices,
                answer=problem.answer,
                right=right,
                wrong=wrong,
                exemplars=exemplars,
                answer_phrase=ANSWER_PHRASE,
                other=other,
                field=field,
                text=text,
                labels=labels,
            )
        except jinja2.UndefinedError as error:
            raise UserError(f"prompt template {self.name!r}: {error.message}") from None


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    import jinja2

    # Prompts are plain text, so nothing is escaped; data is passed as variables and never compiled.
    return jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True)


def read_template(name: str, path: Path) -> Template:
    """Read a template file, `.jinja` or `.txt`; one trailing line break is not part of a `.jinja` prompt.

    A `.txt` file without {QUESTION} is taken for a list of exemplars in BBH's own form: a canary header is
    dropped and the query (`Q: ...`, `A: Let's think step by step.`) is put below.

    Raises:
        UserError: No such file, not UTF-8, another suffix, or a Jinja template with a syntax error, an unknown
            variable or no question.
    """
    if path.suffix not in (".jinja", ".txt"):
        raise UserError(f"{path}: a prompt template is a .jinja or a .txt file")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        others = [other.name for other in path.parent.glob(f"*{path.suffix}") if other.name != path.name]
        raise UserError(f"cannot read prompt template {path}: {error}{nearest(path.name, others)}") from None
    needed = _NEEDED.get(name, set())
    if path.suffix == ".txt":
        if needed:
            raise UserError(f"{path}: a prompt for {name!r} has to show {sorted(needed)}, which only a .jinja file can")
        if "{QUESTION}" not in text:
            text = _CANARY_HEADER.sub("", text).rstrip("\n") + _BBH_QUERY
        return Template(name, text, is_jinja=False)
    import jinja2
    from jinja2 import meta

    try:
        used = meta.find_undeclared_variables(_environment().parse(text))
        _environment().from_string(text)  # which also knows filters and tests
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"{path}:{error.lineno} is not a Jinja template: {error.message}") from None
    for unknown in sorted(used - _VARIABLES):
        allowed = ", ".join(sorted(_VARIABLES))
        raise UserError(f"{path}: no variable {unknown!r}, allowed {allowed}{nearest(unknown, _VARIABLES)}")
    for name_ in ("question", *sorted(needed)):
        if name_ not in used:
            raise UserError(
                f"{path}: the prompt never shows {{{{ {name_} }}}}, the teacher would not know what is asked"
            )
    return Template(name, text, is_jinja=True)


def check_prompt(name: str, path: Path) -> None:
    """Check that a template can be read and renders for a question that has everything.

    Raises:
        UserError: As of `read_template`, or it does not render.
    """
    template = read_template(name, path)
    problem = Problem("kites/0", "kites", "Which of these flies?", "(A)", "choice", ("a kite", "a stone"), "Think.")
    try:
        template.render(
            problem, "right", "wrong", [Exemplar("q", "r", "w")], other="(B)", field="question", text="t", labels=("a",)
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # a template is a foreign program: it may raise anything
        raise UserError(f"{path}: does not render: {str(error) or type(error).__name__}") from None


class PromptBook:
    """The templates of one build: one per kind of prompt, or one per kind and task.

    Args:
        defaults: Folder of `<kind>.jinja` files.
        given: Template file per kind, with `{task}` in the path where every task has its own; kinds left out
            use the default.

    Raises:
        UserError: A given file cannot be read.
    """

    def __init__(self, defaults: Path, given: Mapping[str, str | None] | None = None) -> None:
        self._defaults = defaults
        self._given = {kind: path for kind, path in (given or {}).items() if path}
        self._read: dict[Path, Template] = {}
        for kind, path in self._given.items():
            if "{task}" not in path:
                read_template(kind, Path(path))  # a mistake in a later round's prompt is told before the first is paid

    def template(self, kind: str, task: str) -> Template:
        """Return the template for a kind of prompt and a task.

        Raises:
            UserError: Its file cannot be read.
        """
        given = self._given.get(kind)
        path = self._defaults / f"{kind}.jinja" if given is None else Path(given.replace("{task}", task))
        if path not in self._read:
            self._read[path] = read_template(kind, path)
        return self._read[path]

    def labels(self) -> list[str]:
        """Return the labels of all templates used so far, sorted."""
        return sorted({template.label for template in self._read.values()})

    def render(self, kind: str, problem: Problem, **slots: Any) -> tuple[str, str]:
        """Return the rendered prompt and the label of its template."""
        template = self.template(kind, problem.task)
        return template.render(problem, **slots), template.label
