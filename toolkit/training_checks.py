"""What a recipe asks of this machine and of the libraries on it, found out before anything is asked, loaded or built.

`distill validate` knows neither: it loads no torch, and a recipe may be trained elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from toolkit.errors import UserError
from toolkit.precision import with_precision

if TYPE_CHECKING:
    from toolkit.recipe import Recipe
    from toolkit.recipe_sections import Stage, Student


def check_training(recipe: Recipe) -> None:
    """Check that the libraries take every stage's arguments here, and that the student can be made.

    Raises:
        UserError: A precision that the machine has not, arguments at odds, a package that is not there, or a
            configuration that its architecture refuses.
    """
    if recipe.student is None:
        return
    for stage in [*recipe.stages, *(stage for other in recipe.references.values() for stage in other.stages)]:
        _check_arguments(stage, recipe.student)
    if recipe.student.from_config is not None:
        _check_configuration(recipe.student)


def _check_arguments(stage: Stage, student: Student) -> None:
    training = with_precision(stage)
    from toolkit.trl_seams import trl_arguments

    try:
        with TemporaryDirectory() as folder:
            trl_arguments(training, student.model_arguments(), Path(folder), "start")
    except (ImportError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"stages.{stage.name}.training or student: {error}") from error


def _check_configuration(student: Student) -> None:
    """Make the model without its weights, which take the memory and the time."""
    import torch

    from toolkit.starting import tokenizer_of
    from toolkit.students import student_from_config

    tokenizer = tokenizer_of(student, {}, lambda: ())
    with torch.device("meta"):
        student_from_config(student.from_config or {}, tokenizer, student.seed)
