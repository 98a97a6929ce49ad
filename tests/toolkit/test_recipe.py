"""What a recipe may say: every fault at once with its line, and what a good one gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, Field

from toolkit.problem_sources import ProceduralProblems
from toolkit.recipe import Builders, OwnSplit, Recipe, RecipeFaults, load_recipe
from toolkit.recipe_faults import Fault
from toolkit.schema import Strict
from toolkit.training_fields import OWNED, configuration_model, model_config_fields, model_types, training_model

COLUMNS = dict.fromkeys(
    ["id", "question", "answer", "right.rationale", "right.answer", "wrong.rationale", "wrong.answer"], ""
)


class Sampling(Strict):
    temperature: float = Field(0.2, ge=0)


class Settings(Strict):
    n: int = Field(ge=1)
    tasks: tuple[str, ...] = ()
    folder: Path = Path("somewhere")
    sampling: Sampling = Sampling()


STEPS = COLUMNS | dict.fromkeys(
    ("correct", "weight", "right.scores", "wrong.scores", "steps[].question", "steps[].answer"), ""
)
BUILDERS = Builders(
    ("dual_cots", "teacher_cots"), lambda name: (Settings, COLUMNS) if name in ("dual_cots", "teacher_cots") else None
)

GOOD = r"""
recipe: {name: edit, version: 1, paper: "2405.19737"}
dataset:
  builder: dual_cots
  repo_id: dual-cots
  revision: v1.0.0
  config: {n: 20, tasks: [dates, ordering]}
student:
  from_config: {model_type: llama, hidden_size: 64, num_hidden_layers: 2, rope_theta: 10000}
  tokenizer: {vocab_size: 512}
stages:
  - name: imitate
    views:
      cot: {prompt: "Q: {question}\nA:", target: [" {right.rationale}", "\nTherefore, the answer is {right.answer}."]}
    training: {learning_rate: 2e-3, num_train_epochs: 4, lr_scheduler_type: cosine, save_strategy: no}
  - name: key_steps
    views:
      right: {prompt: question, target: [right.rationale, right.answer], token_weights: key_steps}
      wrong: {prompt: question, target: [wrong.rationale], token_weights: key_steps, coefficient: -0.025}
    reduction: {by: example}
    training: {learning_rate: 5e-6}
references: {untrained: {stages: []}}
decode: {view: cot}
evaluation:
  sets: {in_domain: {split: test}, out_of_domain: {source: procedural, tasks: [dates]}}
publish: {repo_id: someone/edit-student}
"""


def load(folder: Path, text: str, *overrides: str, builders: Builders = BUILDERS) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return load_recipe(str(path), overrides, builders)


def told(folder: Path, text: str, *overrides: str, builders: Builders = BUILDERS) -> list[str]:
    """Return the fault lines without the folder's name."""
    with pytest.raises(RecipeFaults) as caught:
        load(folder, text, *overrides, builders=builders)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def only_fault(folder: Path, *overrides: str) -> str:
    """Return key and text of what is wrong, and nothing else is, with the good recipe under overrides."""
    with pytest.raises(RecipeFaults) as caught:
        load(folder, GOOD, *overrides)
    (fault,) = caught.value.faults
    return f"{fault.key}: {fault.text}"


# --- a good recipe


def test_a_good_recipe_gives_its_sections(tmp_path: Path) -> None:
    recipe = load(tmp_path, GOOD)
    assert recipe.recipe.name == "edit"
    assert recipe.dataset.config == Settings(n=20, tasks=("dates", "ordering"))
    assert [(piece.text, piece.weight) for piece in recipe.stages[0].views["cot"].target] == [
        (" {right.rationale}", 1.0),
        ("\nTherefore, the answer is {right.answer}.", 1.0),
    ]
    assert recipe.evaluation is not None
    assert recipe.evaluation.sets == {
        "in_domain": OwnSplit(split="test"),
        "out_of_domain": ProceduralProblems(tasks=("dates",)),
    }


def test_a_segment_in_short_form_can_be_given_a_weight(tmp_path: Path) -> None:
    recipe = load(tmp_path, GOOD, "stages.0.views.cot.target.0.weight=0.5")
    piece = recipe.stages[0].views["cot"].target[0]
    assert (piece.text, piece.weight) == (" {right.rationale}", 0.5)


def test_a_stage_keeps_only_the_training_fields_that_were_set(tmp_path: Path) -> None:
    expected = {"learning_rate": 2e-3, "num_train_epochs": 4.0, "lr_scheduler_type": "cosine", "save_strategy": "no"}
    assert load(tmp_path, GOOD).stages[0].training == expected


def test_a_student_tells_the_arguments_of_trl_apart_from_its_own(tmp_path: Path) -> None:
    overrides = ["student.model_name_or_path=some/model", "student.use_peft=true", "student.lora_r=64"]
    student = load(tmp_path, GOOD, *overrides).student
    assert student is not None
    assert student.model_name_or_path == "some/model"
    assert student.from_config is None
    assert student.model_arguments() == {"use_peft": True, "lora_r": 64}


def test_a_recipe_may_stop_at_its_dataset(tmp_path: Path) -> None:
    recipe = load(tmp_path, GOOD.partition("student:")[0])
    assert recipe.stages == []
    assert recipe.student is None


