"""`distill reproduce`: what makes a published student or dataset again, and whether the same comes of it.

All that is needed lies in the published folder: `recipe.yaml`, `environment.txt`, and a student's `run.json`, which has
the digests of what it was made from.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import hub, hub_remote
from toolkit.errors import UserError, nearest
from toolkit.hub_revisions import base_commit, commit_of
from toolkit.installed import ENVIRONMENT, OWN, differences, versions
from toolkit.recipe_dataset import building_arguments, built_from, dataset_folder, store_path
from toolkit.runs import RUN
from toolkit.version_rules import change, is_version, version

if TYPE_CHECKING:
    from toolkit.recipe import Recipe

RECIPE = "recipe.yaml"
_TOLD = {"recipe", "code", "rows", "dataset_commit", "base_commit", "stages"}
Open = Callable[[str, Sequence[str]], "Recipe"]
_CALLED: dict[hub.Kind, str] = {"dataset": "dataset", "model": "student"}


@dataclass(frozen=True)
class Original:
    """What is to be made again.

    Attributes:
        kind: Student or dataset.
        repo_id: Its name.
        revision: Its version.
        folder: Where its files lie: in the local hub, or in the cache of what was downloaded.
        is_local: Whether that is the local hub.
    """

    kind: hub.Kind
    repo_id: str
    revision: str
    folder: Path
    is_local: bool

    def __str__(self) -> str:
        return f"{_CALLED[self.kind]} {self.repo_id} {self.revision}"


def reproduce(
    repo_id: str, revision: str | None, hub_dir: Path, output: Path | None, run_it: bool, open_recipe: Open
) -> int:
    """Say what makes a student or dataset again, or do it and compare.

    Args:
        repo_id: Its name, in the local hub or else on the Hub.
        revision: Its version; the newest where None.
        hub_dir: Root of the local hub.
        output: New folder to work in; `reproduced/NAME-VERSION` where None.
        run_it: Whether to do it.
        open_recipe: Loads a recipe's file with overrides.

    Returns:
        0, or 1 where something that it was made from is another one now, or something else came of it.

    Raises:
        UserError: There is nothing of that name, or it does not say what it was made from.
    """
    original = find(repo_id, revision, hub_dir, whole=run_it)
    output = output or Path("reproduced") / f"{repo_id.rpartition('/')[2]}-{original.revision}"
    overrides = [f"hub_dir={output / 'hub'}", f"output_dir={output / 'outputs'}"]
    recipe = _opened(original.folder / RECIPE, overrides, open_recipe)
    others = differences((original.folder / ENVIRONMENT).read_text(encoding="utf-8"))
    print(_told(original, recipe))
    if others:
        print("other versions here: " + "; ".join(others))
    if not run_it:
        print(_commands(original, recipe, output, hub_dir))
        return 0
    if output.exists() and any(output.iterdir()):
        raise UserError(f"--output {output}: is not empty; name a new folder, so that nothing old is taken for new")
    again = _dataset if original.kind == "dataset" else _student
    changed, found = again(original, recipe, hub_dir)
    for line in changed:
        print(f"CHANGED   {line}")
    for line in found:
        print(line)
    if changed:
        print(f"{original} was made from something else: see CHANGED above")
    elif any(line.startswith("DIFFERS") for line in found):
        print(
            f"{original} was made again, and is not the same" + (": libraries are others, see above" if others else "")
        )
    else:
        print(f"{original} was made again, and is the same")
        return 0
    return 1


def _opened(file: Path, overrides: Sequence[str], open_recipe: Open) -> Recipe:
    """Load a published recipe, whose paths are those of the project that it was published from: this one, if any."""
    paths = open_recipe(str(file), overrides).written_paths()
    return open_recipe(str(file), [*overrides, *(f"{key}={json.dumps(path)}" for key, path in paths.items())])


def find(repo_id: str, revision: str | None, hub_dir: Path, whole: bool) -> Original:
    """Return a revision of a student or dataset, from the local hub or else from the Hub.

    Args:
        repo_id: Its name; where a student and a dataset bear it, the student is meant.
        revision: Its version; the newest where None.
        hub_dir: Root of the local hub.
        whole: Whether all files are needed, or only those that say what it was made from.

    Raises:
        UserError: There is none, or it does not say what it was made from.
    """
    known: dict[str, list[str]] = {}
    kinds: tuple[hub.Kind, hub.Kind] = ("model", "dataset")
    for is_local in (True, False):
        for kind in kinds:
            if is_local:
                there = hub.revisions(hub_dir, kind, repo_id)
            else:
                there = [tag for tag in hub_remote.tags(kind, repo_id) if is_version(tag)] if "/" in repo_id else []
            if there and (revision is None or revision in there):
                newest = revision or max(there, key=version)
                folder = hub.folder(hub_dir, kind, repo_id, newest)
                if not is_local:
                    folder = _downloaded(kind, repo_id, newest, whole)
                _require(folder, kind)
                return Original(kind, repo_id, newest, folder, is_local)
            if there:
                known[f"the {_CALLED[kind]} {'in ' + str(hub_dir) if is_local else 'on the Hub'}"] = there
    if known:
        listed = "; ".join(f"{where} has {', '.join(names)}" for where, names in known.items())
        every = [name for names in known.values() for name in names]
        raise UserError(f"{repo_id} has no revision {revision}{nearest(str(revision), every)}: {listed}")
    on_hub = " and on the Hub" if "/" in repo_id else "; a name on the Hub has an owner, `owner/name`"
    raise UserError(f"no student and no dataset {repo_id!r} with a version like v1.0.0 in {hub_dir}{on_hub}")


def _downloaded(kind: hub.Kind, repo_id: str, revision: str, whole: bool) -> Path:
    from huggingface_hub import snapshot_download

    wanted = None if whole else [RECIPE, ENVIRONMENT, RUN, hub.CARD]
    with hub_remote.told(f"{kind} {repo_id}"):
        return Path(snapshot_download(repo_id, repo_type=kind, revision=revision, allow_patterns=wanted))


def _require(folder: Path, kind: hub.Kind) -> None:
    needed = [RECIPE, ENVIRONMENT, *([RUN] if kind == "model" else [])]
    missing = [name for name in needed if not (folder / name).exists()]
    if missing:
        raise UserError(f"{folder} has no {' and no '.join(missing)}: it does not say what it was made from")
    for name in needed[1:]:
        try:
            text = (folder / name).read_text(encoding="utf-8")
            is_whole = name != RUN or json.loads(text).keys() >= _TOLD
        except (ValueError, AttributeError):  # neither text nor JSON, or JSON of another kind
            is_whole = False
        if not is_whole:
            raise UserError(f"{folder / name} is not what this project writes: it does not say what it was made from")


def _told(original: Original, recipe: Recipe) -> str:
    made_with = versions((original.folder / ENVIRONMENT).read_text(encoding="utf-8"))
    lines = [
        f"{original}: {original.folder}",
        f"made by version {recipe.recipe.version} of the recipe {recipe.recipe.name}, "
        f"{OWN} {made_with.get(OWN, '?')}, Python {made_with.get('Python', '?')}",
    ]
    if original.kind == "model":
        made_from = _made_from(original)
        at = made_from["dataset_commit"] or f"digest of its rows {made_from['rows'][:12]}"
        lines.append(f"from the dataset {recipe.dataset.repo_id} {recipe.dataset.revision}, {at}")
        processes = max(stage["processes"] for stage in made_from["stages"])
        if processes > 1:
            lines.append(f"trained by {processes} processes: weights come out the same only with as many")
    return "\n".join(lines)


def _commands(original: Original, recipe: Recipe, output: Path, hub_dir: Path) -> str:
    """Return the commands that make it again one by one, and the one that does it all."""
    source = original.folder
    lines = []
    if not original.is_local:
        source = output / "published"
        repo_type = ["--repo-type", "dataset"] if original.kind == "dataset" else []
        at = ["--revision", original.revision, "--local-dir", str(source)]
        lines.append(shlex.join(["hf", "download", original.repo_id, RECIPE, ENVIRONMENT, *repo_type, *at]))
    lines.append(shlex.join(["pip", "install", "-r", str(source / ENVIRONMENT)]))
    words = shlex.join([str(source / RECIPE), *recipe.overrides])
    if recipe.dataset.builder is not None:
        asks = "    # asks the teacher: --dry-run says for how much" if _is_written_by_others(recipe) else ""
        lines.append(f"distill build {words}{asks}")
    if original.kind == "model":
        lines.append(f"accelerate launch toolkit/train.py {words}")
    here = ["--hub-dir", str(hub_dir)] if original.is_local else []
    again = ["distill", "reproduce", original.repo_id, "--revision", original.revision, *here, "--output", str(output)]
    one_by_one = [f"  {line}" for line in lines]
    return "\n".join(["\none by one:", *one_by_one, "\nat once, and compared:", f"  {shlex.join(again)} --run"])


def _made_from(original: Original) -> dict[str, Any]:
    made_from: dict[str, Any] = json.loads((original.folder / RUN).read_text(encoding="utf-8"))
    return made_from


def _dataset(original: Original, recipe: Recipe, hub_dir: Path) -> tuple[list[str], list[str]]:
    """Build a dataset again; returns what it was made from that is another now, and what came of it."""
    from dataset_builders.building import build_dataset

    dataset, store = recipe.dataset, store_path(recipe)
    if _is_written_by_others(recipe):
        store = store_path(recipe.model_copy(update={"hub_dir": str(hub_dir)}))
        if not store.exists():
            raise UserError(
                f"{original}: its chains are a teacher's, whose answers are not here ({store}), and who would not give "
                "the same ones again. `distill store import` brings them in, where somebody has exported them"
            )
    store.parent.mkdir(parents=True, exist_ok=True)
    assert dataset.builder is not None
    built = build_dataset(
        dataset.builder,
        dataset.config,
        store,
        **{**building_arguments(recipe), "command": f"distill build {RECIPE}"},
        ask=not _is_written_by_others(recipe),
    ).published.folder
    before, after = hub.content(original.folder), hub.content(built)
    then, now = _configuration(before.card), _configuration(after.card)
    other = change(before, after)
    if other is None:
        return [], ["rows      the same"]
    why = "questions, a teacher's answers or libraries: rows are others under the same settings, prompts and code"
    changed = [f"settings, prompts or code of the builder: digest {then}, now {now}" if then != now else why]
    return changed, [f"DIFFERS   {other.what}", *_rows_apart(original.folder, built)]


def _configuration(card: str) -> str:
    """Return the digest of settings, prompts and code that a dataset's card states."""
    found = re.search(r"Configuration (\w+), rows", card)
    return found[1] if found else "unknown"


