"""The sections of a recipe: their keys, types and ranges. What must agree between them is in `recipe_checks`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    create_model,
    model_serializer,
    model_validator,
)

from toolkit.errors import UserError, nearest
from toolkit.licences import Licence
from toolkit.named_files import ModelName, portable
from toolkit.neutral_fields import decisive
from toolkit.problem_sources import ProblemsConfig
from toolkit.recipe_names import Name, RepoId, Revision, Version
from toolkit.schema import Strict
from toolkit.selection import Select
from toolkit.training_fields import model_config_fields, training_model
from toolkit.transform_settings import Transform
from toolkit.views import parse_each


def _variable(text: str) -> str:
    if not text.isidentifier() or not text.isascii():
        raise ValueError("allowed the name of a variable, such as ans")
    return text


def _each(text: str) -> str:
    try:
        parse_each(text)
    except UserError as error:
        raise ValueError(str(error).partition(", ")[2]) from None
    return text


class Section(Strict):
    """A section of a recipe; its numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)


class Identity(Section):
    """What the recipe is: `recipe`.

    Attributes:
        name: Names the run's folder.
        version: Must rise when the recipe's results move.
        paper: arXiv id or other reference, as text.
        title: One line for cards.
    """

    name: Name
    version: int = Field(ge=1)
    paper: str | None = None
    title: str | None = None


class DatasetSection(Section):
    """The dataset that students learn from: `dataset`.

    Attributes:
        builder: Who builds it, a module of `dataset_builders`; None for one that is published already.
        repo_id: `organisation/name` on the Hub, a folder in the local hub.
        revision: Version tag; for a dataset without builder also a commit.
        config: The builder's own settings, an instance of its `SETTINGS`; None without a builder.
    """

    builder: str | None = None
    repo_id: RepoId
    revision: Revision
    config: Any = None


class TokenizerSection(Section):
    """The tokenizer that a student made from a configuration gets: `student.tokenizer`.

    Attributes:
        vocab_size: Most tokens; 256 bytes and two special ones are always there, and so are `student.special_tokens`.
    """

    vocab_size: int = Field(default=1024, ge=258, le=2**20)


class Student(Section):
    """The model to train: `student`, made from a configuration or loaded; beside these any field of `trl.ModelConfig`.

    Attributes:
        from_config: `model_type` and fields of that model's configuration, for an untrained student.
        tokenizer: Of a student from a configuration; trained on the dataset.
        model_name_or_path: Model of the Hub or folder to load.
        seed: Of the initial weights, those of new tokens included.
        special_tokens: Tokens to add, such as `<pause>`; where a template writes one, it is one token. Its rows are
            trained, with LoRA too.
        eos_token: Token of a loaded student that ends its turns from now on, or one of `special_tokens`: a base model
            that is to speak Qwen's chat format ends with `<|im_end|>`.
        pad_token: Token of a loaded student that fills batches; another one than ends its turns.
        chat_template: Jinja text of the student's chat template, in place of its own. Where it asks for the date, every
            run gives it the same one.
        prompt_format: Prompts as they are written, or as a user's turn in the student's chat template.
    """

    from_config: dict[str, Any] | None = None
    tokenizer: TokenizerSection | None = None
    model_name_or_path: ModelName | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)
    special_tokens: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    eos_token: str | None = None
    pad_token: str | None = None
    chat_template: str | None = None
    prompt_format: Literal["plain", "chat"] = "plain"

    def model_arguments(self) -> dict[str, Any]:
        """Return the fields of `trl.ModelConfig` that the recipe sets, without the model's name."""
        ours = Student.model_fields
        # In declared order: that of a set differs from process to process, and stages are found again by this.
        return {
            name: getattr(self, name)
            for name in type(self).model_fields
            if name in self.model_fields_set and name not in ours
        }

    @model_serializer(mode="wrap")
    def _without_defaults_of_others(self, dump: Callable[[Student], dict[str, Any]]) -> dict[str, Any]:
        kept, dumped = self.model_fields_set | Student.model_fields.keys(), dump(self)
        return {name: dumped[name] for name in type(self).model_fields if name in kept and name in dumped}


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class TargetSegment(Section):
    """A piece of a view's target; a text alone stands for `{text: ...}`.

    Attributes:
        text: Template (`toolkit.views`).
        weight: Factor of its tokens' weights; 0 is context that the student sees and is never scored on.
        role: What the piece is; by default the last part of its first column's path.
        transform: What is done to the column's text first, one transform or several in order (`toolkit.transforms`).
            The segment then holds one column.
        soft_targets: Column of a teacher's log-probabilities, such as `chain.logprobs`. Where a token of the student is
            one of the teacher's too, it is to be what the teacher thought likely there, and not the one token of the
            text. The segment then holds one column, without a transform.
    """

    text: str
    weight: float = Field(default=1.0, ge=0)
    role: str | None = None
    transform: Annotated[list[Transform], BeforeValidator(_listed)] = Field(default_factory=list)
    soft_targets: str | None = None