def test_a_dataset_without_builder_is_taken_as_published(tmp_path: Path) -> None:
    text = GOOD.replace("  builder: dual_cots\n", "").replace("  config: {n: 20, tasks: [dates, ordering]}\n", "")
    text = text.replace("right.rationale", "any.column").replace("v1.0.0", "3f2a" * 10)
    assert load(tmp_path, text).dataset.config is None


def test_the_resolved_recipe_is_the_same_recipe(tmp_path: Path) -> None:
    recipe = load(tmp_path, GOOD, "student.use_peft=true", "dataset.config.sampling.temperature=0.5")
    again = load(tmp_path, yaml.safe_dump(recipe.resolved(), sort_keys=False))
    assert again.resolved() == recipe.resolved()
    assert again.digest == recipe.digest


# --- digest and origins


@pytest.mark.parametrize(
    "override",
    [
        "output_dir=elsewhere",
        "hub_dir=elsewhere",
        "stages.0.max_dropped=0.05",
        "dataset.repo_id=org/other",
        "publish.repo_id=org/other",
        "publish.revision=v3.2.1",
        "publish=null",
    ],
)
def test_what_changes_no_result_keeps_the_digest(tmp_path: Path, override: str) -> None:
    assert load(tmp_path, GOOD, override).digest == load(tmp_path, GOOD).digest


@pytest.mark.parametrize(
    "override", ["stages.1.views.wrong.coefficient=-0.05", "dataset.config.n=21", "student.seed=1"]
)
def test_what_may_change_a_result_changes_the_digest(tmp_path: Path, override: str) -> None:
    assert load(tmp_path, GOOD, override).digest != load(tmp_path, GOOD).digest


def test_the_order_of_views_changes_the_digest_and_that_of_other_keys_does_not(tmp_path: Path) -> None:
    lines = GOOD.splitlines()
    right = next(index for index, line in enumerate(lines) if line.startswith("      right:"))
    swapped = "\n".join([*lines[:right], lines[right + 1], lines[right], *lines[right + 2 :]])
    reordered = GOOD.replace("{n: 20, tasks: [dates, ordering]}", "{tasks: [dates, ordering], n: 20}")
    assert load(tmp_path, swapped).digest != load(tmp_path, GOOD).digest
    assert load(tmp_path, reordered).digest == load(tmp_path, GOOD).digest


