"""Training from what lies on the Hub: the same rows as from a folder, pinned to commits, with and without the Hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback_hub import LoopbackHub
from tests.published import ANSWER, DATASET, VERSIONS, Processes, answers_of, from_the_hub, prompt_of, recipe_of
from tests.records import saved_student
from tests.terminal_lines import foreign_lines
from tests.tiny_recipe import ROOT, written

pytestmark = pytest.mark.slow

ADAPTER, BASE = "org/tiny-adapter", "org/tiny-base"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Two versions of a dataset, and a base model."""
    folder = tmp_path_factory.mktemp("published")
    with LoopbackHub(folder / "served") as hub:
        processes = Processes(hub, folder)
        for revision in VERSIONS:
            file = written(folder / revision, recipe_of(revision))
            processes.distill(f"build {file}", f"publish {file} --dataset --yes")
        base = saved_student(folder / "base", max_position_embeddings=1024)
        hub.create(BASE)
        hub.edit(BASE, {path.name: path.read_bytes() for path in Path(base).iterdir()})
        yield processes


def test_an_adapter_of_a_base_and_a_dataset_on_the_hub(published: Processes, tmp_path: Path) -> None:
    peft = {"use_peft": True, "lora_r": 2, "lora_target_modules": ["q_proj", "v_proj"]}
    recipe = from_the_hub("v1.0.0", model_name_or_path=BASE, **peft)
    recipe["publish"] |= {"repo_id": ADAPTER, "form": "adapter"}
    file = written(tmp_path, recipe)
    written_to_stderr = published.distill(f"train {file}", f"publish {file} --yes")
    assert foreign_lines(written_to_stderr) == []
    (scores,) = tmp_path.glob("outputs/tiny/*/scores.json")
    told = published.python(tmp_path, ANSWER, ADAPTER, "adapter", "v1.0.0", prompt_of(scores.parent))
    expected = answers_of(scores.parent)
    assert {name: told[name] for name in expected} == expected
    assert told["base"] == BASE
    commit = published.hub.tags(f"datasets/{DATASET}")["v1.0.0"]
    assert f'commit "{commit}"' in told["origins"][-1]
    made_from = json.loads(published.hub.files(ADAPTER, "v1.0.0")["run.json"])
    assert made_from["dataset_commit"] == commit
    assert made_from["base_commit"] == published.hub.commits(BASE)[0].oid


ROWS = """
import hashlib, json, sys
from datasets import load_dataset
from tests.tiny_students import tiny_tokenizer
from toolkit.cli import open_recipe
from toolkit.errors import UserError
from toolkit.pipeline import training_rows
from toolkit.recipe_dataset import dataset_commit
from toolkit.results import evaluation_sets
from toolkit.runs import rows_digest
from toolkit.encoding import encode  # that of a stage would import TRL, which takes ten seconds
def told(file):
    recipe = open_recipe(file, [])
    try:
        rows = training_rows(recipe)
    except UserError as error:
        return str(error)
    sets, _ = evaluation_sets(recipe)
    encoded, _ = encode(tiny_tokenizer(), rows, recipe.stages[0], 1024, "plain")
    sequences = hashlib.sha256(json.dumps(encoded, sort_keys=True).encode()).hexdigest()
    questions = {name: [problem.question for problem in problems] for name, problems in sets.items()}
    return [dataset_commit(recipe), rows_digest(rows), sequences, questions, len(rows)]
print(json.dumps({file: told(file) for file in sys.argv[1:]}))
"""


def test_the_rows_are_the_same_wherever_they_come_from(published: Processes, tmp_path: Path) -> None:
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
    rows = [online[name][1:3] for name in ("built", "folder", "tag", "commit")]
    assert rows == [rows[0]] * 4
    sets = online["built"][3] | {"elsewhere": online["built"][3]["in_domain"]}
    assert [online[name][3] for name in ("folder", "tag", "commit")] == [sets] * 3
    assert [online[name][0] for name in ("built", "folder")] == [None, None]
    assert [online[name][0] for name in ("tag", "commit", "newer")] == [*[commits["v1.0.0"]] * 2, commits["v1.1.0"]]
    assert online["newer"][-1] > online["tag"][-1]
    assert "has no revision 'v1.2.0' (did you mean 'v1." in online["unknown"]

    # Offline the cache has both versions, and `datasets` by itself would give the one it prepared last.
    answered = len(published.hub.requests)
    told = published.python(tmp_path, ROWS, *places, PYTHONPATH=str(ROOT), HF_HUB_OFFLINE="1")
    offline = {places[file]: found for file, found in told.items()}
    assert len(published.hub.requests) == answered
    assert "HF_HUB_OFFLINE is set: unset it once" in offline.pop("unknown")
    assert offline == {name: online[name] for name in offline}
