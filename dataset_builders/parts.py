"""What each of a recipe's teachers has to do with a build, and the records that come of its answers.

A builder knows of one teacher. Where a recipe names several, the builder goes through its problems once for each, and
each has a part of the build: settings that name it alone, the price of its tokens, ids of its own.
Sends no request.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dataset_builders.asking import Answers, Asker, Record, Step, marked
from toolkit.collect_settings import CollectSettings
from toolkit.errors import UserError
from toolkit.prices import FREE, Price, price_of
from toolkit.teachers.kinds import make_teacher
from toolkit.teachers.protocol import Teacher

if TYPE_CHECKING:
    from dataset_builders.published import CotsBuilder


@dataclass(frozen=True)
class Part:
    """What one teacher has to do with a build; the whole of it where there is one teacher, or none.

    Attributes:
        settings: The builder's settings, with this teacher alone.
        kind: Kind of the teacher; `paired` where nobody is asked.
        model: Model that its requests name, and by which the store tells its answers apart.
        name: What marks its records where there are several teachers: the model; else empty.
        price: What its tokens cost; None where it is not known.
    """

    settings: Any
    kind: str = "paired"
    model: str = ""
    name: str = ""
    price: Price | None = FREE

    @property
    def collect(self) -> CollectSettings:
        """How the teacher is asked."""
        collect: CollectSettings = self.settings.collect
        # What was not recorded the last time may be now, and looking is free.
        return collect.model_copy(update={"retry_failed": True}) if self.kind == "recorded" else collect

    def asker(self, answers: Answers) -> Asker:
        """Return a fresh asker for this teacher."""
        return Asker(self.settings, answers, self.kind, self.model)


def parts_of(settings: Any) -> list[Part]:
    """Return the parts of a build, in the order in which the recipe names the teachers.

    Raises:
        UserError: Two teachers would be asked the same requests, or a recorded teacher's store cannot be opened.
    """
    parts = [_part(settings.alone(config)) for config in settings.teachers] or [Part(settings)]
    model, number = Counter(part.model for part in parts).most_common(1)[0]
    if number > 1:
        raise UserError(
            f"dataset.config.teacher: found {number} teachers that go by the model {model!r}, and would be asked the "
            "same requests; `samples` asks one teacher several times, and a list in base_url is several servers of one"
        )
    return parts if len(parts) == 1 else [replace(part, name=part.model) for part in parts]


def _part(settings: Any) -> Part:
    teacher = make_teacher(settings.teacher)
    return Part(settings, teacher.kind, model_asked(settings.teacher, teacher), price=price_of(settings.teacher))


def model_asked(config: Any, teacher: Teacher) -> str:
    """Return the model that requests name, and by which the store tells their answers apart.

    Teachers in this process answer by settings that no request carries (error rates, a revision, a prompt format), so
    a digest of them is part of the name; else other settings would be answered from the store with what the old ones
    gave. Where a model runs, how many prompts it takes at once and what trained it decide nothing.
    """
    if teacher.kind not in ("procedural", "transformers"):
        return teacher.model
    settings = config.model_dump(mode="json", exclude={"device", "batch_size", "recipe"})
    return f"{teacher.model}@{hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]}"


class NoAnswers:
    """Stands where a store would for builds that ask nobody."""

    def get(self, request: object) -> None:
        """Return None."""

    def failure(self, request: object) -> None:
        """Return None."""


def records_of(
    builder: type[CotsBuilder],
    problems: Sequence[Any],
    parts: Sequence[Part],
    askers: Sequence[Asker],
    steps: list[Step],
) -> Iterator[Record]:
    """Yield the records of one teacher after the other, and with the last one of each its steps."""
    for part, asker in zip(parts, askers, strict=True):
        own: list[Step] = []
        yield from marked(builder.records(problems, asker, part.settings, own), own, part.name)
        steps += own
