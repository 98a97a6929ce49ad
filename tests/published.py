"""Datasets and students on a loopback Hub: published by this project's commands, met in processes of their own."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pyarrow import parquet

from tests.loopback_hub import LoopbackHub
from tests.tiny_recipe import EDIT, ROOT, training_alone

DATASET, STUDENT = "org/tiny-cots", "org/tiny-student"
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


def from_the_hub(revision: str, **student: Any) -> dict[str, Any]:
    """Return the recipe as somebody has it who takes the dataset from the Hub, and problems from there."""
    recipe = recipe_of("v1.0.0", **student)
    recipe["dataset"] = {"builder": None, "repo_id": DATASET, "revision": revision}
    problems = {"source": "dataset", "path": DATASET, "name": "evaluation", "revision": "v1.0.0"}
    recipe["evaluation"]["sets"]["elsewhere"] = problems
    return recipe


class Processes:
    """Processes that use a loopback Hub.

    Args:
        hub: The Hub.
        folder: Where they run.
    """

    def __init__(self, hub: LoopbackHub, folder: Path) -> None:
        self.hub, self.folder = hub, folder

    def distill(self, *commands: str) -> str:
        """Run commands of `distill` as somebody who may write to the Hub, all in one process, which is quicker.

        Returns:
            What they write to standard error.
        """
        code = "import sys, toolkit.cli; sys.exit(any([toolkit.cli.main(line.split()) for line in sys.argv[1:]]))"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return self.run(
            [sys.executable, "-c", code, *commands], environment | self.hub.environment(self.hub.token)
        ).stderr

    def python(self, caches: Path, code: str, *words: str, **more: str) -> Any:
        """Run code in a process that has no token and nothing of this project; return what it prints, as JSON."""
        environment = {"OMP_NUM_THREADS": "1", **self.hub.environment(caches_in=caches), **more}
        isolated = [] if "PYTHONPATH" in more else ["-I"]
        return json.loads(
            self.run([sys.executable, *isolated, "-c", code, *words], environment).stdout.splitlines()[-1]
        )

    def run(self, words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a program that ends well."""
        done = subprocess.run(
            words, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return done


ANSWER = """
import json, sys
if sys.argv[2] == "adapter":
    from peft import AutoPeftModelForCausalLM as Student
else:
    from transformers import AutoModelForCausalLM as Student
from transformers import AutoTokenizer
from huggingface_hub import HfApi, ModelCard, hf_hub_download, parse_eval_result_entries
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
    "origins": [one.dataset_args["description"] for one in card.data.eval_results],
    "results": [[one.dataset_name, one.metric_type, one.metric_value] for one in card.data.eval_results],
    "entries": entries,
    "datasets": card.data.datasets,
    "base": card.data.to_dict().get("base_model"),
}))
"""


def answers_of(run: Path) -> dict[str, Any]:
    """Return what `ANSWER` has to print of a student, from what its run has written."""
    scores = json.loads((run / "scores.json").read_text())["students"]["imitate"]
    sample = parquet.ParquetFile(run / "samples" / "imitate-in_domain.parquet").read().to_pylist()[0]
    return {
        "results": [
            [name, kind, round(on[key], 6)]
            for name, on in scores.items()
            for kind, key in (("accuracy", "accuracy"), ("accuracy_stderr", "standard_error"))
        ],
        "entries": [[DATASET, "in_domain", round(scores["in_domain"]["accuracy"], 6)]],
        "datasets": [DATASET],
        "said": sample["prompt"] + sample["completion"],
    }


def prompt_of(run: Path) -> str:
    """Return a prompt that the run's student has answered."""
    prompt: str = parquet.ParquetFile(run / "samples" / "imitate-in_domain.parquet").read().to_pylist()[0]["prompt"]
    return prompt
