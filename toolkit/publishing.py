"""`distill publish`: a recipe's dataset and student, as they lie in the local hub, onto the Hub.

What is uploaded is the folder of the revision, as it is. It is made where it is missing, from what the store and the
run have; nobody is asked for an answer, and nothing is trained. Everything is looked at before anything is sent.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import hub, hub_remote
from toolkit.cards import document, merge, split, with_block
from toolkit.errors import UserError
from toolkit.hub_remote import Place
from toolkit.recipe_dataset import dataset_folder
from toolkit.version_rules import CARD, Content, change, check_rise, is_version, refuse, version

if TYPE_CHECKING:
    from toolkit.recipe import Recipe

_FINDINGS = 20


@dataclass(frozen=True)
class Part:
    """A revision that is to be published.

    Attributes:
        place: Where it goes.
        folder: Where it lies here.
        content: What is in it, or will be when it is sent.
    """

    place: Place
    folder: Path
    content: Content


def published_names(recipe: Recipe) -> dict[str, str]:
    """Return the names that a recipe publishes under by their keys."""
    names = {}
    if recipe.dataset.builder is not None:
        names["dataset.repo_id"] = recipe.dataset.repo_id
    if recipe.publish is not None:
        names["publish.repo_id"] = recipe.publish.repo_id
    return names


def publish(
    recipe: Recipe,
    kinds: Collection[hub.Kind],
    *,
    private: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    collection: str | None = None,
) -> None:
    """Publish a recipe's dataset, its student, or both.

    Args:
        recipe: The recipe; its names have organisations.
        kinds: What to publish; of an empty one everything that the recipe has.
        private: Make repositories that are not there yet private ones.
        dry_run: Do everything but send: folders are made here, and the Hub is read.
        yes: Do not ask before sending.
        collection: Title of a collection on the Hub that gets what is published, made where it is missing.

    Raises:
        UserError: Anything that stands in the way; what to do about it.
    """
    chosen = _chosen(recipe, kinds)
    check_terms(recipe, chosen)
    if not (dry_run or yes or sys.stdin.isatty()):
        raise UserError(
            "there is no terminal to ask on before anything is sent: say --yes, or --dry-run to send nothing"
        )
    parts = [_part(recipe, kind) for kind in chosen]
    for part in parts:
        print(_listing(part))
    if chosen == ["model"]:
        _check_its_dataset(recipe)
    waiting = [part for part in parts if not _is_published(part)]
    for part in waiting:
        hub_remote.check_card(part.place, part.content.card)
        check_secrets(recipe, part.folder)
        if part.place.kind == "model":
            check_generation(recipe, part.folder)
    if dry_run:
        for part in parts:
            print(f"{'would publish' if part in waiting else 'nothing to do, published already:'} {part.place.url}")
        return
    if waiting and not yes and not _agreed(waiting, private):
        print("nothing was sent")
        return
    for part in parts:
        if part not in waiting:
            print(f"nothing to do, published already: {part.place.url}")
            continue
        if part.place.kind == "model":
            _complete_card(recipe, part)
        commit = hub_remote.upload(part.place, part.folder, part.content.files, private)
        print(f"published {part.place.url}\n          commit {commit}")
    if collection is not None:
        print(f"in        {hub_remote.collect(collection, [part.place for part in parts], private)}")
    print(f"next      {_next(parts[-1].place)}")


def _chosen(recipe: Recipe, kinds: Collection[hub.Kind]) -> list[hub.Kind]:
    """Return what to publish, the dataset first, so that the student's card can name its commit."""
    has: dict[hub.Kind, bool] = {"dataset": recipe.dataset.builder is not None, "model": recipe.publish is not None}
    missing: dict[hub.Kind, str] = {
        "dataset": "dataset.builder: missing; the dataset is somebody else's, so the recipe has no dataset to publish",
        "model": "publish: missing, so the recipe has no student to publish",
    }
    for kind in kinds:
        if not has[kind]:
            raise UserError(missing[kind])
    chosen: list[hub.Kind] = [kind for kind in has if has[kind] and (not kinds or kind in kinds)]
    if not chosen:
        raise UserError("dataset.builder and publish are missing, so the recipe has nothing to publish")
    return chosen


