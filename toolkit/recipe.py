"""What a recipe is and how one is loaded: read, overridden, checked, and never half right.

`load_recipe` is the only way in. Reading files is `recipe_files`' business, what a training field does is TRL's.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel, Field, PrivateAttr, create_model

from toolkit.named_files import NamedFile, locate, named_files, project_of
from toolkit.prices import prices_in
from toolkit.recipe_checks import meaning_faults
from toolkit.recipe_faults import Fault, Path, RecipeFaults, dotted, shape_faults
from toolkit.recipe_files import read_recipe
from toolkit.recipe_sections import (
    AnyStudent,
    DatasetSection,
    Decode,
    Evaluation,
    Identity,
    Name,
    OwnSplit,
    Publish,
    Reduction,
    Reference,
    Section,
    Stage,
    Student,
    View,
)
from toolkit.recipe_tree import Node, deprecations

__all__ = [
    "Builders",
    "Decode",
    "Evaluation",
    "OwnSplit",
    "Publish",
    "Recipe",
    "RecipeFaults",
    "Reduction",
    "Reference",
    "Stage",
    "Student",
    "View",
    "load_recipe",
]


class Recipe(Section):
    """A method: a dataset, a student, the stages that train it, and how it is scored.

    Attributes:
        recipe: Name, version, paper.
        dataset: What is learnt from.
        student: Who learns; None where the recipe only builds.
        stages: Training runs, one after the other.
        references: Other students to compare with.
        decode: How answers are got; None where nothing is evaluated.
        evaluation: What is scored; None for nothing.
        publish: Where the student goes; None to keep it.
        output_dir: Folder of runs.
        hub_dir: Folder of the local hub.
    """

    recipe: Identity
    dataset: DatasetSection
    student: AnyStudent | None = None
    stages: list[Stage] = Field(default_factory=list)
    references: dict[Name, Reference] = Field(default_factory=dict)
    decode: Decode | None = None
    evaluation: Evaluation | None = None
    publish: Publish | None = None
    output_dir: str = "outputs"
    hub_dir: str = "hub"

    _tree: Node = PrivateAttr()
    _words: tuple[str, ...] = PrivateAttr(default=())

    @property
    def words(self) -> str:
        """The recipe's file and the overrides, as they were typed after the command."""
        return shlex.join(self._words)

    @property
    def overrides(self) -> tuple[str, ...]:
        """The overrides, as they were typed."""
        return self._words[1:]

    @property
    def public_words(self) -> str:
        """The recipe's file and the overrides but those of folders: what trains it again on any machine."""
        file, *overrides = self._words
        folders = ("output_dir=", "hub_dir=")
        return shlex.join([_public(file), *(word for word in overrides if not word.startswith(folders))])

    @property
    def dataset_words(self) -> str:
        """The recipe's file and those overrides that concern its dataset: what builds it again."""
        file, *overrides = self._words
        return shlex.join([_public(file), *(word for word in overrides if word.startswith("dataset."))])

    def resolved(self) -> dict[str, Any]:
        """Return the whole recipe as plain data, defaults filled in; read as a recipe it gives this one again.

        Paths are those from the project that holds it (`named_files.project_of`).
        """
        return self.model_dump(mode="json")

    def to_yaml(self, *sections: str, folder: FilePath | None = None) -> str:
        """Return `resolved()` as YAML, or some sections of it; without the folders, which belong to a machine.

        Args:
            sections: Keys of the sections; all of them by default.
            folder: Where the text will lie, so that its paths lead from there; by default they are as recorded.
        """
        import yaml

        content = self.resolved()
        for named in named_files(self) if folder is not None else ():
            if isinstance(named.text, NamedFile) and not os.path.isabs(named.text):
                here = content
                for key in named.path[:-1]:
                    here = here[key]  # type: ignore[index]
                here[named.path[-1]] = os.path.relpath(named.text, folder)  # type: ignore[index]
        told = {
            key: value
            for key, value in content.items()
            if key not in ("output_dir", "hub_dir") and (key in sections or not sections)
        }
        return str(yaml.safe_dump(told, sort_keys=False, allow_unicode=True))

    def summary(self) -> str:
        """Return one line that says what the recipe comes to."""
        dataset, builder = self.dataset, self.dataset.builder
        parts = [
            f"{self.recipe.name} version {self.recipe.version}",
            f"dataset {dataset.repo_id}@{dataset.revision}" + (f" by {builder}" if builder else ", published already"),
        ]
        if self.student:
            made = (self.student.from_config or {}).get("model_type")
            parts.append(f"student {self.student.model_name_or_path or f'{made} from its configuration'}")
        parts.append("stages " + (" -> ".join(stage.name for stage in self.stages) or "none"))
        if self.evaluation:
            parts.append(f"scored on {', '.join(self.evaluation.sets)}")
        return "; ".join([*parts, f"digest {self.digest[:12]}"])

    @property
    def notes(self) -> list[str]:
        """What stands in the recipe's files and should be written otherwise, though it is understood."""
        return [
            f"{node.place} {dotted(path)}: {node.was} is deprecated by transformers; write {path[-1]}"
            for node, path in deprecations(self._tree)
        ]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of everything that can change a result: `resolved()` without folders, money and public names.

        A dataset without a builder is known by its name alone, which therefore counts. The order of views counts (the
        first of two is the right one), that of other keys does not. Of stages it is `Stage.identity` that counts.
        """
        prices = prices_in(getattr(self.dataset.config, "teacher", None))
        dataset: dict[str, Any] = {"config": {"teacher": prices, "collect": {"max_cost_usd"}}}
        if self.dataset.builder is not None:
            dataset["repo_id"] = True
        left_out: Any = {"output_dir": True, "hub_dir": True, "publish": True, "dataset": dataset}
        content = self.model_dump(mode="json", exclude=left_out)
        content["stages"] = [stage.identity() for stage in self.stages]
        for name, reference in self.references.items():
            content["references"][name]["stages"] = [stage.identity() for stage in reference.stages]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def check_files(self) -> None:
        """Look at the files that the recipe names.

        Raises:
            RecipeFaults: One is missing, or not what it should be; holds every such fault.
        """
        from toolkit.named_file_checks import file_faults

        found = list(file_faults(named_files(self)))
        if found:
            raise RecipeFaults(Fault(self._tree.nearest_to(path)[0].place, dotted(path), text) for path, text in found)

    def written_paths(self) -> dict[str, str]:
        """Return the paths that stand in the recipe's files as they are written, by their dotted keys."""
        found = {}
        for named in named_files(self):
            node, steps = self._tree.nearest_to(named.path)
            if steps == len(named.path) and isinstance(named.text, NamedFile) and node.place.line:
                found[dotted(named.path)] = str(node.value)
        return found

    def origin(self, *path: str | int) -> str:
        """Return where the value at a path comes from: `file:line`, the override, or `default`."""
        node, steps = self._tree.nearest_to(path)
        # A text in place of a section, as in `target: ["..."]`, is the text of that section.
        return str(node.place) if steps == len(path) or path[steps:] == ("text",) else "default"

    def origins(self) -> dict[str, str]:
        """Return the origin of every plain value of `resolved()` by its dotted key, to be printed beside it."""
        return {dotted(path): self.origin(*path) for path in _plain_paths(self.resolved(), ())}