def _rows_apart(before: Path, after: Path) -> Iterator[str]:
    """Say of each table of a dataset how many of its rows are others, compared place by place."""
    for table in sorted({file.relative_to(before).as_posix().partition("-0")[0] for file in before.rglob("*.parquet")}):
        old, new, same = 0, 0, 0
        for one, other in zip_longest(_rows(before, table), _rows(after, table)):
            old, new, same = old + (one is not None), new + (other is not None), same + (one == other)
        if not old == new == same:
            yield f"DIFFERS   {table}: {old} rows, now {new}, {same} of them the same"


def _rows(folder: Path, table: str) -> Iterator[dict[str, Any]]:
    from pyarrow import parquet

    for file in sorted(folder.glob(f"{table}-*.parquet")):
        for batch in parquet.ParquetFile(file).iter_batches():
            yield from batch.to_pylist()


def _is_written_by_others(recipe: Recipe) -> bool:
    """Whether a teacher wrote the dataset that need not say the same again, or cannot be asked for nothing."""
    settings = recipe.dataset.config
    return any(teacher.kind != "procedural" for teacher in (settings.teachers if settings else ()))


def _student(original: Original, recipe: Recipe, hub_dir: Path) -> tuple[list[str], list[str]]:
    """Train a student again; returns what it was made from that is another now, and what came of it.

    Nothing is trained once anything has changed.
    """
    from toolkit.pipeline import train, training_rows
    from toolkit.runs import rows_digest

    made_from = _made_from(original)
    changed = list(_changed(original, recipe, made_from))
    if changed:
        return changed, []
    if recipe.dataset.builder is not None and _is_written_by_others(recipe):
        _take_as_published(recipe, hub_dir)
    rows = rows_digest(training_rows(recipe))
    if rows != made_from["rows"]:
        return [f"rows of the dataset: digest {made_from['rows'][:12]}, now {rows[:12]}"], []
    train(recipe)
    assert recipe.publish is not None
    again = hub.find(recipe.hub_dir, "model", recipe.publish.repo_id, recipe.publish.revision)
    return [], [*_weights_apart(original.folder, again), *_scores_apart(original.folder, again)]


