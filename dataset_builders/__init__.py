"""Dataset builders: one file per published dataset. This module only knows their names, so importing it is free."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from toolkit.errors import UserError, nearest

BUILDERS = {
    "cot_pot_mix": "dataset_builders.cot_pot_mix:CotPotMix",
    "counterfactual_pairs": "dataset_builders.counterfactual_pairs:CounterfactualPairs",
    "counterfactual_rationales": "dataset_builders.counterfactual_rationales:CounterfactualRationales",
    "dual_cots": "dataset_builders.dual_cots:DualCots",
    "key_tokens": "dataset_builders.key_tokens:KeyTokens",
    "socratic_steps": "dataset_builders.socratic_steps:SocraticSteps",
    "teacher_cots": "dataset_builders.teacher_cots:TeacherCots",
}


def load_builder(name: str) -> Any:
    """Return the builder class called `name`; it has `SETTINGS` (its `dataset.config`) and `COLUMNS` (for views).

    Raises:
        UserError: There is no builder of that name.
    """
    if name not in BUILDERS:
        raise UserError(f"no dataset builder {name!r}; there are {sorted(BUILDERS)}{nearest(name, BUILDERS)}")
    module, _, attribute = BUILDERS[name].partition(":")
    return getattr(import_module(module), attribute)
