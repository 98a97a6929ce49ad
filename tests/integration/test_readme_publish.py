"""The README's section on publishing, word for word, against the loopback Hub."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback_hub import LoopbackHub

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DATASET, STUDENT, TAG = "dual-cots-procedural", "edit-student-procedural", "v1.1.0"
_TINY = {"max_steps": 2, "per_device_train_batch_size": 2, "logging_steps": 1, "save_steps": 2, "disable_tqdm": True}
# What makes the quickstart a matter of seconds; all of it stays as it is but sizes.
CUT = [
    *("dataset.config.problems.n=40", "dataset.config.problems.n_test=4", "evaluation.sets.out_of_domain.n=4"),
    *("evaluation.sets.out_of_domain.n_test=4", "evaluation.n=4", "decode.max_new_tokens=8", "references=!replace {}"),
    *(
        "student.from_config.hidden_size=32",
        "student.from_config.intermediate_size=64",
        "student.tokenizer.vocab_size=300",
    ),
    *(f"stages.{stage}.training.{key}={value}" for stage in ("imitate", "key_steps") for key, value in _TINY.items()),
]
# One process for all commands of ours: what takes longest is to load torch.
_DISTILL = """
import json, sys
from toolkit.cli import main
for words in json.loads(sys.argv[1]):
    print(">", *words, flush=True)
    code = main(words)
    print("exit", code, flush=True)
    if code:
        sys.exit(code)
"""


def section() -> str:
    return (ROOT / "README.md").read_text().partition("## Publish and load\n")[2].partition("\n## ")[0]


def commands() -> list[list[str]]:
    (block,) = re.findall(r"^```bash\n(.*?)^```", section(), re.MULTILINE | re.DOTALL)
    return [shlex.split(line.replace("my-org", "org"), comments=True) for line in block.splitlines()]


class Followed:
    """The section, followed from its first line to its last by somebody who says yes."""

    def __init__(self, folder: Path, remote: LoopbackHub) -> None:
        self.folder, self.remote = folder, remote
        login, *ours, download = commands()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            **remote.environment(),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }
        self.run([*login, "--token", remote.token])  # who types this is asked for it
        cut = [*CUT, f"output_dir={folder / 'outputs'}", f"hub_dir={folder / 'hub'}"]
        assert all(command[0] == "distill" for command in ours)
        words = json.dumps([[*command[1:], *cut] for command in ours])
        keyboard, terminal = pty.openpty()
        os.write(keyboard, b"y\n")
        self.said = self.run([sys.executable, "-c", _DISTILL, words], stdin=terminal)
        self.run(download)

    def run(self, words: list[str], stdin: int = subprocess.DEVNULL) -> str:
        if words[0] == "hf":
            words = [str(Path(sys.executable).with_name("hf")), *words[1:]]
        process = subprocess.run(
            words, cwd=ROOT, env=self.environment, stdin=stdin, capture_output=True, text=True, timeout=300, check=False
        )
        assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
        return process.stdout

    def local(self, kind: str, name: str) -> dict[str, bytes]:
        return files(self.folder / "hub" / kind / name / TAG)

    def on_the_hub(self, repository: str) -> dict[str, bytes]:
        found = self.remote.files(repository, TAG)
        del found[".gitattributes"]
        return found


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    folder = tmp_path_factory.mktemp("readme")
    with LoopbackHub(folder / "remote") as remote:
        yield Followed(folder, remote)


def test_the_section_has_five_commands() -> None:
    assert [" ".join(command[:2]) for command in commands()] == [
        "hf auth",
        "distill train",
        "distill publish",
        "distill publish",
        "hf download",
    ]


def test_the_rehearsal_sends_nothing_and_the_second_run_asks(followed: Followed) -> None:
    rehearsal, sent = re.split(r"^> publish", followed.said, flags=re.MULTILINE)[1:]
    assert rehearsal.count("would publish") == 2
    assert "Send it? [y/N]" not in rehearsal
    assert sent.count("published http") == 2
    assert "Send it? [y/N]" in sent


def test_each_is_one_commit_with_a_tag_at_it(followed: Followed) -> None:
    for repository in (f"datasets/org/{DATASET}", f"org/{STUDENT}"):
        commits = followed.remote.commits(repository)
        assert len(commits) == 2  # the Hub's own and ours
        assert followed.remote.tags(repository) == {TAG: commits[0].oid}


def test_the_folder_here_and_the_one_on_the_hub_are_the_same_files(followed: Followed) -> None:
    assert followed.local("datasets/org", DATASET) == followed.on_the_hub(f"datasets/org/{DATASET}")
    assert followed.local("models/org", STUDENT) == followed.on_the_hub(f"org/{STUDENT}")


def test_under_another_name_it_is_what_the_quickstart_has_made(followed: Followed) -> None:
    for kind, name in (("datasets", DATASET), ("models", STUDENT)):
        made, published = followed.local(kind, name), followed.local(f"{kind}/org", name)
        assert {path for path in made if made[path] != published[path]} <= {
            "README.md",
            "recipe.yaml",
            ".eval_results/edit.yaml",
        }
        assert made.keys() == published.keys()


def test_what_was_downloaded_is_what_was_published(followed: Followed) -> None:
    snapshots = Path(followed.environment["HF_HUB_CACHE"]) / f"models--org--{STUDENT}" / "snapshots"
    downloaded = files(snapshots / followed.remote.tags(f"org/{STUDENT}")[TAG])
    del downloaded[".gitattributes"]
    assert downloaded == followed.local("models/org", STUDENT)


def test_the_students_card_names_the_commit_of_its_dataset(followed: Followed) -> None:
    card = followed.local("models/org", STUDENT)["README.md"].decode()
    commit = followed.remote.tags(f"datasets/org/{DATASET}")[TAG]
    assert f"{followed.remote.url}/datasets/org/{DATASET}/tree/{commit}" in card


def test_what_the_section_loads_loads_in_a_process_without_this_project(followed: Followed) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", section(), re.MULTILINE | re.DOTALL)
    code = code.replace("my-org", "org") + "print(len(records), student.num_parameters() > 0, len(tokenizer) > 0)\n"
    said = followed.run([sys.executable, "-I", "-c", code])
    assert re.search(r"^\d+ True True$", said, re.MULTILINE)
