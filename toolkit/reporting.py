"""What a run comes to: the last student published with its card, and a report that shows it all.

Needs trained students and changes none of them; how they are scored is `scoring`'s business.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit import hub
from toolkit.errors import UserError
from toolkit.hub_revisions import revision_of
from toolkit.runs import RUN, file_digest, origins_apart
from toolkit.terminal_text import escaped

if TYPE_CHECKING:
    from toolkit.recipe import Recipe
    from toolkit.runs import Run
    from toolkit.scores import Row

_WRAPPED = "white-space:pre-wrap;overflow-wrap:anywhere"


def check_free(recipe: Recipe, run: Run) -> None:
    """Check, before anything is trained, that the student can be published when it is.

    Raises:
        UserError: The revision exists and came from something else, or has the student in another form; says what does
            not agree, and what to set.
    """
    from toolkit.students import ADAPTER_CONFIG

    if recipe.publish is None:
        return
    target = hub.folder(recipe.hub_dir, "model", recipe.publish.repo_id, recipe.publish.revision)
    if not target.exists():
        return
    if not (target / RUN).exists():
        raise UserError(_taken(recipe, f"which does not say what it was made from (it has no {RUN})"))
    before = json.loads((target / RUN).read_text())
    if apart := list(origins_apart(before, run.origin)):
        runs = f"from the run {before.get('run')}, and this run is {run.folder.name}"
        raise UserError(_taken(recipe, f"{runs}. They differ in {'; '.join(apart)}"))
    if (recipe.publish.form == "adapter") != (target / ADAPTER_CONFIG).exists():
        raise UserError(
            f"publish.form: found {recipe.publish.form}, but {target} holds the student in the other form, and a "
            "published revision never changes; give this form another publish.repo_id"
        )
    _check_weights(recipe, run, target)


def _check_weights(recipe: Recipe, run: Run, target: Path) -> None:
    """Check that a published student has the weights of the one that is trained here, if one is.

    Raises:
        UserError: It was trained again, by other libraries or on another machine, and came out otherwise.
    """
    assert recipe.publish is not None
    link = list(run.students.values())[-1][-1]
    source = link.folder / "adapter" if recipe.publish.form == "adapter" else link.student
    if not link.student.exists() or not source.exists():
        return
    before, now = (
        {path.name: file_digest(path) for path in sorted(folder.glob("*.safetensors"))} for folder in (target, source)
    )
    if before != now:
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        raise UserError(
            _taken(recipe, f"from the same recipe, records and code, but not with the weights of {source}: {names[0]}")
        )


def _taken(recipe: Recipe, told: str) -> str:
    """Return the message about a revision that is there already and is not what would be published."""
    assert recipe.publish is not None
    name, revision = recipe.publish.repo_id, recipe.publish.revision
    newest = hub.revisions(recipe.hub_dir, "model", name)[-1]
    major, minor, _ = (int(part) for part in newest.removeprefix("v").split("."))
    return (
        f"publish.revision: {name} has a revision {revision} already, {told}. A published revision never changes: set "
        f"publish.revision=v{major}.{minor + 1}.0 for a new version, or publish=null to publish nothing"
    )


def check_padding(recipe: Recipe, start: str) -> None:
    """Check, before anything is trained, that the student to be published has a token of its own to pad with.

    Raises:
        UserError: Its tokenizer can pad with its end of sequence alone: trained on by others, who mask padding, such a
            student unlearns to stop.
    """
    from toolkit.students import load_tokenizer

    tokenizer = load_tokenizer(start, revision_of(recipe, start))
    if recipe.publish is not None and tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise UserError(
            f"publish: the tokenizer of {start} has nothing to pad with but its end of sequence "
            f"({tokenizer.eos_token!r}), and a student that is published so unlearns to stop in other people's "
            "trainers. Give the model a padding token first, or set publish=null to train it for yourself"
        )


def publish_student(recipe: Recipe, run: Run, source: Path, complete: Callable[[Path], None]) -> hub.Published | None:
    """Publish a student's folder; None where the recipe publishes nothing.

    Args:
        recipe: The recipe.
        run: The run that the student comes from.
        source: The student's folder.
        complete: Writes card and `run.json` into a copy of it, and what else goes with a student.

    Raises:
        UserError: The revision is taken by another run, or the student cannot be published in the form asked for.
    """
    from toolkit.students import leave_adapter

    if recipe.publish is None:
        return None
    target = hub.folder(recipe.hub_dir, "model", recipe.publish.repo_id, recipe.publish.revision)
    check_free(recipe, run)
    if target.exists():  # from the same origin and with the same weights: its times are told there as they were
        return hub.Published(target, tuple(sorted(path.name for path in target.iterdir())), is_new=False)

    hub.files(source)
    if recipe.publish.form == "adapter":
        hub.files(source.parent / "adapter")

    def write(staging: Path) -> None:
        shutil.copytree(source, staging, dirs_exist_ok=True)
        if recipe.publish and recipe.publish.form == "adapter":
            leave_adapter(staging, source.parent / "adapter")
        complete(staging)

    return hub.publish(recipe.hub_dir, "model", recipe.publish.repo_id, recipe.publish.revision, write)


def report_page(title: str, table: str, pictures: Sequence[Path], shown: str, examples: str) -> str:
    """Return the report of a run as one self-contained HTML page.

    Args:
        title: Heading.
        table: Scores, as text.
        pictures: PNG files; they are put into the page.
        shown: HTML of the records as the loss sees them.
        examples: HTML of completions.
    """
    from toolkit.explain import page

    images = "".join(
        f'<p><img alt="{escaped(path.stem)}" style="max-width:100%" '
        f'src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"></p>'
        for path in pictures
    )
    scores = f'<pre style="overflow-x:auto">{escaped(table)}</pre>'
    return page(
        title,
        f"<h2>Scores</h2>{scores}{images}<h2>What the student answers</h2>{examples}<h2>What the loss sees</h2>{shown}",
    )


def examples_html(rows: Mapping[str, Mapping[str, Sequence[Row]]], per_set: int = 2) -> str:
    """Return a few completions of every student to the same questions, as HTML."""
    parts = []
    own = list(rows)[-1]
    for set_name, judged in rows[own].items():
        for index in range(min(per_set, len(judged))):
            question = judged[index]
            heading = f"{set_name}: {question['task']}, gold {question['gold']}"
            parts.append(
                f"<h3>{escaped(heading)}</h3><pre style='{_WRAPPED}'>{escaped(question['question'])}</pre><dl>"
            )
            for student, sets in rows.items():
                answer = next(row for row in sets[set_name] if row["id"] == question["id"])
                mark = "right" if answer["correct"] else "wrong"
                text = escaped(answer["completion"].strip()[:600])
                parts.append(f"<dt><b>{escaped(student)}</b>: {mark}</dt><dd style='{_WRAPPED}'>{text}</dd>")
            parts.append("</dl>")
    return "".join(parts)
