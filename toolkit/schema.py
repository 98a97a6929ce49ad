"""The strict base of every configuration model: an unknown key is a fault, never a silent default."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A configuration section: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)
