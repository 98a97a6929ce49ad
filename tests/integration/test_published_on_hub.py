"""What is published on the Hub, met as other people meet it: in processes that know nothing of this project."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from tests.loopback_hub import LoopbackHub
from tests.records import saved_student
from tests.tiny_recipe import EDIT, ROOT, training_alone, written

DATASET, STUDENT, ADAPTER, BASE = "org/tiny-cots", "org/tiny-student", "org/tiny-adapter", "org/tiny-base"
VERSIONS = {"v1.0.0": 24, "v1.1.0": 30}  # problems


def recipe_of(revision: str, **student: Any) -> dict[str, Any]:
    """Return a recipe of one short stage, which builds a version of the dataset."""
    recipe = training_alone(max_steps=4, save_steps=4)
    for section in ("decode", "publish"):
        recipe[section] = copy.deepcopy(EDIT[section])
    recipe["evaluation"] = {"sets": {"in_domain": {"split": "test"}}, "batch_size": 4}
    recipe["decode"]["max_new_tokens"] = 8
    recipe["dataset"] |= {"repo_id": DATASET, "revision": revision}
    recipe["dataset"]["config"]["license"] = "apache-2.0"
    recipe["dataset"]["config"]["problems"] |= {"n": VERSIONS[revision], "n_test": 4}
    recipe["publish"]["repo_id"] = STUDENT
    return recipe | ({"student": student} if student else {})


def from_the_hub(revision: str, repo_id: str = DATASET, **student: Any) -> dict[str, Any]:
    """Return the recipe as somebody has it who takes the dataset from the Hub."""
    recipe = recipe_of("v1.0.0", **student)
    recipe["dataset"] = {"builder": None, "repo_id": repo_id, "revision": revision}
    return recipe


class Published:
    """Two versions of a dataset, a student of the first, and an adapter trained from what is on the Hub alone."""

    def __init__(self, hub: LoopbackHub, folder: Path) -> None:
        self.hub, self.folder = hub, folder
        first, second = (written(folder / revision, recipe_of(revision)) for revision in VERSIONS)
        self.distill(f"train {first}", f"publish {first} --yes")
        shutil.copytree(folder / "v1.0.0" / "hub", folder / "v1.1.0" / "hub")
        self.distill(f"build {second}", f"publish {second} --dataset --yes")

    def adapter(self) -> None:
        """Train an adapter of a base on the Hub from the dataset on the Hub, and publish it."""
        hub = self.hub
        base = saved_student(self.folder / "base", max_position_embeddings=1024)
        hub.create(BASE)
        hub.edit(BASE, {path.name: path.read_bytes() for path in Path(base).iterdir()})
        peft = {"use_peft": True, "lora_r": 2, "lora_target_modules": ["q_proj", "v_proj"]}
        recipe = from_the_hub("v1.0.0", model_name_or_path=BASE, **peft)
        recipe["publish"] |= {"repo_id": ADAPTER, "form": "adapter"}
        file = written(self.folder / "adapter", recipe)
        self.distill(f"train {file}", f"publish {file} --yes")

    def distill(self, *commands: str) -> None:
        """Run commands of `distill` as somebody who may write to the Hub, all in one process, which is quicker."""
        code = "import sys, toolkit.cli; sys.exit(any([toolkit.cli.main(line.split()) for line in sys.argv[1:]]))"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self._run([sys.executable, "-c", code, *commands], environment | self.hub.environment(self.hub.token))

    def python(self, caches: Path, code: str, *words: str, **more: str) -> Any:
        """Run code in a process that has no token and nothing of this project; return what it prints, as JSON."""
        environment = {"OMP_NUM_THREADS": "1", **self.hub.environment(caches_in=caches), **more}
        isolated = [] if "PYTHONPATH" in more else ["-I"]
        return json.loads(self._run([sys.executable, *isolated, "-c", code, *words], environment).splitlines()[-1])

    def _run(self, words: list[str], environment: dict[str, str]) -> str:
        done = subprocess.run(
            words, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    folder = tmp_path_factory.mktemp("published")
    with LoopbackHub(folder / "served") as hub:
        yield Published(hub, folder)


# --- with `datasets` alone, with TRL alone


LOAD = """
import json, sys
from datasets import load_dataset
told = {}
for revision in sys.argv[2:]:
    rows = load_dataset(sys.argv[1], revision=revision, split="train")
    stream = load_dataset(sys.argv[1], revision=revision, split="train", streaming=True)
    told[revision] = [rows.to_list(), [row["id"] for row in stream]]