def _changed(original: Original, recipe: Recipe, made_from: Mapping[str, Any]) -> Iterator[str]:
    """Say what a student was made from that is another now, as far as that can be told before anything is built."""
    from toolkit.runs import base_content, code_digest, scoring_digest

    if recipe.digest != made_from["recipe"]:
        yield f"recipe: digest {made_from['recipe'][:12]}, now {recipe.digest[:12]}, as this toolkit reads it"
    for key, does, now in (("code", "trains", code_digest()), ("scoring_code", "scores", scoring_digest())):
        if key in made_from and made_from[key] != now:
            yield f"the toolkit's code that {does}: digest {made_from[key][:12]}, now {now[:12]}"
    environment = (original.folder / ENVIRONMENT).read_text(encoding="utf-8")
    yield from (line for line in differences(environment) if line.startswith(f"{OWN} "))
    if recipe.student and made_from["base_commit"]:
        base = base_commit(recipe.student)
        if base != made_from["base_commit"]:
            name = recipe.student.model_name_or_path
            yield f"base model {name}: commit {made_from['base_commit']}, now {base or 'one from a folder'}"
    if recipe.student and (content := made_from.get("base_content")):
        found = base_content(recipe.student)
        if found != content:
            called = f"digest {found[:12]}" if found else "no such folder"
            yield f"base model {recipe.student.model_name_or_path}: digest of its files {content[:12]}, now {called}"
    dataset, commit = recipe.dataset, made_from["dataset_commit"]
    if commit and dataset.revision != commit:
        now = commit_of("dataset", dataset.repo_id, dataset.revision)
        if now != commit:
            yield f"dataset {dataset.repo_id} {dataset.revision}: commit {commit}, now {now}"


