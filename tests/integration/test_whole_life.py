"""The whole life of a loaded student with an adapter and a chat template, each command in a process of its own.

Every process orders its sets otherwise (PYTHONHASHSEED): what one of them has made, all later ones have to find.
"""

from __future__ import annotations

import copy
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.loopback_hub import LoopbackHub
from tests.terminal_lines import foreign_lines
from tests.tiny_recipe import EDIT, ROOT, environment, written
from tests.tiny_students import tiny_llama, tiny_tokenizer

pytestmark = pytest.mark.slow

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}:\n{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:\n{% endif %}"
)
TARGET = ["{right.rationale}", "\nTherefore, the answer is {right.answer}."]
TRAINING = EDIT["stages"][1]["training"] | {"max_steps": 3, "save_steps": 2, "logging_steps": 1}
KILLED_AT = 3

# Commands of `distill`, one after the other; the first stage is killed at a step where one is given.
SCRIPT = """
import json, os, signal, sys
from toolkit.library_output import quiet_libraries

with quiet_libraries():  # as the command line does, which imports the trainer later
    from toolkit import cli, stages

commands, killed_at = json.loads(sys.argv[1])

class Killed(stages.MarkComplete):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

stages.MarkComplete = Killed
for words in commands:
    print(f"--- {words[0]}", flush=True)
    code = cli.main(words)
    print(f"--- ended with {code}", flush=True)
"""


def recipe(base: Path) -> dict[str, Any]:
    """Return EDIT in two stages of three steps on a student from a folder, as an adapter given by five fields."""
    content = copy.deepcopy(EDIT)
    content["dataset"] |= {"repo_id": "org/tiny-cots"}
    content["dataset"]["config"] |= {"license": "mit"}
    content["dataset"]["config"]["problems"] |= {"n": 12, "n_test": 2}
    content["student"] = {
        "model_name_or_path": str(base),
        "prompt_format": "chat",
        "use_peft": True,
        "lora_r": 2,
        "lora_alpha": 4,
        "lora_dropout": 0.0,
        "lora_target_modules": ["q_proj", "v_proj"],
    }
    for stage in content["stages"]:
        stage["training"] = TRAINING
        for name, view in stage["views"].items():
            target = [text.replace("right.", "wrong.") for text in TARGET] if name == "wrong" else TARGET
            view |= {"prompt": "{question}", "target": target}
    content["references"] = {"untrained": {"stages": []}}
    content["decode"] |= {"max_new_tokens": 4}
    content["evaluation"] = {"sets": {"in_domain": {"split": "test"}}, "batch_size": 4}
    content["publish"] |= {"repo_id": "org/tiny-student"}
    return content