def check_terms(recipe: Recipe, kinds: Collection[hub.Kind]) -> None:
    """See to it that a person has said on what terms data and student may be had.

    Raises:
        UserError: A licence is missing, or what the terms of a teacher are that is no part of this project.
    """
    faults = []
    if recipe.dataset.builder is not None:
        settings = recipe.dataset.config
        if "dataset" in kinds and not settings.license:
            faults.append("dataset.config.license: missing; it goes into the card, e.g. license: apache-2.0")
        writers = {teacher.kind for teacher in settings.teachers} or {"ready-made chains"}
        foreign = sorted(writers - {"procedural"})
        if foreign and not settings.source_terms.strip():
            faults.append(
                f"dataset.config.source_terms: missing, and the chains come from others ({', '.join(foreign)}). "
                "Providers and licences restrict what may be made of their output, such as training other models, or "
                "passing it on; what holds for this one nobody but a person can tell. Say it there, for the cards"
            )
    if "model" in kinds and recipe.publish is not None and not recipe.publish.license:
        faults.append(
            "publish.license: missing; it goes into the card, e.g. license: apache-2.0. A recipe states its own "
            "student's: it is not inherited by `extends`"
        )
    if faults:
        raise UserError("nothing was sent:\n" + "\n".join(f"  - {fault}" for fault in faults))


def check_secrets(recipe: Recipe, folder: Path) -> None:
    """See to it that no key leaves with a folder.

    Raises:
        UserError: Something in it looks like one; names file, place and kind.
    """
    from huggingface_hub import get_token

    from toolkit.secret_scan import Secrets

    teachers = recipe.dataset.config.teachers if recipe.dataset.config else ()
    named = {name for teacher in teachers if (name := getattr(teacher, "api_key_env", None))}
    secrets = Secrets(os.environ, named, {"the token you are logged in to the Hub with": get_token()})
    found = list(secrets.scan(folder))
    if found:
        shown = "\n".join(f"  - {finding}" for finding in found[:_FINDINGS])
        more = f"\n  and {len(found) - _FINDINGS} more" if len(found) > _FINDINGS else ""
        raise UserError(f"nothing was sent: there are secrets in {folder}:\n{shown}{more}")