assert not {"toolkit", "dataset_builders", "trl"} & set(sys.modules)
print(json.dumps(told))
"""


def test_both_versions_load_with_their_own_rows_and_stream(published: Published, tmp_path: Path) -> None:
    told = published.python(tmp_path, LOAD, DATASET, *VERSIONS)
    for revision, (rows, streamed) in told.items():
        files = (published.folder / revision / "hub" / "datasets" / DATASET / revision / "default").glob("train-*")
        here = [row for file in sorted(files) for row in parquet.ParquetFile(file).read().to_pylist()]
        assert rows == here
        assert streamed == [row["id"] for row in here]
    assert len(told["v1.0.0"][0]) < len(told["v1.1.0"][0])


def test_the_dataset_trains_with_trls_own_command(published: Published, tmp_path: Path) -> None:
    student = saved_student(tmp_path / "student", max_position_embeddings=1024)
    words = (
        f"sft --model_name_or_path {student} --dataset_name {DATASET} --dataset_config sft --output_dir {tmp_path}/out "
        "--max_steps 2 --per_device_train_batch_size 2 --use_cpu --bf16 false --report_to none --logging_steps 1"
    )
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **published.hub.environment(caches_in=tmp_path)}
    published._run([str(Path(sys.executable).with_name("trl")), *words.split()], environment)
    state = json.loads((tmp_path / "out" / "checkpoint-2" / "trainer_state.json").read_text())
    assert [step["step"] for step in state["log_history"] if "loss" in step] == [1, 2]
    assert (tmp_path / "out" / "model.safetensors").exists()


# --- with `transformers` and `peft` alone


ANSWER = """
import json, sys
if sys.argv[2] == "adapter":
    from peft import AutoPeftModelForCausalLM as Student
else:
    from transformers import AutoModelForCausalLM as Student
from transformers import AutoTokenizer
from huggingface_hub import DatasetCard, HfApi, ModelCard, hf_hub_download, parse_eval_result_entries
import yaml
name, revision, prompt = sys.argv[1], sys.argv[3], sys.argv[4]
student = Student.from_pretrained(name, revision=revision)
tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
output = student.generate(**tokenizer(prompt, return_tensors="pt"), max_new_tokens=8, do_sample=False)
card = ModelCard.load(name)
card.validate()
entries = []
for file in HfApi().list_repo_files(name, revision=revision):
    if file.startswith(".eval_results/"):
        told = yaml.safe_load(open(hf_hub_download(name, file, revision=revision)))
        entries += [[entry.dataset_id, entry.task_id, entry.value] for entry in parse_eval_result_entries(told)]
assert not {"toolkit", "dataset_builders", "trl"} & set(sys.modules)
print(json.dumps({
    "said": tokenizer.decode(output[0], skip_special_tokens=True),
    "parameters": student.num_parameters(),
    "results": [[one.dataset_name, one.metric_type, one.metric_value] for one in card.data.eval_results],
    "entries": entries,
    "datasets": card.data.datasets,
    "base": card.data.to_dict().get("base_model"),
}))
"""


def check_answers(told: Any, run: Path) -> None:
    """Compare what others get from a published student with what its run has written."""
    scores = json.loads((run / "scores.json").read_text())["students"]["imitate"]["in_domain"]
    assert told["results"] == [
        ["in_domain", "accuracy", round(scores["accuracy"], 6)],
        ["in_domain", "accuracy_stderr", round(scores["standard_error"], 6)],
    ]
    assert told["entries"] == [[DATASET, "in_domain", round(scores["accuracy"], 6)]]
    assert told["datasets"] == [DATASET]
    sample = parquet.ParquetFile(run / "samples" / "imitate-in_domain.parquet").read().to_pylist()[0]
    assert told["said"] == sample["prompt"] + sample["completion"]


def prompt_of(run: Path) -> str:
    """Return a prompt that the run's student has answered."""
    prompt: str = parquet.ParquetFile(run / "samples" / "imitate-in_domain.parquet").read().to_pylist()[0]["prompt"]
    return prompt