class Life:
    """What each process said, and what there was after it.

    Attributes:
        said: Output of every process.
        complained: What every process wrote to standard error.
        made: After every process, what was there of the stages: folder and time of each.
    """

    def __init__(self, folder: Path, hub: LoopbackHub) -> None:
        self.folder, self.said, self.complained, self.made = folder, [], [], []
        self._surroundings = environment() | hub.environment(hub.token) | {"HF_HUB_OFFLINE": "0"}
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = TEMPLATE
        tiny_llama(tokenizer, max_position_embeddings=1024).save_pretrained(folder / "base")
        tokenizer.save_pretrained(folder / "base")
        content = recipe(folder / "base")
        self.file = str(written(folder, content))
        other = copy.deepcopy(content) | {"recipe": {"name": "other", "version": 1}}
        del other["stages"][1]
        self.other = str(written(folder / "other", other).rename(folder / "other.yaml"))
        compare = ["compare", self.file, self.other, "--seeds", "0", "--output", str(folder / "page")]
        compare += [f"output_dir={folder / 'outputs'}", f"hub_dir={folder / 'hub'}"]
        publish = ["publish", self.file, "--yes"]
        self._run([["build", self.file], ["train", self.file]], killed_at=KILLED_AT)
        self._run([["train", self.file]])
        self._run([["evaluate", self.file], publish, compare])
        self._together()
        self._run([["train", self.file], publish, compare, ["evaluate", self.file, *self.apart]])

    @property
    def apart(self) -> list[str]:
        """What the run of two processes is told beside the recipe."""
        return [f"output_dir={self.folder / 'two'}", "publish=null"]

    def _run(self, commands: list[list[str]], killed_at: int = 0) -> None:
        words = [sys.executable, "-c", SCRIPT, json.dumps([commands, killed_at])]
        seed = {"PYTHONHASHSEED": str(len(self.said) + 1)}
        self._note(words, seed, -signal.SIGKILL if killed_at else 0)
        if not killed_at:
            assert self.said[-1].count("--- ended with 0\n") == len(commands), self.said[-1][-3000:]

    def _together(self) -> None:
        """Train with two processes, each with a PYTHONHASHSEED of its own."""
        words = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
        words += [str(ROOT / "toolkit" / "train.py"), self.file, *self.apart]
        self._note(words, {"PYTHONHASHSEED": "random"}, 0)

    def _note(self, words: list[str], surroundings: dict[str, str], code: int) -> None:
        done = subprocess.run(
            words, env=self._surroundings | surroundings, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == code, done.stderr[-3000:]
        self.said.append(done.stdout)
        self.complained.append(done.stderr)
        found = sorted(self.folder.glob("*/*/stages/*/student/stage.json"))
        self.made.append({str(path.parents[1].relative_to(self.folder)): path.stat().st_mtime_ns for path in found})

    def new(self, process: int) -> list[str]:
        """Return the recipes and stages that a process has trained; each folder of an earlier one is as it was."""
        before, after = ({} if process == 0 else self.made[process - 1]), self.made[process]
        assert {name: after[name] for name in before} == before
        return [re.sub(r"(\w+)/(\w+)/stages/(\w+)-\w+", r"\1 \2 \3", name) for name in after if name not in before]

    def facts(self, stage: str) -> Any:
        (file,) = self.folder.glob(f"outputs/tiny/stages/{stage}/student/stage.json")
        return json.loads(file.read_text())


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    folder = tmp_path_factory.mktemp("life")
    with LoopbackHub(folder / "remote") as hub:
        yield Life(folder / "here", hub)


def test_each_stage_is_trained_once_in_the_life_of_a_student(life: Life) -> None:
    assert life.new(0) == []
    assert life.new(1) == ["outputs tiny imitate", "outputs tiny key_steps"]
    assert life.new(2) == ["outputs other imitate", "outputs tiny imitate", "outputs tiny key_steps"]  # with its seed
    assert life.new(3) == ["two tiny imitate", "two tiny key_steps"]
    assert life.new(4) == []


def test_what_was_killed_is_gone_on_with(life: Life) -> None:
    resumed = {
        json.loads(file.read_text())["resumed_from_step"]: file
        for file in life.folder.glob("outputs/tiny/stages/imitate-*/student/stage.json")
    }
    assert sorted(resumed) == [0, 2]
    assert not list(life.folder.glob("*/*/stages/*/checkpoints"))


def test_two_processes_train_the_same_stages_and_one_finds_them(life: Life) -> None:
    one = {name.split("/", 1)[1] for name in life.made[1]}
    two = {name.split("/", 1)[1] for name in life.made[4] if name.startswith("two/")}
    assert two == one
    facts = [json.loads(file.read_text()) for file in life.folder.glob("two/tiny/stages/*/student/stage.json")]
    assert [stage["processes"] for stage in facts] == [2, 2]


def test_a_process_says_that_it_finds_what_another_one_has_trained(life: Life) -> None:
    trained, _, compared, *_ = life.said[4].split("--- ended with 0\n")
    assert trained.count(": trained already, ") == 2
    assert compared.count(": trained already, ") == 3
    assert "(published already by this run)" in trained


def test_there_is_one_run_and_it_is_what_was_published(life: Life) -> None:
    (scores,) = life.folder.glob("outputs/tiny/*/report.html")
    published = json.loads((life.folder / "hub/models/org/tiny-student/v1.0.0/run.json").read_text())
    assert published["run"] == scores.parent.name
    assert {link for chain in published["students"].values() for link in chain} == {
        name.rpartition("/")[2] for name in life.made[1]
    }


def test_it_is_published_once(life: Life) -> None:
    first, again = (life.said[process].split("--- publish\n")[1].split("--- ended")[0] for process in (2, 4))
    assert first.count("commit ") == 2
    assert again.count("nothing to do, published already") == 2


def test_a_run_says_its_stages_and_its_table_and_no_library_says_anything(life: Life) -> None:
    _killed, *ended = life.complained
    assert [foreign_lines(stderr) for stderr in ended] == [[]] * 4
    assert not [line for said in life.said for line in said.splitlines() if line.startswith("{") or "Warning" in line]


def test_comparing_again_gives_the_same_figures(life: Life) -> None:
    tables = [life.said[process].split("--- compare\n")[1].split("--- ended")[0] for process in (2, 4)]
    figures = [[line for line in table.splitlines() if re.match(r"(tiny|other) .*±", line)] for table in tables]
    assert figures[0] == figures[1] != []
