"""A teacher that answers from a store somebody made before: a dataset rebuilt offline, bit for bit."""

from __future__ import annotations

from typing import Literal

from toolkit.named_files import StoreFile
from toolkit.schema import Strict
from toolkit.store import Store
from toolkit.teachers.finish_reasons import fault_of, understood
from toolkit.teachers.logprobs import logprobs_of
from toolkit.teachers.protocol import Completion, Request, TeacherError, refuse_logprobs


class RecordedConfig(Strict):
    """A store of completions that stands in for the teacher which wrote them.

    Attributes:
        kind: Tells this teacher from the others.
        store: The store's file.
        model: Answer only with completions that were asked of this model; of any where None.
    """

    kind: Literal["recorded"] = "recorded"
    store: StoreFile
    model: str | None = None


class RecordedTeacher:
    """Finds a completion by its messages and sample index, whatever model or sampling the request names.

    Attributes:
        kind: `recorded`.
        model: The model of the configuration, or else the only one in the store, so that requests rebuilt from a
            store are the requests that it was filled with; `recorded` where the store holds several.

    Raises:
        UserError: There is no store at that path.
    """

    kind = "recorded"

    def __init__(self, config: RecordedConfig) -> None:
        self._config = config
        self._store: Store | None = None
        models = self._open().models()
        self.model = config.model or (models[0] if len(models) == 1 else "recorded")

    async def complete(self, request: Request) -> Completion:
        """Look a completion up; it comes back exactly as it was stored.

        Raises:
            TeacherError: `permanent`, where it was never recorded, or is a fragment of an answer; `fatal`, where the
                request wants log-probabilities that were not recorded with it.
        """
        completion = self._open().get_recorded(request, self._config.model)
        if completion is None:
            raise TeacherError("permanent", f"not recorded in {self._config.store}")
        if understood(completion.finish_reason) is None:
            raise TeacherError("permanent", f"recorded, but {fault_of(completion.finish_reason)}")
        if logprobs_of(completion) is None:
            refuse_logprobs(request, "this recording")
        return completion

    async def check(self) -> None:
        """Do nothing: the store was opened when the teacher was made."""

    async def close(self) -> None:
        """Close the store; the next request opens it again."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def _open(self) -> Store:
        if self._store is None:
            self._store = Store(self._config.store, read_only=True)
        return self._store