def _take_as_published(recipe: Recipe, hub_dir: Path) -> None:
    """Put a student's dataset, as it was published, where training looks for it."""
    from huggingface_hub import snapshot_download

    from dataset_builders.building import settings_digest

    dataset, target = recipe.dataset, dataset_folder(recipe)
    assert dataset.builder is not None
    local = hub.folder(hub_dir, "dataset", dataset.repo_id, dataset.revision)
    if local.exists():
        hub.files(local)
        shutil.copytree(local, target)
    else:
        commit = commit_of("dataset", dataset.repo_id, dataset.revision)
        snapshot_download(dataset.repo_id, repo_type="dataset", revision=commit, local_dir=target)
    mark = built_from(recipe)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(settings_digest(dataset.builder, dataset.config), encoding="utf-8")
    print(f"{dataset.repo_id} {dataset.revision} is taken as it was published: its chains are a teacher's")


def _weights_apart(before: Path, after: Path) -> Iterator[str]:
    """Say whether two students have the same weights, and else how far they are apart."""
    import torch
    from safetensors.torch import load_file

    old, new = (
        {name: tensor for file in sorted(root.glob("*.safetensors")) for name, tensor in load_file(file).items()}
        for root in (before, after)
    )
    if shapes(old) != shapes(new):
        yield "DIFFERS   weights: other tensors, or of other shapes"
        return
    apart = {name: float((old[name].double() - new[name].double()).abs().max()) for name in old if old[name].numel()}
    others = [name for name in old if not torch.equal(old[name], new[name])]
    if others:
        name = max(others, key=lambda other: apart[other])
        yield f"DIFFERS   weights: {len(others)} of {len(old)} tensors, by at most {apart[name]:.2g} ({name})"
    else:
        yield f"weights   the same, all {len(old)} tensors"


def shapes(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return name, type and shape of tensors."""
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}


def _scores_apart(before: Path, after: Path) -> Iterator[str]:
    """Say whether two students' cards tell the same scores, and else each that is another one."""
    from huggingface_hub import ModelCard

    cards = (ModelCard(hub.card_text(root / hub.CARD), ignore_metadata_errors=True) for root in (before, after))
    old, new = (
        {
            (result.dataset_name, result.metric_name): result.metric_value
            for result in card.data.get("eval_results") or []
        }
        for card in cards
    )
    others = [key for key in old | new if old.get(key) != new.get(key)]
    for on, metric in others:
        yield f"DIFFERS   {metric} on {on}: {old.get((on, metric))}, now {new.get((on, metric))}"
    if not others:
        yield f"scores    the same, all {len(old)}"
