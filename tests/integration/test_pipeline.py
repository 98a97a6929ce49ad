"""A recipe from problems to a published student, and what its commands do when they are run again."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from tests.terminal_lines import foreign_lines
from tests.tiny_recipe import EDIT, distill, environment, written
from toolkit import evaluation, pipeline, stages
from toolkit.answers import matches
from toolkit.cli import main, open_recipe
from toolkit.errors import UserError

pytestmark = pytest.mark.slow

STUDENTS = ["untrained", "answer_only", "imitate", "key_steps"]
SETS = {"in_domain": 20, "out_of_domain": 6}


class Ran:
    """A recipe that was evaluated before it was trained, and then trained, each by the command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = written(folder, EDIT)
        self.too_early = distill("evaluate", self.file)
        self.trained = distill("train", self.file)
        assert self.trained.returncode == 0, self.trained.stderr[-3000:]
        self.student = folder / "hub" / "models" / "tiny-student" / "v1.0.0"
        (scores,) = folder.glob("outputs/tiny/*/scores.json")
        self.run = scores.parent

    def recipe(self, *overrides: str) -> Any:
        return open_recipe(str(self.file), overrides)

    def scores(self) -> Any:
        return json.loads((self.run / "scores.json").read_text())["students"]

    def samples(self, student: str, on: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = parquet.read_table(self.run / "samples" / f"{student}-{on}.parquet").to_pylist()
        return rows

    def trained_stages(self) -> dict[str, int]:
        """Return the time of every trained stage's weights by the name of its folder."""
        found = self.folder.glob("outputs/tiny/stages/*/student/model.safetensors")
        return {path.parts[-3]: path.stat().st_mtime_ns for path in found}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return Ran(tmp_path_factory.mktemp("pipeline"))


# --- what is written


def test_evaluating_before_training_says_what_to_run(ran: Ran) -> None:
    assert ran.too_early.returncode == 2
    assert f"run `accelerate launch toolkit/train.py {ran.file}` first" in ran.too_early.stderr
    assert "Traceback" not in ran.too_early.stderr


@pytest.mark.parametrize("what", ["student", "card", "dataset", "scores", "samples", "report"])
def test_what_the_summary_names_is_there(ran: Ran, what: str) -> None:
    lines = [line for line in ran.trained.stdout.splitlines() if line.startswith(f"{what} ")]
    place = lines[-1].split(None, 1)[1].split(",")[0]
    assert Path(place).exists()


def test_every_student_of_the_recipe_is_scored_on_every_set(ran: Ran) -> None:
    scores = ran.scores()
    assert list(scores) == STUDENTS
    assert {name: {on: summary["n"] for on, summary in sets.items()} for name, sets in scores.items()} == dict.fromkeys(
        STUDENTS, SETS
    )


@pytest.mark.parametrize("on", SETS)
@pytest.mark.parametrize("student", STUDENTS)
def test_scores_are_what_the_samples_add_up_to(ran: Ran, student: str, on: str) -> None:
    rows, told = ran.samples(student, on), ran.scores()[student][on]
    right = [float(matches(row["predicted"], row["gold"], row["kind"])) for row in rows]
    assert [bool(one) for one in right] == [row["correct"] for row in rows]
    accuracy = statistics.fmean(right)
    assert told["accuracy"] == pytest.approx(accuracy)
    assert told["standard_error"] == pytest.approx(statistics.pstdev(right) / len(right) ** 0.5)
    assert told["parse_failure_rate"] == pytest.approx(sum(row["predicted"] is None for row in rows) / len(rows))
    assert told["generated_tokens"] == pytest.approx(statistics.fmean(row["tokens"] for row in rows))
    for task, score in told["by_task"].items():
        of_task = [one for one, row in zip(right, rows, strict=True) if row["task"] == task]
        assert (score["n"], score["accuracy"]) == (len(of_task), pytest.approx(statistics.fmean(of_task)))


def test_the_tiny_students_are_sometimes_right(ran: Ran) -> None:
    """Else agreement of scores and samples would show nothing."""
    assert any(sets["in_domain"]["accuracy"] for sets in ran.scores().values())


def test_a_process_without_this_project_gets_the_completions_of_the_samples(ran: Ran, tmp_path: Path) -> None:
    asked = ran.samples("key_steps", "in_domain")[:3]
    code = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, prompts = sys.argv[1], json.loads(sys.argv[2])
tokenizer, student = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
said = []
for prompt in prompts:
    inputs = tokenizer(prompt, return_tensors="pt")
    output = student.generate(**inputs, max_new_tokens=96, do_sample=False)
    said.append(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
assert not any(name.split(".")[0] in ("toolkit", "dataset_builders") for name in sys.modules)
print(json.dumps(said))
"""
    process = subprocess.run(
        [sys.executable, "-I", "-c", code, str(ran.student), json.dumps([row["prompt"] for row in asked])],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    assert json.loads(process.stdout.splitlines()[-1]) == [row["completion"] for row in asked]


def test_the_card_tells_the_scores_of_the_student_it_lies_with(ran: Ran) -> None:
    from huggingface_hub import ModelCard

    results = ModelCard.load(ran.student / "README.md").data.eval_results
    told = {(result.dataset_name, result.metric_type): result.metric_value for result in results}
    scores = ran.scores()["key_steps"]
    for on in SETS:
        assert told[on, "accuracy"] == pytest.approx(scores[on]["accuracy"], abs=1e-6)
        assert told[on, "accuracy_stderr"] == pytest.approx(scores[on]["standard_error"], abs=1e-6)


def test_configurations_agree_on_the_tokens_that_end_and_pad(ran: Ran) -> None:
    config, generation = (
        json.loads((ran.student / name).read_text()) for name in ("config.json", "generation_config.json")
    )
    for name in ("eos_token_id", "pad_token_id"):
        assert config[name] == generation[name]
    assert generation["eos_token_id"] != generation["pad_token_id"]


def test_the_published_weights_are_those_of_the_last_stage(ran: Ran) -> None:
    (stage,) = ran.folder.glob("outputs/tiny/stages/key_steps-*/student/model.safetensors")
    assert (ran.student / "model.safetensors").read_bytes() == stage.read_bytes()


def test_the_card_calls_the_student_by_the_recipes_name(ran: Ran) -> None:
    text = (ran.run / "pictures" / "README.md").read_text()
    assert "This student is `tiny`;" in text
    assert "| tiny |" in text
    assert "| key_steps |" not in text.partition("## Training")[0]


def test_the_report_shows_scores_and_coloured_tokens(ran: Ran) -> None:
    page = (ran.run / "report.html").read_text()
    for student in STUDENTS:
        assert re.search(rf"^{student} +\d+\.\d ± ", page, re.MULTILINE)
    colours = set(re.findall(r"background:hsla\((\d+),", page.split("What the loss sees")[-1]))
    assert colours == {"130", "5"}


def test_the_report_asks_the_network_for_nothing(ran: Ran) -> None:
    page = (ran.run / "report.html").read_text()
    sources = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)|url\(([^)]*)\)|@import\s+(\S+)""", page)
    assert sources
    assert all(first.startswith("data:image/png;base64,") for first, *_ in sources)
    assert "<script" not in page.replace("&lt;script", "")


def test_a_run_says_its_stages_and_its_table_and_nothing_else(ran: Ran) -> None:
    assert foreign_lines(ran.trained.stderr) == []
    assert not [line for line in ran.trained.stdout.splitlines() if line.startswith("{") or "Warning" in line]


# --- what a second command does


def test_a_finished_run_trains_and_decodes_nothing(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("trained again")

    decoded: list[int] = []
    generate = evaluation.generate_batches
    monkeypatch.setattr(stages, "make_trainer", never)
    monkeypatch.setattr(
        evaluation,
        "generate_batches",
        lambda m, t, rows, *a, **k: decoded.append(len(rows)) or generate(m, t, rows, *a, **k),
    )
    before, scores = ran.trained_stages(), ran.scores()
    pipeline.train(ran.recipe())
    assert ran.trained_stages() == before
    assert sum(decoded) == 0
    assert ran.scores() == scores


def test_a_finished_run_can_be_evaluated_again(ran: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    before = ran.scores()
    pipeline.evaluate(ran.recipe())
    assert ran.scores() == before
    assert "published already by this run" in capsys.readouterr().out


def test_an_override_retrains_what_it_touches_and_nothing_else(ran: Ran) -> None:
    before = ran.trained_stages()
    pipeline.train(ran.recipe("stages.key_steps.training.learning_rate=2e-4", "publish=null"))
    after = ran.trained_stages()
    assert {name: after[name] for name in before} == before
    assert [name.split("-")[0] for name in after.keys() - before.keys()] == ["key_steps"]


def test_another_run_under_a_published_revision_is_refused_before_it_trains(ran: Ran) -> None:
    before = ran.trained_stages()
    with pytest.raises(
        UserError, match=r"publish\.revision: tiny-student .* v1\.0\.0 already.*publish\.revision=v1\.1\.0"
    ):
        pipeline.train(ran.recipe("stages.imitate.training.learning_rate=3e-4"))
    assert ran.trained_stages() == before


def test_another_dataset_under_a_published_revision_is_refused_with_the_next_free_one(ran: Ran) -> None:
    with pytest.raises(UserError, match=r"dataset 'tiny-cots' has a revision v1\.0\.0 already.*v1\.1\.0"):
        pipeline.train(ran.recipe("dataset.config.problems.n=40"))


def test_the_published_dataset_is_used_again_after_a_refusal(ran: Ran) -> None:
    rows = pipeline.training_rows(ran.recipe())
    assert len(rows) > 50


# --- what is published with a student


def test_a_published_student_says_all_that_it_comes_from(ran: Ran) -> None:
    facts = json.loads((ran.student / "run.json").read_text())
    assert [stage["stage"] for stage in facts["stages"]] == ["imitate", "key_steps"]
    assert facts["recipe"] == ran.recipe().digest == open_recipe(str(ran.student / "recipe.yaml")).digest
    for stage in facts["stages"]:
        log = [json.loads(line) for line in (ran.student / "training" / f"{stage['stage']}.jsonl").open()]
        trained = ran.folder.glob(f"outputs/tiny/stages/{stage['stage']}-*/student/stage.json")
        assert {**stage, "log": log} in [json.loads(file.read_text()) for file in trained]
    pinned = (ran.student / "environment.txt").read_text()
    assert f"\ntransformers=={metadata.version('transformers')}\n" in pinned
    assert not (ran.student / "stage.json").exists()


def test_a_student_published_again_by_the_same_run_is_the_same_files(ran: Ran, tmp_path: Path) -> None:
    first = ran.student.rename(tmp_path / "first")
    pipeline.evaluate(ran.recipe())
    files = [{path.relative_to(root) for path in root.rglob("*") if path.is_file()} for root in (first, ran.student)]
    assert files[0] == files[1]
    for name in files[0]:
        assert (first / name).read_bytes() == (ran.student / name).read_bytes(), name


def test_cards_are_rendered_as_they_were_published(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stages, "make_trainer", None)
    monkeypatch.setattr(evaluation, "generate_batches", None)
    assert main(["card", str(ran.file), "--output", str(tmp_path)]) == 0
    assert f"student   {tmp_path / 'student' / 'README.md'}" in capsys.readouterr().out
    dataset = ran.folder / "hub" / "datasets" / "tiny-cots" / "v1.0.0"
    for folder, published in ((tmp_path / "student", ran.student), (tmp_path / "dataset", dataset)):
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert {"README.md", "recipe.yaml", "environment.txt"} < {path.name for path in files}
        for path in files:
            assert path.read_bytes() == (published / path.relative_to(folder)).read_bytes(), path


def test_a_student_is_made_again_bit_for_bit(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "tiny-student", "--hub-dir", str(ran.folder / "hub"), "--run"]) == 0
    told = capsys.readouterr().out
    assert "weights   the same, all 21 tensors\nscores    the same, all 4\n" in told