def check_generation(recipe: Recipe, folder: Path) -> None:
    """Have a student answer one question, loaded from its folder as others will load it.

    Raises:
        UserError: It is of no use to others.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils import logging

    from toolkit.readiness import check_student
    from toolkit.results import evaluation_sets
    from toolkit.scoring import decode_of, first_text, procedure_of
    from toolkit.students import load_tokenizer

    assert recipe.student is not None
    own = recipe.stages[-1].name
    tokenizer = load_tokenizer(str(folder))
    logging.disable_progress_bar()
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    # An adapter is loaded with its base's.
    model.generation_config = GenerationConfig.from_pretrained(folder)
    problem = next(iter(evaluation_sets(recipe)[0].values()))[0]
    prompt = first_text(procedure_of(recipe, own), problem, tokenizer, recipe)
    notes = check_student(
        model,
        tokenizer,
        prompt,
        max_new_tokens=decode_of(recipe, own).max_new_tokens,
        add_special_tokens=recipe.student.prompt_format == "plain",
    )
    for note in notes or ["the student answers a question and stops"]:
        print(f"note: {note}")


def _part(recipe: Recipe, kind: hub.Kind) -> Part:
    """Return a part with its folder, made where it is missing.

    Raises:
        UserError: It would take a teacher's answers, or training.
    """
    from toolkit.pipeline import build, is_built, published_student

    if recipe.dataset.builder is not None and not is_built(recipe):
        dataset = recipe.dataset
        # What is on the Hub is compared below; a revision that is only here may still be told otherwise.
        is_out = dataset.revision in hub_remote.tags("dataset", dataset.repo_id)
        build(recipe, other_card="keep" if is_out else "take", ask=False)
    if kind == "dataset":
        place = Place(kind, recipe.dataset.repo_id, recipe.dataset.revision)
        folder = dataset_folder(recipe)
    else:
        assert recipe.publish is not None
        place = Place(kind, recipe.publish.repo_id, recipe.publish.revision)
        folder = published_student(recipe)
        hub.files(folder)
        content = hub.content(folder)
        return Part(place, folder, replace(content, card=_licensed(content.card, recipe.publish.license)))
    hub.files(folder)
    return Part(place, folder, hub.content(folder))


def _is_published(part: Part) -> bool:
    """Whether a part is on the Hub as it is here; if not, it may be uploaded.

    Raises:
        UserError: It may not: other content has its tag, or its version is too close to an earlier one.
    """
    place = part.place
    commits = hub_remote.tags(place.kind, place.repo_id)
    key, what = hub.KEYS[place.kind], f"{place.kind} {place.repo_id} on the Hub"
    if commit := commits.get(place.revision):
        theirs = hub_remote.content(place.kind, place.repo_id, commit, merged=True)
        mine = replace(part.content, card=merge(theirs.card, part.content.card))
        if found := change(theirs, mine):
            refuse(what, key, place.revision, filter(is_version, commits), found)
        hub_remote.take(place, commit, part.folder, theirs.files)
        return True
    known = [tag for tag in commits if is_version(tag)]
    check_rise(
        what,
        key,
        place.revision,
        known,
        lambda tag: change(hub_remote.content(place.kind, place.repo_id, commits[tag]), part.content),
    )
    if higher := [tag for tag in known if version(tag) > version(place.revision)]:
        raise UserError(
            f"{what} has a revision {max(higher, key=version)} already, whose place {place.revision} would take for "
            f"all who name no revision; set a higher {key}"
        )
    return False


def _check_its_dataset(recipe: Recipe) -> None:
    """See to it that a student that is published alone names a dataset of the Hub only if that is its own.

    Raises:
        UserError: Another one has its name and version.
    """
    dataset = recipe.dataset
    if dataset.builder is None:
        return  # loaded from where it is
    if dataset.revision in hub_remote.tags("dataset", dataset.repo_id):
        _is_published(_part(recipe, "dataset"))
    else:
        print(f"note: its dataset, {dataset.repo_id} {dataset.revision}, is not on the Hub; --dataset publishes it")


def _complete_card(recipe: Recipe, part: Part) -> None:
    """Have a student's card say what is known now: its licence, and at which commit of the Hub its dataset lies."""
    from toolkit.student_card import links

    card, dataset = part.content.card, recipe.dataset
    if dataset.builder is not None:  # else it names the commit that the dataset was loaded at
        commit = hub_remote.tags("dataset", dataset.repo_id).get(dataset.revision)
        card = with_block(card, links(dataset.repo_id, dataset.revision, commit))
    hub_remote.replace_card(part.folder, card)


def _licensed(card: str, license: str | None) -> str:
    """Return a card with a licence, which a recipe may have got after the card was made."""
    data, body = split(card)
    return card if data.get("license") == license else document({**data, "license": license}, body)


def _listing(part: Part) -> str:
    """Say what would be sent, file by file."""
    sizes = {name: (part.folder / name).stat().st_size for name in sorted({*part.content.files, CARD})}
    lines = [f"  {size:>15,}  {name}" for name, size in sizes.items()]
    return "\n".join([f"{part.place}: {part.folder}", *lines, f"  {sum(sizes.values()):>15,}  bytes in all"])


def _agreed(parts: Sequence[Part], private: bool) -> bool:
    for part in parts:
        print(f"to {part.place.url}")
    seen = "you and your organisation alone" if private else "everybody, unless the repository is private already"
    return input(f"Seen by {seen}. Send it? [y/N] ").strip().lower() in ("y", "yes")


def _next(place: Place) -> str:
    if place.kind == "dataset":
        return f'load_dataset("{place.repo_id}", "default", revision="{place.revision}")'
    return f'AutoModelForCausalLM.from_pretrained("{place.repo_id}", revision="{place.revision}")'