def test_every_value_says_where_it_comes_from(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(GOOD.lstrip())
    text = "# here\nextends: base.yaml\nstudent: {seed: 3}\n"
    recipe = load(tmp_path, text, "stages.key_steps.max_dropped=0.1")
    origins = {key: origin.replace(f"{tmp_path}/", "") for key, origin in recipe.origins().items()}
    assert origins["student.seed"] == "recipe.yaml:3"
    assert origins["dataset.config.n"] == "base.yaml:6"
    assert origins["stages.0.views.cot.target.0.text"] == "base.yaml:13"
    assert origins["stages.0.views.cot.target.0.weight"] == "default"
    assert origins["stages.1.max_dropped"] == "override 'stages.key_steps.max_dropped=0.1'"
    assert origins["decode.max_new_tokens"] == "default"
    assert origins.keys() >= {"hub_dir", "stages.1.training.learning_rate", "evaluation.sets.out_of_domain.seed"}


# --- twenty faults at once

TWENTY = r"""recipe: {name: edit, version: 0}
dataset:
  builder: dual_cot
  repo_id: dual--cots
  revision: "1.0"
student:
  from_config:
    model_type: llama
    hiden_size: 64
  tokenizer: {vocab_size: 512}
  lora_rank: 8
stages:
  - name: imitate
    views:
      cot:
        prompt: "Q: {question"
        target: []
        coefficient: 0
    reduction: {by: tokens}
    max_dropped: 1.5
    training:
      lerning_rate: 1e-5
      learning_rate: -1e-5
      num_train_epochs: "4"
      output_dir: here
  - name: imitate
    views:
      right: {prompt: question, target: [right.rationale], token_weights: key_steps}
decode: {view: cots}
evaluation:
  sets: {a: {split: train}}
publish: {revision: v1.0.0}
"""

TWENTY_FAULTS = """
1 recipe.version: found 0, allowed a number >= 1
3 dataset.builder: found 'dual_cot', allowed dual_cots, teacher_cots (did you mean 'dual_cots'?), or null for a dataset
4 dataset.repo_id: found 'dual--cots', allowed 'name' or 'organisation/name' of letters, digits, single - _ .
5 dataset.revision: found '1.0', allowed a version tag like 'v1.2.3'
9 student.from_config.hiden_size: unknown key (did you mean 'hidden_size'?)
11 student.lora_rank: unknown key (did you mean 'lora_r'?)
14 stages.0.views: found coefficient 0 on every view, nothing would be learnt
16 stages.0.views.cot.prompt: template has a stray '{' near 'Q: {question'; a column is written {question}
17 stages.0.views.cot.target: found no segment with a weight other than 0, nothing of it would be learnt
19 stages.0.reduction.by: found 'tokens', allowed 'token', 'view' or 'example' (did you mean 'token'?)
20 stages.0.max_dropped: found 1.5, allowed a number <= 1
22 stages.0.training.lerning_rate: unknown key (did you mean 'learning_rate'?)
23 stages.0.training.learning_rate: found -1e-05, allowed a number > 0
24 stages.0.training.num_train_epochs: found '4', allowed a number (write it without quotes)
25 stages.0.training.output_dir: not a recipe's to set: checkpoints of each stage lie under the recipe's `output_dir`
26 stages.1.name: found 'imitate', the name of stage 0 already
27 stages.1.views: found token_weights key_steps on right, allowed on two views of a stage or on none
29 decode.view: found 'cots', allowed cot, right (did you mean 'cot'?)
31 evaluation.sets.a.split: found 'train', allowed 'test'
32 publish.repo_id: missing, a value is required
"""


def test_a_recipe_with_twenty_different_faults_tells_exactly_these_with_their_lines(tmp_path: Path) -> None:
    expected = TWENTY_FAULTS.strip().splitlines()
    lines = [line.removeprefix("recipe.yaml:") for line in told(tmp_path, TWENTY)]
    assert [line[: len(start)] for line, start in zip(lines, expected, strict=True)] == expected
    assert len(expected) == 20


# --- single faults; every other part of the recipe stays good


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("nonsens=1", "nonsens: unknown key; allowed are "),
        ("recipe.paper=2405.19737", "recipe.paper: found 2405.19737, allowed text (put it in quotes)"),
        ("recipe.name=1edit", "recipe.name: found '1edit', allowed a name of letters"),
        ("recipe.version=1.0", "recipe.version: found 1.0, allowed a whole number"),
        ("recipe.version=true", "recipe.version: found true, allowed a whole number"),
        ("recipe=edit", "recipe: found 'edit', allowed a mapping"),
        ("dataset.repo_id=a/b/c", "dataset.repo_id: found 'a/b/c', allowed 'name' or 'organisation/name'"),
        ("dataset.revision=main", "dataset.revision: found 'main', allowed a version tag like 'v1.2.3'"),
        ("dataset.revision=v1.2", "dataset.revision: found 'v1.2', allowed a version tag like 'v1.2.3'"),
        ("dataset.config.n=0", "dataset.config.n: found 0, allowed a number >= 1"),
        ("dataset.config.m=1", "dataset.config.m: unknown key; allowed are folder, n, sampling, tasks"),
        ("dataset.config.tasks=dates", "dataset.config.tasks: found 'dates', allowed a list"),
        (
            "dataset.config.sampling.temprature=1",
            "dataset.config.sampling.temprature: unknown key; allowed are temperature",
        ),
        (
            "student.from_config.vocab_size=9",
            "student.from_config.vocab_size: not a recipe's to set: the tokenizer says it",
        ),
        ("student.from_config.hidden_size=big", "student.from_config.hidden_size: found 'big', allowed a whole number"),
        ("student.from_config={model_type: lama}", "student.from_config.model_type: found 'lama', allowed a causal"),
        ("student.from_config={model_type: null}", "student.from_config.model_type: missing"),
        (
            "student.prompt_format=chatt",
            "student.prompt_format: found 'chatt', allowed 'plain' or 'chat' (did you mean 'chat'",
        ),
        ("student.chat_template='{% if %}'", "student.chat_template: line 1: Expected an expression"),
        ("student.chat_template='{{ messages | shout }}'", "student.chat_template: line 1: No filter named 'shout'"),
        (
            "student.chat_template='{{ raise_exception(messages[0].role) }}'",
            "student.chat_template: user",
        ),
        (
            "student.chat_template='{{ messages[0].role }}: '",
            "student.chat_template: does not show what the user says as it is",
        ),
        ("student.dtype=bf16", "student.dtype: found 'bf16', allowed 'auto', 'bfloat16', 'float16' or 'float32'"),
        ("student.lora_dropout=1.5", "student.lora_dropout: found 1.5, allowed a number < 1"),
        ("student.model_revision=abc", "student.model_revision: found beside from_config"),
        ("student={load_in_4bit: true, load_in_8bit: true}", "student.load_in_8bit: found beside load_in_4bit"),
        ("student.eos_token=<end>", "student.eos_token: found beside from_config, whose tokenizer is made with tokens"),
        (
            "student=!replace {model_name_or_path: m, eos_token: <e>, pad_token: <e>}",
            "student.pad_token: found '<e>', which is eos_token",
        ),
        (
            "stages.0.training.eos_token=<end>",
            "stages.0.training.eos_token: not a recipe's to set: it is the same in all stages: student.eos_token",
        ),
        ("student={model_name_or_path: a, tokenizer: {vocab_size: 300}}", "student.tokenizer: found beside model_name"),
        (
            "student={model_name_or_path: a, from_config: {model_type: llama}, tokenizer: null}",
            "student.from_config: found",
        ),
        ("publish.form=adapter", "publish.form: found 'adapter', allowed 'full': student.use_peft is not set"),
        ("student=null", "student: missing: there are stages, but no student to train"),
        ("stages.0.training.learning_rate=.nan", "stages.0.training.learning_rate: found nan, allowed a finite number"),
        ("stages.0.training.learning_rate=fast", "stages.0.training.learning_rate: found 'fast', allowed a number"),
        ("stages.0.training.max_steps=0", "stages.0.training.max_steps: found 0, allowed a whole number >= 1, or -1"),
        ("stages.0.training.max_length=0", "stages.0.training.max_length: found 0, allowed a number >= 1"),
        ("stages.0.training.report_to=[1]", "stages.0.training.report_to.0: found 1, allowed text (put it in quotes)"),
        (
            "stages.0.training.pad_to_multiple_of=1.5",
            "stages.0.training.pad_to_multiple_of: found 1.5, allowed a whole number",
        ),
        ("stages.0.training.optim=adam", "stages.0.training.optim: found 'adam', allowed 'adamw_torch'"),
        ("stages.0.training.hub_token=hf_secret", "stages.0.training.hub_token: not a recipe's to set: a secret never"),
        (
            "stages.0.training={bf16: true, fp16: true}",
            "stages.0.training.fp16: found beside bf16, allowed is one of the two",
        ),
        (
            "stages.0={validation: 1, training: {eval_on_start: true}}",
            "stages.0.validation: found 1, allowed a number < 1",
        ),
        ("stages.0.training.eval_delay=2", "stages.0.training.eval_delay: needs stages.imitate.validation"),
        ("stages.0.training.save_strategy=best", "stages.0.training.save_strategy: needs stages.imitate.validation"),
        (
            "stages.0.training.lr_scheduler_type=reduce_lr_on_plateau",
            "stages.0.training.lr_scheduler_type: needs stages.imitate.validation",
        ),
        ("stages.0.training.do_eval=true", "stages.0.training.do_eval: not a recipe's to set: eval_strategy"),
        ("stages.0.validation=0.1", "stages.0.validation: needs training.eval_strategy, steps or epoch"),
        (
            "stages.0={name: imitate, validation: 0.1, training: {eval_strategy: epoch, eval_steps: 5}}",
            "stages.0.training.eval_steps: needs training.eval_strategy: steps",
        ),
        (
            "stages.0={name: imitate, validation: 0.1, training: {eval_strategy: epoch, metric_for_best_model: lss}}",
            "stages.0.training.metric_for_best_model: found 'lss', allowed loss, loss/cot (did you mean 'loss'?)",
        ),
        (
            "stages.0={name: imitate, validation: 0.1, training: {eval_strategy: epoch, load_best_model_at_end: true}}",
            "stages.0.training.load_best_model_at_end: needs training.eval_strategy and save_strategy to be the same",
        ),
        (
            "stages.0={validation: 0.1, training: {eval_strategy: steps, eval_steps: 4, load_best_model_at_end: true, "
            "save_strategy: steps, save_steps: 6}}",
            "stages.0.training.save_steps: found 6, allowed a multiple of training.eval_steps, which is 4",
        ),
        (
            "stages.0.views.cot.prompt=Q: {question}",
            "stages.0.views.cot.prompt: found a mapping, allowed text (put it in",
        ),
        ("stages.0.training=fast", "stages.0.training: found 'fast', allowed a mapping"),
        ("stages.0.max_dropped=-0.1", "stages.0.max_dropped: found -0.1, allowed a number >= 0"),
        ("stages.0.views.cot.coefficient=.inf", "stages.0.views.cot.coefficient: found inf, allowed a finite number"),
        (
            "stages.0.views.cot.target=right.rationale",
            "stages.0.views.cot.target: found 'right.rationale', allowed a list",
        ),
        ("stages.0.views.cot.target=[{text: id, weight: -1}]", "stages.0.views.cot.target.0.weight: found -1, allowed"),
        (
            "stages.0.views.cot.target=[{text: id, weight: 0}]",
            "stages.0.views.cot.target: found no segment with a weight",
        ),
        ("stages.0.views.cot.target=[{weight: 1}]", "stages.0.views.cot.target.0.text: missing, a value is required"),
        (
            "stages.0.views.cot.target=['{right.rationle}']",
            "stages.0.views.cot.target.0: found the column 'right.rationle'",
        ),
        ("stages.0.views.cot.target=['{}']", "stages.0.views.cot.target.0: template has a stray '{'"),
        (
            "stages.0.views.cot.prompt=qestion",
            "stages.0.views.cot.prompt: found the column 'qestion', allowed answer, id,",
        ),
        (
            "stages.1.views.wrong.token_weights=uniform",
            "stages.1.views: found token_weights key_steps on right, allowed on",
        ),
        ("stages.1.name=imitate", "stages.1.name: found 'imitate', the name of stage 0 already"),
        ("references.untrained.stagse=[]", "references.untrained.stagse: unknown key; allowed are decode, stages"),
        (
            "references.untrained.decode.view=cto",
            "references.untrained.decode.view: found 'cto', allowed cot, right, wrong",
        ),
        ("decode.view=cto", "decode.view: found 'cto', allowed cot, right, wrong (did you mean 'cot'?)"),
        ("decode.top_p=0", "decode.top_p: found 0, allowed a number > 0"),
        ("decode.top_p=1.1", "decode.top_p: found 1.1, allowed a number <= 1"),
        ("decode.samples=8", "decode.samples: found 8, allowed 1 at temperature 0, where all samples are the same"),
        ("decode=null", "decode: missing: `evaluation` needs to know how answers are got, at least decode.view"),
        ("evaluation.sets.x.source=jsnl", "evaluation.sets.x.source: found 'jsnl', allowed 'procedural', 'jsonl',"),
        (
            "evaluation.sets.out_of_domain.taks=[a]",
            "evaluation.sets.out_of_domain.taks: unknown key; allowed are n, n_test,",
        ),
        ("evaluation.sets.out_of_domain.tasks=[daets]", "evaluation.sets.out_of_domain.tasks: unknown task 'daets'"),
        ("evaluation.sets.1st.split=test", "evaluation.sets.1st: found '1st', allowed a name of letters"),
        (
            "evaluation.gap={in_domain: in_domain, out_of_domain: [out_of_domian]}",
            "evaluation: gap: found 'out_of_domian', allowed in_domain, out_of_domain (did you mean 'out_of_domain'?)",
        ),
        ("publish.revision=latest", "publish.revision: found 'latest', allowed a version tag like 'v1.2.3'"),
        ("hub_dir=3", "hub_dir: found 3, allowed text (put it in quotes)"),
    ],
)
def test_one_mistake_is_one_fault_that_says_what_is_allowed(tmp_path: Path, override: str, fault: str) -> None:
    assert only_fault(tmp_path, override).startswith(fault)


