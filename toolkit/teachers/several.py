"""Several teachers as one: each request goes to the teacher whose model it names."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from toolkit.teachers.protocol import Completion, Request, Teacher


class Teachers:
    """Sends each request to the teacher of its model.

    Attributes:
        kind: Kinds of the teachers, each once.
        model: Models that requests may name.

    Args:
        by_model: Teachers by the model that requests name for them.
    """

    def __init__(self, by_model: Mapping[str, Teacher]) -> None:
        self._by_model = dict(by_model)
        self.kind = ", ".join(dict.fromkeys(teacher.kind for teacher in self._by_model.values()))
        self.model = ", ".join(self._by_model)

    async def complete(self, request: Request) -> Completion:
        """Have the teacher of the request's model answer it.

        Raises:
            TeacherError: As that teacher says.
        """
        return await self._by_model[request.model].complete(request)

    async def check(self) -> None:
        """Check every teacher, so that none is paid where another one cannot answer.

        Raises:
            TeacherError: Of kind `fatal`.
        """
        await asyncio.gather(*(teacher.check() for teacher in self._by_model.values()))

    async def close(self) -> None:
        """Release every teacher's connections."""
        await asyncio.gather(*(teacher.close() for teacher in self._by_model.values()))