def test_the_student_answers_and_its_card_has_its_scores(published: Published, tmp_path: Path) -> None:
    (scores,) = published.folder.glob("v1.0.0/outputs/tiny/*/scores.json")
    told = published.python(tmp_path, ANSWER, STUDENT, "full", "v1.0.0", prompt_of(scores.parent))
    check_answers(told, scores.parent)


def test_an_adapter_of_a_base_and_a_dataset_on_the_hub(published: Published, tmp_path: Path) -> None:
    published.adapter()
    (scores,) = published.folder.glob("adapter/outputs/tiny/*/scores.json")
    told = published.python(tmp_path, ANSWER, ADAPTER, "adapter", "v1.0.0", prompt_of(scores.parent))
    check_answers(told, scores.parent)
    assert told["base"] == BASE
    made_from = json.loads(published.hub.files(ADAPTER, "v1.0.0")["run.json"])
    assert made_from["dataset_commit"] == published.hub.tags(f"datasets/{DATASET}")["v1.0.0"]
    assert made_from["base_commit"] == published.hub.commits(BASE)[0].oid


def test_the_datasets_card_passes_the_hubs_checks(published: Published, tmp_path: Path) -> None:
    code = f"""
import json
from huggingface_hub import DatasetCard
card = DatasetCard.load({DATASET!r})
card.validate()
print(json.dumps([card.data.license, [config["config_name"] for config in card.data.configs]]))
"""
    assert published.python(tmp_path, code) == ["apache-2.0", ["default", "sft", "evaluation"]]


# --- this project itself, from wherever the dataset comes


ROWS = """
import hashlib, json, sys
from datasets import load_dataset
from tests.tiny_students import tiny_tokenizer
from toolkit.cli import open_recipe
from toolkit.errors import UserError
from toolkit.pipeline import training_rows
from toolkit.recipe_dataset import dataset_commit
from toolkit.runs import rows_digest
from toolkit.stages import encode_stage
def told(file):
    recipe = open_recipe(file, [])
    try:
        rows = training_rows(recipe)
    except UserError as error:
        return str(error)
    encoded, _ = encode_stage(tiny_tokenizer(), rows, recipe.stages[0], 1024, "plain")
    sequences = hashlib.sha256(json.dumps(encoded.to_list(), sort_keys=True).encode()).hexdigest()
    return [dataset_commit(recipe), rows_digest(rows), sequences, len(rows)]
print(json.dumps({file: told(file) for file in sys.argv[1:]}))
"""


def test_the_rows_are_the_same_wherever_they_come_from(published: Published, tmp_path: Path) -> None:
    commits = published.hub.tags(f"datasets/{DATASET}")
    files = {
        "built": written(tmp_path / "built", recipe_of("v1.0.0")),
        "folder": written(tmp_path / "folder", from_the_hub("v1.0.0")),
        "tag": written(tmp_path / "tag", from_the_hub("v1.0.0")),
        "commit": written(tmp_path / "commit", from_the_hub(commits["v1.0.0"])),
        "newer": written(tmp_path / "newer", from_the_hub("v1.1.0")),
        "unknown": written(tmp_path / "unknown", from_the_hub("v1.2.0")),
    }
    shutil.copytree(published.folder / "v1.0.0" / "hub" / "datasets", tmp_path / "folder" / "hub" / "datasets")
    places = {str(file): name for name, file in files.items()}
    told = published.python(tmp_path, ROWS, *places, PYTHONPATH=str(ROOT))
    online = {places[file]: found for file, found in told.items()}
    without_commit = [online[name][1:] for name in ("built", "folder", "tag", "commit")]
    assert without_commit == [without_commit[0]] * 4
    assert [online[name][0] for name in ("built", "folder")] == [None, None]
    assert [online[name][0] for name in ("tag", "commit", "newer")] == [*[commits["v1.0.0"]] * 2, commits["v1.1.0"]]
    assert online["newer"][3] > online["tag"][3]
    assert "has no revision 'v1.2.0' (did you mean 'v1." in online["unknown"]

    # Offline the cache has both versions, and `datasets` by itself would give the one it prepared last.
    answered = len(published.hub.requests)
    told = published.python(tmp_path, ROWS, *places, PYTHONPATH=str(ROOT), HF_HUB_OFFLINE="1")
    offline = {places[file]: found for file, found in told.items()}
    assert len(published.hub.requests) == answered
    assert "HF_HUB_OFFLINE is set: unset it once" in offline.pop("unknown")
    assert offline == {name: online[name] for name in offline}