ADAPTED = "student=!replace {model_name_or_path: m, use_peft: true%s}"


@pytest.mark.parametrize(
    ("student", "why"),
    [
        (ADAPTED % ", eos_token: <e>", "student.eos_token makes another base of the student's"),
        (ADAPTED % "", "the adapter of stage 2 fits the merged student of the stage before"),
    ],
)
def test_an_adapter_of_what_nobody_else_has_is_not_published(tmp_path: Path, student: str, why: str) -> None:
    fault = only_fault(tmp_path, student, "publish.form=adapter")
    assert fault.startswith(f"publish.form: found 'adapter', allowed 'full': {why}")


@pytest.mark.parametrize(
    "stage",
    [
        "{training: {eval_strategy: no, load_best_model_at_end: false}}",
        "{validation: 0.1, training: {eval_strategy: steps, eval_steps: 0.2, per_device_eval_batch_size: 4}}",
        "{validation: 0.1, training: {eval_on_start: true}}",
        "{validation: 0.1, training: {eval_strategy: epoch, save_strategy: epoch, load_best_model_at_end: true, "
        "metric_for_best_model: eval_loss/cot}}",
        "{validation: 0.1, training: {eval_strategy: steps, save_strategy: best, load_best_model_at_end: true}}",
    ],
)
def test_evaluation_in_training_that_can_be_meant_is_accepted(tmp_path: Path, stage: str) -> None:
    assert load(tmp_path, GOOD, f"stages.0={stage}").stages[0].name == "imitate"