@dataclass(frozen=True)
class Builders:
    """The dataset builders that a recipe may name.

    Attributes:
        names: All of them.
        find: Settings model of a builder, and by dotted path the columns that views may use, each with the setting that
            must ask for it, empty where it is always there; or None for an unknown name.
    """

    names: tuple[str, ...]
    find: Callable[[str], tuple[type[BaseModel], Mapping[str, str]] | None]


def load_recipe(path: str, overrides: Sequence[str], builders: Builders) -> Recipe:
    """Read a recipe with what it extends, lay the overrides over it, and check all of it.

    Args:
        path: File of the recipe.
        overrides: `KEY=VALUE` with dotted keys and YAML values, the last one wins.
        builders: Builders that `dataset.builder` may name.

    Raises:
        RecipeFaults: Anything is wrong; holds every fault, not only the first.
    """
    tree, faults = read_recipe(path, overrides)
    if tree is None:
        raise RecipeFaults(faults)
    data = tree.plain()
    model, columns = _bound(data, builders)
    found = [*shape_faults(model, data), *meaning_faults(data, builders.names, columns)]
    told = {(fault.place, fault.key) for fault in faults}
    for where, text in found:
        place = tree.nearest_to(where)[0].place
        if (place, dotted(where)) not in told:
            faults.append(Fault(place, dotted(where), text))
    if faults:
        raise RecipeFaults(faults)
    recipe = model.model_validate_json(json.dumps(data), strict=True)
    locate(recipe, partial(_folder_of, tree), project_of(path))
    recipe._tree = tree
    recipe._words = (path, *overrides)
    return recipe


def _folder_of(tree: Node, path: Path) -> str | None:
    """Return the folder of the file that a value is written in, empty for an override; None for a default."""
    node, steps = tree.nearest_to(path)
    return node.place.folder if steps == len(path) else None


def _bound(data: dict[str, Any], builders: Builders) -> tuple[type[Recipe], dict[str, str] | None]:
    """Return the model whose `dataset.config` is the named builder's, and the columns of its records, where known.

    With each column stands the setting that it is missing for, or nothing where it is there.

    A missing `dataset.config` becomes an empty one in `data`, so that the builder says what it needs.
    """
    dataset = data.get("dataset")
    name = dataset.get("builder") if isinstance(dataset, dict) else None
    found = builders.find(name) if isinstance(name, str) else None
    if found is None or dataset is None:
        return Recipe, None
    settings, columns = found
    if dataset.get("config") is None:
        dataset["config"] = {}
    section = create_model("DatasetSection", __base__=DatasetSection, config=(settings, ...))
    missing = {
        path: "" if setting and _is_set(dataset["config"], setting) else setting for path, setting in columns.items()
    }
    return create_model("Recipe", __base__=Recipe, dataset=(section, ...)), missing


def _is_set(config: Any, setting: str) -> bool:
    """Whether a setting of a builder, given by its dotted name, is there and neither null, nor false, nor 0."""
    for part in setting.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return bool(config)


def _public(file: str) -> str:
    """Return how a card names a recipe's file: outside the working directory by its name alone."""
    shown = os.path.relpath(file)
    return os.path.basename(file) if shown.startswith(os.pardir) else shown


def _plain_paths(value: Any, path: Path) -> Iterator[Path]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _plain_paths(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _plain_paths(inner, (*path, index))
    else:
        yield path
