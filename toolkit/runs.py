"""Where a recipe's results lie, and what each of them depends on.

    <output_dir>/<recipe>/stages/<stage>-<digest>/student     one trained stage, shared by every run that needs it
    <output_dir>/<recipe>/<digest>/                            one run: recipe, scores, samples, report

A stage's digest covers all that can change its weights: the student it starts from, the records, its views and
training arguments, and the code between them. A run's covers its students, the questions, and the code that scores
them. So an override retrains what it touches and nothing else, two students that share a first stage train it once, the
same command always finds its own checkpoints, and scores never stand beside weights that they are not of.

Everything is digested in declared or sorted order, so that every process finds the same places.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import UserError
from toolkit.hub_revisions import base_commit, pinned_arguments
from toolkit.import_closure import closure_digest
from toolkit.installed import ENVIRONMENT

if TYPE_CHECKING:
    from toolkit.recipe import Recipe, Stage
    from toolkit.recipe_sections import Student

RUN = "run.json"
FACTS = "stage.json"
# What lies in a student's folder and is never read by `from_pretrained`.
_BESIDE = frozenset({"README.md", "LICENSE", "recipe.yaml", RUN, FACTS, ENVIRONMENT})
_CALLED = {
    "recipe": "the recipe",
    "rows": "the dataset's records",
    "questions": "the evaluation questions",
    "code": "the code that trains",
    "scoring_code": "the code that scores",
    "base_commit": "the base model's commit",
    "base_content": "the base model's files",
    "start": "the student that training starts from",
}


def digest_of(*parts: Any) -> str:
    """Return the SHA-256 (hex) of JSON-serialisable parts; the order of keys does not count, that of lists does."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True, sort_keys=True).encode()).hexdigest()


