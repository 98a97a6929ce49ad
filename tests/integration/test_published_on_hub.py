"""What is published on the Hub, met as other people meet it: in processes that know nothing of this project."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import parquet

from tests.loopback_hub import LoopbackHub
from tests.published import ANSWER, DATASET, STUDENT, VERSIONS, Processes, answers_of, prompt_of, recipe_of
from tests.records import saved_student
from tests.tiny_recipe import written

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Two versions of a dataset, and a student of the first."""
    folder = tmp_path_factory.mktemp("published")
    with LoopbackHub(folder / "served") as hub:
        processes = Processes(hub, folder)
        first, second = (written(folder / revision, recipe_of(revision)) for revision in VERSIONS)
        processes.distill(f"train {first}", f"publish {first} --yes")
        shutil.copytree(folder / "v1.0.0" / "hub", folder / "v1.1.0" / "hub")
        processes.distill(f"build {second}", f"publish {second} --dataset --yes")
        yield processes


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


def test_both_versions_load_with_their_own_rows_and_stream(published: Processes, tmp_path: Path) -> None:
    told = published.python(tmp_path, LOAD, DATASET, *VERSIONS)
    for revision, (rows, streamed) in told.items():
        files = (published.folder / revision / "hub" / "datasets" / DATASET / revision / "default").glob("train-*")
        here = [row for file in sorted(files) for row in parquet.ParquetFile(file).read().to_pylist()]
        assert rows == here
        assert streamed == [row["id"] for row in here]
    assert len(told["v1.0.0"][0]) < len(told["v1.1.0"][0])


def test_the_dataset_trains_with_trls_own_command(published: Processes, tmp_path: Path) -> None:
    student = saved_student(tmp_path / "student", max_position_embeddings=1024)
    words = (
        f"sft --model_name_or_path {student} --dataset_name {DATASET} --dataset_config sft --output_dir {tmp_path}/out "
        "--max_steps 2 --per_device_train_batch_size 2 --use_cpu --bf16 false --report_to none --logging_steps 1"
    )
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **published.hub.environment(caches_in=tmp_path)}
    published.run([str(Path(sys.executable).with_name("trl")), *words.split()], environment)
    state = json.loads((tmp_path / "out" / "checkpoint-2" / "trainer_state.json").read_text())
    assert [step["step"] for step in state["log_history"] if "loss" in step] == [1, 2]
    assert (tmp_path / "out" / "model.safetensors").exists()


# --- with `transformers` and `peft` alone


def test_the_student_answers_and_its_card_has_its_scores(published: Processes, tmp_path: Path) -> None:
    (scores,) = published.folder.glob("v1.0.0/outputs/tiny/*/scores.json")
    told = published.python(tmp_path, ANSWER, STUDENT, "full", "v1.0.0", prompt_of(scores.parent))
    expected = answers_of(scores.parent)
    assert {name: told[name] for name in expected} == expected


def test_the_datasets_card_passes_the_hubs_checks(published: Processes, tmp_path: Path) -> None:
    code = f"""
import json
from huggingface_hub import DatasetCard
card = DatasetCard.load({DATASET!r})
card.validate()
print(json.dumps([card.data.license, [config["config_name"] for config in card.data.configs]]))
"""
    assert published.python(tmp_path, code) == ["apache-2.0", ["default", "sft", "evaluation"]]
