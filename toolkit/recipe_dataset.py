"""Where a recipe's dataset lies, and how its splits are loaded: from the local hub, or else from the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import hub
from toolkit.errors import UserError

if TYPE_CHECKING:
    from toolkit.recipe import Recipe


def store_path(recipe: Recipe) -> Path:
    """Return where the completions of a recipe's dataset are kept: beside its versions, outliving every run."""
    return Path(recipe.hub_dir) / "stores" / f"{recipe.dataset.repo_id}.sqlite"


def dataset_folder(recipe: Recipe) -> Path:
    """Return where the recipe's dataset lies in the local hub, or would."""
    return hub.folder(recipe.hub_dir, "dataset", recipe.dataset.repo_id, recipe.dataset.revision)


def built_from(recipe: Recipe) -> Path:
    """Return the file that holds the digest of the settings and code that a revision was last built from."""
    dataset = recipe.dataset
    return Path(recipe.hub_dir) / "stores" / f"{dataset.repo_id}-{dataset.revision}.built-from"


def load_split(recipe: Recipe, config: str, split: str) -> Any:
    """Load a config and split of the recipe's dataset.

    Raises:
        UserError: There is no such dataset, config or split.
    """
    import datasets

    dataset = recipe.dataset
    is_tag = dataset.revision.startswith("v")
    local = is_tag and dataset_folder(recipe).exists()
    where = str(dataset_folder(recipe)) if local else dataset.repo_id
    if not local and "/" not in dataset.repo_id:
        hub.find(recipe.hub_dir, "dataset", dataset.repo_id, dataset.revision)  # says what there is
    try:
        return datasets.load_dataset(where, config, split=split, revision=None if local else dataset.revision)
    except (ValueError, OSError) as error:  # also DatasetNotFoundError and errors of the connection
        raise UserError(
            f"dataset {dataset.repo_id} at {dataset.revision}: config {config!r}, split {split!r} cannot be loaded: "
            f"{error}"
        ) from error