def _segment(value: Any) -> Any:
    return {"text": value} if isinstance(value, str) else value


class View(Section):
    """What the student sees of a record.

    Attributes:
        select: Which records it sees, of those that share a question: all of them by default.
        each: `step in steps`: one sequence for each item of a list column, the item under this name.
        before: With `each`: template of an earlier item; `{before}` is all of them, one after the other.
        row_weight: Column of a number that multiplies the weights of a record's tokens.
        prompt: Template of what is given.
        target: What is to be written, piece by piece. The student's tokenizer has to part prompt and target: a space
            stands at the target's start, a line break at the prompt's end; behind a chat template neither is needed.
        coefficient: Signed factor of the view's loss; negative makes its target less likely, 0 leaves the view out.
        token_weights: `uniform`, or `key_steps`: only tokens that the edit script between the stage's two such
            views touches carry weight. The view listed first is the right one.
    """

    select: Select = Select()
    each: Annotated[str, AfterValidator(_each)] | None = None
    before: str | None = None
    row_weight: str | None = None
    prompt: str = Field(min_length=1)
    target: list[Annotated[TargetSegment, BeforeValidator(_segment)]]
    coefficient: float = 1.0
    token_weights: Literal["uniform", "key_steps"] = "uniform"


class Reduction(Section):
    """How token losses become one number (DESIGN, section 3).

    Attributes:
        by: A mean over all tokens of a step, over each view's, or over each example's. Means of several views are those
            of the dataset: a step is divided by what one of its size counts on average.
        over: What is divided by: all tokens of scored segments, or the sum of absolute weights.
    """

    by: Literal["token", "view", "example"] = "token"
    over: Literal["all", "weighted"] = "all"


if TYPE_CHECKING:
    TrainingFields = dict[str, Any]
    AnyStudent = Student
else:
    TrainingFields = Annotated[
        training_model(),
        AfterValidator(lambda training: training.model_dump(exclude_unset=True)),
        PlainSerializer(portable),
    ]
    AnyStudent = create_model(
        "Student",
        __base__=Student,
        **{name: (type_, None) for name, type_ in model_config_fields().items() if name not in Student.model_fields},
    )


class Stage(Section):
    """One training run; the next stage starts from its student.

    Attributes:
        name: Names its folder, and the stage in overrides.
        views: Views by name, in order.
        reduction: How token losses become one number.
        max_dropped: Largest share of records that may be left out because they do not fit, hold a control token of the
            student's as text, or run together with their prompt; more refuses the run.
        validation: Share of the questions to hold out of training, on which `training.eval_strategy` computes the
            loss; drawn by training.seed and the question's text, so that all records of a question stay together.
        training: Fields of `trl.SFTConfig`, only those that the recipe sets.
    """

    name: Name
    views: dict[Name, View] = Field(min_length=1)
    reduction: Reduction = Reduction()
    max_dropped: float = Field(default=0.05, ge=0, le=1)
    validation: float | None = Field(default=None, gt=0, lt=1)
    training: TrainingFields = Field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        """Return everything of the stage that can change its weights, as plain data whose keys may be sorted."""
        content = self.model_dump(mode="json", exclude={"max_dropped"})  # which only says when to refuse
        # Of two views that key steps are found between, the first is the right one.
        return {**content, "views": list(content["views"].items()), "training": decisive(content["training"])}


class ChoiceScoring(Section):
    """Answering by likelihood: the option whose answer the student finds likeliest is its answer.

    Attributes:
        write: How an option stands in the answer's place: template of its `letter` and its `text`.
        normalise: Divide an option's log-likelihood by its number of tokens, so that long ones are not at a loss.
    """

    write: str = "({letter})"
    normalise: bool = False


