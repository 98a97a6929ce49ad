"""Where a recipe's dataset lies, and how its splits are loaded: from the local hub, or else from the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import hub
from toolkit.errors import UserError
from toolkit.hub_revisions import commit_of, dataset_at, load_rows

if TYPE_CHECKING:
    from toolkit.recipe import Recipe


def store_path(recipe: Recipe) -> Path:
    """Return where the completions of a recipe's dataset are kept: beside its versions, outliving every run.

    The organisation is no part of it, so that what one has paid for is there when another publishes it. Completions are
    known by what was asked: datasets of one name may share a store.
    """
    return Path(recipe.hub_dir) / "stores" / f"{recipe.dataset.repo_id.rpartition('/')[2]}.sqlite"


def dataset_folder(recipe: Recipe) -> Path:
    """Return where the recipe's dataset lies in the local hub, or would."""
    return hub.folder(recipe.hub_dir, "dataset", recipe.dataset.repo_id, recipe.dataset.revision)


def built_from(recipe: Recipe) -> Path:
    """Return the file that holds the digest of the settings and code that a revision was last built from."""
    dataset = recipe.dataset
    return Path(recipe.hub_dir) / "stores" / f"{dataset.repo_id}-{dataset.revision}.built-from"


def building_arguments(recipe: Recipe) -> dict[str, Any]:
    """Return what a build is told of a recipe beside builder, settings and store, as `build_dataset` names it."""
    return {
        "hub_dir": recipe.hub_dir,
        "repo_id": recipe.dataset.repo_id,
        "revision": recipe.dataset.revision,
        "command": f"distill build {recipe.dataset_words}",
        "recipe": recipe.to_yaml("recipe", "dataset"),
    }


def load_split(recipe: Recipe, config: str, split: str) -> Any:
    """Load a config and split of the recipe's dataset.

    Raises:
        UserError: There is no such dataset, config or split.
    """
    return load_published(recipe.hub_dir, recipe.dataset.repo_id, recipe.dataset.revision, config, split)


def load_published(hub_dir: str | Path, repo_id: str, revision: str, config: str, split: str) -> Any:
    """Load a config and split of a published dataset.

    Raises:
        UserError: There is no such dataset, config or split.
    """
    import datasets

    local = _local(hub_dir, repo_id, revision)
    try:
        if local is None:
            return load_rows(repo_id, revision, config, split)
        return datasets.load_dataset(str(local), config, split=split)
    except (ValueError, OSError) as error:  # also DatasetNotFoundError and errors of the connection
        raise UserError(
            f"dataset {repo_id} at {revision}: config {config!r}, split {split!r} cannot be loaded: {error}"
        ) from error


def configs(hub_dir: str | Path, repo_id: str, revision: str) -> list[str]:
    """Return the names of the configs of a published dataset.

    Raises:
        UserError: There is no such dataset.
    """
    import datasets

    local = _local(hub_dir, repo_id, revision)
    path, commit = dataset_at(repo_id, revision) if local is None else (str(local), None)
    try:
        return list(datasets.get_dataset_config_names(path, revision=commit))
    except (ValueError, OSError) as error:
        raise UserError(f"dataset {repo_id} at {revision} cannot be read: {error}") from error


def dataset_commit(recipe: Recipe) -> str | None:
    """Return the full hash of the commit that a recipe's dataset is loaded at; None for one in the local hub.

    Raises:
        UserError: There is no such dataset.
    """
    repo_id, revision = recipe.dataset.repo_id, recipe.dataset.revision
    return None if _local(recipe.hub_dir, repo_id, revision) else commit_of("dataset", repo_id, revision)


def _local(hub_dir: str | Path, repo_id: str, revision: str) -> Path | None:
    """Return a dataset's folder in the local hub; None where it is one of the Hub.

    Raises:
        UserError: It is not in the local hub, and its name is none of the Hub.
    """
    if revision.startswith("v") and (local := hub.folder(hub_dir, "dataset", repo_id, revision)).exists():
        return local
    if "/" not in repo_id:
        hub.find(hub_dir, "dataset", repo_id, revision)  # says what there is
    return None