def test_a_secret_is_not_repeated(tmp_path: Path) -> None:
    text = GOOD.replace("training: {learning_rate: 5e-6}", "training: {hub_token: hf_secret}")
    assert "hf_secret" not in "".join(told(tmp_path, text))


def test_a_missing_section_is_told_at_the_file(tmp_path: Path) -> None:
    (line,) = told(tmp_path, "dataset: {repo_id: a, revision: v1.0.0}")
    assert line == "recipe.yaml:1 recipe: missing, a value is required"


def test_a_builder_says_what_it_needs_even_without_a_config(tmp_path: Path) -> None:
    (line,) = told(tmp_path, GOOD.replace("  config: {n: 20, tasks: [dates, ordering]}\n", ""))
    assert line == "recipe.yaml:3 dataset.config.n: missing, a value is required"


def test_a_reference_may_not_inherit_a_decode_it_cannot_follow(tmp_path: Path) -> None:
    stages = "[{name: direct, views: {plain: {prompt: question, target: [answer]}}}]"
    fault = only_fault(tmp_path, f"references.direct.stages={stages}")
    assert fault == "references.direct: decode missing: the recipe's decode.view 'cot' is not one of plain"


BESIDE = ("decode.beside={view: right, run: ans}", "evaluation.development={source: procedural, n: 20}")


def test_two_ways_to_an_answer_are_taken_as_they_are_meant(tmp_path: Path) -> None:
    recipe = load(tmp_path, GOOD, *BESIDE, "decode.samples=4", "decode.temperature=0.7")
    assert recipe.decode is not None
    assert recipe.decode.beside is not None
    assert (recipe.decode.beside.view, recipe.decode.beside.run, recipe.decode.samples) == ("right", "ans", 4)


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        (
            "decode.beside.view=rigth",
            "decode.beside.view: found 'rigth', allowed cot, right, wrong (did you mean 'right'?)",
        ),
        ("decode.beside.view=cot", "decode.beside.view: found 'cot', allowed another view than the first way's"),
        ("decode.beside.run=a b", "decode.beside.run: found 'a b', allowed the name of a variable, such as ans"),
        ("decode.beside.samples=3", "decode.beside.samples: unknown key"),
        (
            "decode.beside.student=untraned",
            "decode.beside.student: found 'untraned', allowed untrained (did you mean 'untrained'?)",
        ),
        (
            "evaluation.development=null",
            "decode.beside: found without evaluation.development, where it is found which way wins a tie",
        ),
    ],
)
def test_what_two_ways_to_an_answer_need(tmp_path: Path, override: str, fault: str) -> None:
    (told_,) = told(tmp_path, GOOD, *BESIDE, override)
    assert told_.partition("' ")[2].startswith(fault)


def test_a_program_is_run_in_the_turn_that_answers(tmp_path: Path) -> None:
    fault = only_fault(tmp_path, "decode={view: cot, run: ans, then: [{view: right}]}")
    assert fault == "decode.run: found on a turn that another follows, allowed on the last one, which answers"