class Turn(Section):
    """One completion on the way to an answer.

    Attributes:
        view: View whose prompt the student is given. What it writes is read back through the view's target, and later
            turns' prompts take it from there.
        max_new_tokens: Longest completion.
        stop: Texts that end a completion; they are cut off.
        forced: How many of the target's first segments are given instead of being written.
        choices: Compare the options' likelihoods instead of writing.
        run: What is written is a program: it is run in a sandbox, and the value that it leaves in this variable is the
            answer.
    """

    view: str
    max_new_tokens: int = Field(default=256, ge=1)
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    forced: int = Field(default=0, ge=0)
    choices: ChoiceScoring | None = None
    run: Annotated[str, AfterValidator(_variable)] | None = None


class OtherWay(Turn):
    """Another way to an answer, in one turn: a program beside a chain of thought.

    Attributes:
        student: Reference whose student takes this way; by default the one that takes the first way.
    """

    student: Name | None = None


class Decode(Turn):
    """How an answer is got from a student: a turn, and what follows it.

    Turns whose views have `each` are repeated together: for every item of the list that an earlier turn wrote, or
    until `until` is written.

    Attributes:
        then: Further turns; the answer is read from the last.
        beside: Another way, whose answers and those of the first are put to the vote. Each gives one greedy answer;
            where they differ, each gives `samples` in all, the others drawn at `temperature`. A tie goes to an answer
            of both ways, then to the way that is right more often on `evaluation.development`.
        until: Text whose appearance makes a round of repeated turns the last one.
        rounds: Most rounds of repeated turns.
        samples: Answers per question; more than one needs a temperature, the most frequent answer counts.
        temperature: 0 is greedy.
        top_p: Nucleus mass.
    """

    then: list[Turn] = Field(default_factory=list)
    beside: OtherWay | None = None
    until: str | None = Field(default=None, min_length=1)
    rounds: int = Field(default=12, ge=1)
    samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)

    @property
    def turns(self) -> list[Turn]:
        """All turns in order."""
        return [self, *self.then]


class Reference(Section):
    """A student trained beside the recipe's on the same data, to compare with: none of `stages` is the untrained one.

    Attributes:
        stages: As of the recipe.
        decode: As of the recipe, whose own is taken by default.
    """

    stages: list[Stage]
    decode: Decode | None = None


class OwnSplit(Section):
    """The dataset's own held-out questions as an evaluation set."""

    split: Literal["test"]


def _origin_of_set(value: Any) -> str:
    source = value.get("source") if isinstance(value, dict) else getattr(value, "source", None)
    return "problems" if source is not None else "own"


EvaluationSet = Annotated[
    Annotated[OwnSplit, Tag("own")] | Annotated[ProblemsConfig, Tag("problems")], Discriminator(_origin_of_set)
]


class Gap(Section):
    """Which sets are compared to see what is lost out of domain.

    Attributes:
        in_domain: Name of a set of questions like those that were trained on.
        out_of_domain: Names of sets of other questions; their accuracies are averaged, each set counting the same.
    """

    in_domain: Name
    out_of_domain: tuple[Name, ...] = Field(min_length=1)


class Evaluation(Section):
    """What students are scored on.

    Attributes:
        sets: Sets by name: `{split: test}`, the dataset's own, or a source of problems, whose test split is taken.
        development: Questions on which `decode.beside` finds out which way to trust in a tie. Those that are in a set
            are left out, and no score is reported on the others.
        gap: Also report the mean over sets out of domain, and how much less it is than the accuracy in domain.
        n: Most questions per set; all by default.
        batch_size: Prompts decoded at once.
    """

    sets: dict[Name, EvaluationSet] = Field(min_length=1)
    development: EvaluationSet | None = None
    gap: Gap | None = None
    n: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=64, ge=1)

    @model_validator(mode="after")
    def _gap_is_between_sets(self) -> Self:
        for name in (self.gap.in_domain, *self.gap.out_of_domain) if self.gap else ():
            if name not in self.sets:
                raise ValueError(f"gap: found {name!r}, allowed {', '.join(self.sets)}{nearest(name, self.sets)}")
        return self


class Publish(Section):
    """Where the student goes, with its card: `publish`.

    Attributes:
        repo_id: `organisation/name` on the Hub, a folder in the local hub.
        revision: Version tag.
        license: Licence identifier of the Hub, for the card; an SPDX identifier becomes the Hub's. A student inherits
            terms from its base and its data.
            Stated by the recipe itself: `extends` does not bring it.
        form: All weights, those of an adapter merged into their base; or the adapter alone.
    """

    repo_id: RepoId
    revision: Version = "v1.0.0"
    license: Licence | None = None
    form: Literal["full", "adapter"] = "full"