def rows_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the SHA-256 (hex) of a dataset's records, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, ensure_ascii=True, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def texts_digest(texts: Iterable[str]) -> str:
    """Return the SHA-256 (hex) of texts, in order."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{len(text)} {text}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def code_digest() -> str:
    """Return the SHA-256 (hex) of our code between records and weights, as it was when first asked."""
    return closure_digest("toolkit.starting", "toolkit.stages")


def scoring_digest() -> str:
    """Return the SHA-256 (hex) of our code between weights and scores, as it was when first asked."""
    return closure_digest("toolkit.scoring")


@cache
def folder_digest(folder: Path) -> str:
    """Return the SHA-256 (hex) of the files of a student's folder that can change what is loaded from it.

    All of them are read, once in a process: about a second for each gigabyte. Sizes and times would be cheaper, but a
    copy has other times, and training of the same length leaves other weights of the same size.
    """
    digest = hashlib.sha256()
    files = [path for path in (*folder.iterdir(), *folder.glob("additional_chat_templates/*")) if path.is_file()]
    for path in sorted(files):
        if path.name not in _BESIDE and not path.name.startswith("."):
            digest.update(f"{path.relative_to(folder).as_posix()} {file_digest(path)}\n".encode())
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def base_content(student: Student) -> str | None:
    """Return the digest of the folder that a student is loaded from; None for one from elsewhere."""
    name = student.model_name_or_path
    return folder_digest(Path(name).resolve()) if name and Path(name).is_dir() else None


def _own_tokens(student: Student) -> tuple[Any, ...]:
    """Return what a recipe changes of a tokenizer."""
    return student.special_tokens, student.eos_token, student.pad_token, student.chat_template


@dataclass(frozen=True)
class TrainedStage:
    """A stage and where it lies.

    Attributes:
        stage: The recipe's section.
        folder: Its own folder; `student/` in it is the result.
        start: Student it starts from: a folder or a model of the Hub.
    """

    stage: Stage
    folder: Path
    start: str

    @property
    def student(self) -> Path:
        """Folder of the trained student."""
        return self.folder / "student"


@dataclass(frozen=True)
class Run:
    """One run of a recipe on one dataset.

    Attributes:
        recipe: The resolved recipe.
        rows: Digest of the records.
        texts: Digest of what the tokenizer of a student from a configuration is trained on; empty for another student.
        questions: Digest of what students are asked, in evaluation and development; empty where nothing is scored.
    """

    recipe: Recipe
    rows: str
    texts: str = ""
    questions: str = ""

    @property
    def root(self) -> Path:
        """Folder of everything that this recipe's name has made."""
        return Path(self.recipe.output_dir) / self.recipe.recipe.name

    @cached_property
    def origin(self) -> dict[str, Any]:
        """Everything that the run's results come from, part by part, as `run.json` keeps it.

        The commit of a dataset is no part of it: what was read at that commit is, by its content.
        """
        student = self._student
        return {
            "recipe": self.recipe.digest,
            "rows": self.rows,
            "questions": self.questions,
            "code": code_digest(),
            "scoring_code": scoring_digest(),
            "base_commit": base_commit(student),
            "base_content": base_content(student),
            "start": self.start.name if self.makes_its_start else None,
            "students": {name: [link.folder.name for link in chain] for name, chain in self.students.items()},
        }

    @cached_property
    def folder(self) -> Path:
        """Folder of this run's scores, samples and report."""
        return self.root / digest_of(self.origin)[:12]

    @property
    def _student(self) -> Student:
        if self.recipe.student is None or not self.recipe.stages:
            raise UserError(
                f"recipe {self.recipe.recipe.name!r} has no student or no stages: there is nothing to train"
            )
        return self.recipe.student

    @property
    def makes_its_start(self) -> bool:
        """Whether training starts from a student that is made here, and not from one as it was loaded."""
        student = self.recipe.student
        return student is not None and (not student.model_name_or_path or any(_own_tokens(student)))

    @cached_property
    def start(self) -> Path:
        """Folder of the student that is made here, from a configuration or with other tokens than it brings."""
        student = self._student
        tokenizer = student.tokenizer.vocab_size if student.tokenizer else None
        made_of = [student.from_config, tokenizer, *_own_tokens(student), student.seed, self.texts]
        if student.model_name_or_path:
            made_of += [self._base, pinned_arguments(student)]
        identity = digest_of(made_of, code_digest())
        return self.root / "stages" / f"start-{identity[:12]}"

    @property
    def _base(self) -> str | None:
        """What a loaded student is: its name, to which `pinned_arguments` has the commit, or its folder's content."""
        return base_content(self._student) or self._student.model_name_or_path

    @cached_property
    def students(self) -> dict[str, list[TrainedStage]]:
        """Every student that is trained and scored, each as the chain of stages that makes it.

        The recipe's own comes last, after the references and after its own earlier stages.

        Raises:
            UserError: A reference bears the name of a stage, by which the student after that stage is called.
        """
        stages, references = self.recipe.stages, self.recipe.references
        names = {stage.name for stage in stages}
        if both := [name for name in references if name in names]:
            raise UserError(f"references.{both[0]}: a stage has this name already, and its student is called by it")
        students = {name: self.chain(reference.stages) for name, reference in references.items()}
        return students | {stage.name: self.chain(stages[:end]) for end, stage in enumerate(stages, 1)}

    def chain(self, stages: Sequence[Stage]) -> list[TrainedStage]:
        """Return where each of some stages lies, trained one after the other from the recipe's student."""
        student = self._student
        start = str(self.start) if self.makes_its_start else str(student.model_name_or_path)
        identity = digest_of(
            self.start.name if self.makes_its_start else self._base,
            pinned_arguments(student),
            student.prompt_format,
            self.rows,
            code_digest(),
        )
        chain = []
        for stage in stages:
            identity = digest_of(identity, stage.identity())
            trained = TrainedStage(stage, self.root / "stages" / f"{stage.name}-{identity[:12]}", start)
            chain.append(trained)
            start = str(trained.student)
        return chain


def origins_apart(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Say, by name, what one run comes from that another one does not.

    Args:
        before: An earlier run's `origin`, as `run.json` has it; parts that an earlier version did not record differ.
        now: `Run.origin` of this one.
    """
    for key, called in _CALLED.items():
        if key not in before or before[key] != now[key]:
            yield f"{called} ({_shown(before, key)}, now {_shown(now, key)})"
    then, students = before.get("students", {}), now["students"]
    known = {folder for chain in then.values() for folder in chain}
    new = dict.fromkeys(folder for chain in students.values() for folder in chain if folder not in known)
    if new:
        yield f"the stages {', '.join(new)}, none of which it was made with"
    elif then != students:
        yield f"the students {', '.join(students)}, found {', '.join(then) or 'none'} in it"


def _shown(origin: Mapping[str, Any], key: str) -> str:
    if key not in origin:
        return "not recorded"
    return str(origin[key] or "none")[:12]