def test_a_fault_stands_in_the_file_that_holds_the_key(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(GOOD.replace("by: example", "by: exampel").lstrip())
    lines = told(tmp_path, "extends: base.yaml\ndecode: {top_p: 2}\n")
    assert [line.partition(" ")[0] for line in lines] == ["base.yaml:19", "recipe.yaml:2"]


def test_semantic_checks_run_beside_faults_of_shape(tmp_path: Path) -> None:
    lines = told(tmp_path, GOOD, "recipe.version=x", "stages.0.reduction=3", "decode.view=cto")
    assert [line.partition("' ")[2].partition(":")[0] for line in lines] == [
        "decode.view",
        "recipe.version",
        "stages.0.reduction",
    ]


@pytest.mark.parametrize("value", ["null", "3", "text", "[1, {a: b}]", "{a: [b]}", "[[]]"])
@pytest.mark.parametrize(
    "key",
    [
        *("recipe", "dataset", "student", "stages", "references", "decode", "evaluation", "publish"),
        *(
            "dataset.config",
            "student.from_config",
            "student.tokenizer",
            "stages.0",
            "stages.0.views",
            "stages.0.training",
        ),
        *("stages.0.views.cot", "stages.0.views.cot.target", "stages.0.views.cot.prompt", "stages.0.name"),
        *("references.untrained", "evaluation.sets", "evaluation.sets.in_domain", "decode.view", "student.lora_r"),
        *("dataset.builder", "dataset.revision", "student.from_config.model_type", "references.untrained.stages"),
    ],
)
def test_any_value_in_any_place_is_accepted_or_refused_by_faults(tmp_path: Path, key: str, value: str) -> None:
    assert all(fault.key for fault in faults_of(tmp_path, f"{key}={value}"))


def faults_of(tmp_path: Path, override: str) -> list[Fault]:
    try:
        load(tmp_path, GOOD, override)
    except RecipeFaults as refused:
        return refused.faults
    return []


# --- views that select, repeat and transform, and answers in several turns

IN_STEPS = Builders(("steps",), lambda name: (Settings, STEPS) if name == "steps" else None)

SEVERAL_TURNS = r"""recipe: {name: turns, version: 1}
dataset: {builder: steps, repo_id: steps, revision: v1.0.0, config: {n: 20}}
student: {from_config: {model_type: llama}, special_tokens: ["<pause>", "<done>"]}
stages:
  - name: imitate
    views:
      cot:
        select: {draw: balanced, where: correct}
        row_weight: weight
        prompt: "Q: {question}\nA:"
        target:
          - {text: " {right.rationale}", transform: [{kind: swap, among: same_label}, {kind: shuffle, unit: token}]}
          - {text: "\nSo {answer}.", weight: 2}
      plan: {prompt: "{question} Plan:", target: ["\n{steps.question}"]}
      solve:
        each: step in steps
        before: "{step.question} {step.answer}\n"
        prompt: "{question}\n{before}{step.question}"
        target: [" {step.answer}"]
      sum_up:
        prompt: "{question}\n{steps.question}\n{steps.answer}\nSo"
        target: [" {answer}."]
    reduction: {by: view}
decode:
  view: plan
  then:
    - {view: solve, max_new_tokens: 32, stop: ["\n"]}
    - {view: sum_up, forced: 0}
  rounds: 5
evaluation:
  sets: {in_domain: {split: test}}
"""


def test_a_recipe_of_several_turns_is_taken_as_it_is_meant(tmp_path: Path) -> None:
    recipe = load(tmp_path, SEVERAL_TURNS, builders=IN_STEPS)
    assert recipe.decode is not None
    assert [turn.view for turn in recipe.decode.turns] == ["plan", "solve", "sum_up"]
    again = load(tmp_path, yaml.safe_dump(recipe.resolved(), sort_keys=False), builders=IN_STEPS)
    assert again.digest == recipe.digest
    origins = {key: origin.replace(f"{tmp_path}/", "") for key, origin in recipe.origins().items()}
    assert origins["stages.0.views.cot.target.0.transform.1.unit"] == "recipe.yaml:12"
    assert origins["decode.then.0.stop.0"] == "recipe.yaml:27"
    assert origins["decode.then.1.max_new_tokens"] == "default"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "each: step in steps",
            "each: step in stesp",
            "16 stages.0.views.solve.each: found the list 'stesp', allowed steps (did you mean 'steps'?)",
        ),
        (
            "each: step in steps",
            "each: steps",
            "16 stages.0.views.solve.each: found 'steps', allowed 'ITEM in COLUMN', e.g. 'step in steps'",
        ),
        (
            "plan: {prompt:",
            "plan: {before: '{question}', prompt:",
            "14 stages.0.views.plan.before: found without `each`: there are no earlier items to show",
        ),
        (
            '"{step.question} {step.answer}\\n"',
            '"{step.queston}"',
            "17 stages.0.views.solve.before: found the column 'step.queston', allowed one of the builder's "
            "(did you mean 'step.question'?)",
        ),
        (
            'text: " {right.rationale}"',
            'text: " {right.rationale} {answer}"',
            "12 stages.0.views.cot.target.0.transform: found on a segment with the columns right.rationale, answer, "
            "allowed on one with one column",
        ),
        (
            'text: " {right.rationale}"',
            'text: " Because."',
            "12 stages.0.views.cot.target.0.transform: found on a segment with the columns nothing, allowed on one "
            "with one column",
        ),
        (
            "among: same_label",
            "among: same_label, label: anser",
            "12 stages.0.views.cot.target.0.transform: found the column 'anser', allowed one of the builder's "
            "(did you mean 'answer'?)",
        ),
        (
            "[{kind: swap, among: same_label}, {kind: shuffle, unit: token}]",
            "[{kind: shuffle}, {kind: swap}]",
            "12 stages.0.views.cot.target.0.transform: swap takes another row's text as the column holds it and "
            "stands behind shuffle; it must come first",
        ),
        (
            "{kind: shuffle, unit: token}",
            "{kind: shuffel}",
            "12 stages.0.views.cot.target.0.transform.1.kind: found 'shuffel', allowed 'shuffle',",
        ),
        (
            "row_weight: weight",
            "row_weight: wieght",
            "9 stages.0.views.cot.row_weight: found the column 'wieght', allowed one of the builder's "
            "(did you mean 'weight'?)",
        ),
        (
            "where: correct",
            "where: corect",
            "8 stages.0.views.cot.select: found the column 'corect', allowed one of the builder's "
            "(did you mean 'correct'?)",
        ),
        (
            "draw: balanced",
            "draw: random",
            "8 stages.0.views.cot.select: draw: random needs 'k'",
        ),
        (
            "  - name: imitate\n",
            "  - name: imitate\n    training: {packing: true}\n",
            "6 stages.0.training.packing: found beside a balanced view (cot), whose records change each epoch",
        ),
        (
            "  - name: imitate\n",
            "  - name: imitate\n    training: {train_sampling_strategy: sequential}\n",
            "6 stages.0.training.train_sampling_strategy: found beside a balanced view (cot), whose records",
        ),
        (
            "each: step in steps",
            "each: step in steps\n        select: {draw: balanced}",
            "17 stages.0.views.solve.select: found draw balanced beside `each`, allowed is one of the two",
        ),
        (
            "forced: 0",
            "forced: 1",
            "28 decode.then.1.forced: found 1, allowed less than the 1 segments of view 'sum_up'",
        ),
        (
            "    - {view: solve, max_new_tokens",
            "    - {view: slove, max_new_tokens",
            "27 decode.then.0.view: found 'slove', allowed cot, plan, solve, sum_up (did you mean 'solve'?)",
        ),
        (
            '    - {view: solve, max_new_tokens: 32, stop: ["\\n"]}\n    - {view: sum_up, forced: 0}\n',
            "    - {view: plan}\n  until: done\n",
            "28 decode.until: found, but no turn's view has `each`, so that nothing is repeated",
        ),
        (
            "  rounds: 5",
            "  samples: 3",
            "29 decode.samples: found 3, allowed 1 at temperature 0, where all samples are the same",
        ),
        (
            '["<pause>", "<done>"]',
            '["<pause>", "<pause>"]',
            "3 student.special_tokens.1: found '<pause>' a second time",
        ),
        (
            "max_new_tokens: 32",
            "samples: 3",
            "27 decode.then.0.samples: unknown key",
        ),
    ],
)
def test_one_mistake_about_turns_is_told_once_with_its_line(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert SEVERAL_TURNS.count(old) == 1
    lines = told(tmp_path, SEVERAL_TURNS.replace(old, new), builders=IN_STEPS)
    assert [line.removeprefix("recipe.yaml:")[: len(fault)] for line in lines] == [fault]


def test_every_column_that_no_earlier_turn_writes_is_told(tmp_path: Path) -> None:
    lines = told(tmp_path, SEVERAL_TURNS.replace("  view: plan\n", "  view: sum_up\n"), builders=IN_STEPS)
    assert [line[: line.index(", but no earlier turn writes it")] for line in lines] == [
        "recipe.yaml:25 decode.view: found 'sum_up', whose prompt takes 'steps.question'",
        "recipe.yaml:25 decode.view: found 'sum_up', whose prompt takes 'steps.answer'",
        "recipe.yaml:27 decode.then.0.view: found 'solve', whose prompt takes 'step.question'",
        "recipe.yaml:28 decode.then.1.view: found 'sum_up', whose prompt takes 'steps.question'",
    ]


def test_coefficients_that_are_all_zero_teach_nothing(tmp_path: Path) -> None:
    off = [f"stages.0.views.{name}.coefficient=0" for name in ("plan", "solve", "sum_up")]
    load(tmp_path, SEVERAL_TURNS, *off, builders=IN_STEPS)
    (line,) = told(tmp_path, SEVERAL_TURNS, *off, "stages.0.views.cot.coefficient=0", builders=IN_STEPS)
    assert line == "recipe.yaml:6 stages.0.views: found coefficient 0 on every view, nothing would be learnt"


def test_aligned_views_select_the_same_records(tmp_path: Path) -> None:
    fault = only_fault(tmp_path, "stages.1.views.wrong.select={draw: first}")
    assert fault.startswith("stages.1.views.wrong.select: found other records than right has")


def test_views_with_each_cannot_be_aligned(tmp_path: Path) -> None:
    text = SEVERAL_TURNS.replace("      plan: {", "      plan: {token_weights: key_steps, ")
    text = text.replace("each: step in steps", "each: step in steps\n        token_weights: key_steps")
    (line,) = told(tmp_path, text, builders=IN_STEPS)
    assert line.startswith("recipe.yaml:16 stages.0.views.solve.each: found beside token_weights key_steps")


@pytest.mark.parametrize("until", ["until: done", "until: null"])
def test_turns_that_repeat_may_be_ended_by_a_word(tmp_path: Path, until: str) -> None:
    recipe = load(tmp_path, SEVERAL_TURNS.replace("  rounds: 5", f"  {until}"), builders=IN_STEPS)
    assert recipe.decode is not None
    assert recipe.decode.until == (None if until.endswith("null") else "done")


# --- fields read from the installed source


def test_the_fields_of_trl_are_those_its_classes_have() -> None:
    from dataclasses import fields

    from trl import ModelConfig, SFTConfig

    assert set(training_model().model_fields) == {field.name for field in fields(SFTConfig)}
    assert set(model_config_fields()) == {field.name for field in fields(ModelConfig)}


def test_owned_fields_are_fields_of_trl() -> None:
    assert set(training_model().model_fields) >= set(OWNED)


def test_the_fields_of_a_configuration_are_those_its_class_takes() -> None:
    from transformers import CONFIG_MAPPING

    for model_type in ("llama", "qwen3", "gpt2", "gpt_neox", "mistral"):
        model = configuration_model(model_type)
        assert model is not None
        written = {name for name in CONFIG_MAPPING[model_type]().to_dict() if not name.startswith("_")}
        assert written <= set(model.model_fields), model_type


def test_every_model_type_of_the_installed_transformers_can_be_looked_up() -> None:
    assert "llama" in model_types()
    assert isinstance(configuration_model("qwen3"), type)
    assert issubclass(configuration_model("llama") or BaseModel, Strict)


def test_the_command_that_builds_the_dataset_again_names_no_folder_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load(tmp_path, GOOD, "dataset.revision=v1.1.0", "output_dir=/elsewhere")
    outside = recipe.dataset_words
    monkeypatch.chdir(tmp_path)

    assert outside == recipe.dataset_words == "recipe.yaml dataset.revision=v1.1.0"


def test_a_prompt_holds_something(tmp_path: Path) -> None:
    assert "found ''" in only_fault(tmp_path, "stages.0.views.cot.prompt=''")


# --- columns that a setting asks for, and soft targets

CHAINS = r"""
recipe: {name: soft, version: 1}
dataset: {builder: chains, repo_id: chains, revision: v1.0.0, config: {n: 1, sampling: {top: 5}}}
student: {from_config: {model_type: llama}}
stages:
  - name: train
    views:
      cot: {prompt: question, target: [{text: " {chain.text}", soft_targets: chain.logprobs}, " {answer}"]}
"""


class TopSampling(Strict):
    top: int = 0


class TopSettings(Strict):
    n: int
    sampling: TopSampling = TopSampling()


OPTIONAL = {
    **dict.fromkeys(["question", "answer", "chain.text", "steps[].question"], ""),
    **dict.fromkeys(["chain.logprobs[].token", "chain.logprobs[].top[].token", "hint"], "sampling.top"),
}


def chain_faults(folder: Path, *overrides: str) -> list[str]:
    """Return keys and texts of what is wrong with the recipe of chains under overrides."""
    path = folder / "recipe.yaml"
    path.write_text(CHAINS)
    try:
        load_recipe(str(path), overrides, Builders(("chains",), lambda name: (TopSettings, OPTIONAL)))
    except RecipeFaults as found:
        return [f"{fault.key}: {fault.text}" for fault in found.faults]
    return []


VIEW = "stages.0.views.cot"


def test_a_column_that_a_setting_asks_for_may_be_used(tmp_path: Path) -> None:
    assert chain_faults(tmp_path, f"{VIEW}.prompt=hint") == []


def test_a_column_that_nothing_asks_for_is_told_with_its_setting(tmp_path: Path) -> None:
    needs = "which the dataset has only with dataset.config.sampling.top"
    assert set(chain_faults(tmp_path, "dataset.config.sampling.top=0", f"{VIEW}.prompt=hint")) == {
        f"{VIEW}.prompt: found the column 'hint', {needs}",
        f"{VIEW}.target.0.soft_targets: found the column 'chain.logprobs', {needs}",
    }


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("target.0.soft_targets=chain.logprob", "found the column 'chain.logprob', allowed chain.logprobs"),
        ("target.0.soft_targets=steps", "found the column 'steps', allowed chain.logprobs"),
        ("target.0.text='{chain.text} {answer}'", "found on a segment with the columns chain.text, answer, allowed on"),
        ("target.0.text='So.'", "found on a segment with the columns nothing, allowed"),
        ("target.0.transform={kind: shuffle}", "found beside transform"),
        ("target.0.weight=0", "found on a segment of weight 0"),
    ],
)
def test_soft_targets_belong_to_the_text_of_one_column(tmp_path: Path, override: str, fault: str) -> None:
    told = [text for text in chain_faults(tmp_path, f"{VIEW}.{override}") if ".soft_targets: " in text]
    assert len(told) == 1
    assert told[0].startswith(f"{VIEW}.target.0.soft_targets: {fault}")
