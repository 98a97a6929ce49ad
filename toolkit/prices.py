"""What a teacher's tokens cost: stated in the recipe, found in a table with dates, or not known.

A price that is not known is None and is told as such; it is never taken for nothing.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from toolkit.errors import UserError
from toolkit.schema import Strict

if TYPE_CHECKING:
    from toolkit.teachers.kinds import TeacherConfig

TABLE_VARIABLE = "COT_DISTILLERY_PRICES"
_TABLE = Path(__file__).with_name("prices.yaml")
_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}\Z")


class Price(Strict):
    """What a model's tokens cost, in USD per million.

    Attributes:
        input: Prompt tokens.
        cached_input: Prompt tokens that the endpoint billed as read from its cache; as `input` where None.
        output: Completion tokens, those of thinking included.
        batch: What both are multiplied by in the provider's batch API.
        date: When the price was read, e.g. `2026-10-14`.
        source: Where it is stated.
    """

    input: float = Field(ge=0, allow_inf_nan=False)
    cached_input: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    batch: float = Field(default=1.0, gt=0, le=1)
    date: datetime.date | None = None
    source: str = ""

    def __str__(self) -> str:
        cached = "" if self.cached_input is None else f" ({self.cached_input:g} cached)"
        batch = "" if self.batch == 1 else f", times {self.batch:g} in a batch"
        origin = ", ".join(str(part) for part in (self.date, self.source) if part)
        return f"{self.input:g} USD{cached} per million tokens of prompts, {self.output:g} of completions{batch}" + (
            f" ({origin})" if origin else ""
        )

    @property
    def is_free(self) -> bool:
        """Whether no token costs anything."""
        return not (self.input or self.cached_input or self.output)


FREE = Price(input=0, output=0)
"""Of teachers that answer on this machine or from a file."""


def price_of(teacher: TeacherConfig) -> Price | None:
    """Return what a teacher's tokens cost, None where nobody said.

    A recipe's own price comes first. The table is asked for the host and the model, so a model of the same name
    on another server has no price by it.

    Raises:
        UserError: The table that `COT_DISTILLERY_PRICES` names cannot be read, or the teacher's address.
    """
    if teacher.kind != "openai":
        return FREE
    if teacher.price is not None:
        return teacher.price
    from toolkit.teachers.openai_config import address_of  # imports this module

    addresses = teacher.base_url if isinstance(teacher.base_url, tuple) else (address_of(teacher),)
    table = _read_table()
    hosts = [urlsplit(address).hostname or "" for address in addresses]
    prices = {_listed(table.get(host, {}), teacher.model) for host in hosts}
    return prices.pop() if len(prices) == 1 else None  # servers of a pool that charge differently have no one price


def prices_in(teacher: Any) -> dict[str, Any]:
    """Return what pydantic's `exclude` takes to leave prices out of one teacher's section, or a list of them."""
    price = {"price": True}
    return {"__all__": price} if isinstance(teacher, tuple) else price


def _listed(models: Mapping[str, Price], model: str) -> Price | None:
    return models.get(model) or models.get(_DATED.sub("", model))


def _read_table() -> Mapping[str, Mapping[str, Price]]:
    """Return the prices by host and model."""
    import yaml

    path = Path(os.environ.get(TABLE_VARIABLE) or _TABLE)
    try:
        hosts = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {
            str(host): {str(model): Price.model_validate(row) for model, row in models.items()}
            for host, models in hosts.items()
        }
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, ValidationError) as error:
        raise UserError(
            f"{path}, named by {TABLE_VARIABLE}: no table of prices (host, model, then input, cached_input, output, "
            f"batch, date, source): {error}"
        ) from None
