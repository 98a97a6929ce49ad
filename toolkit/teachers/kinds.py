"""The kinds of teacher a recipe may name, and the one place that makes one of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from toolkit.teachers.local_model import LocalModelConfig, LocalModelTeacher
from toolkit.teachers.openai_compatible import OpenAIConfig, OpenAITeacher
from toolkit.teachers.pool import Pool
from toolkit.teachers.procedural import ProceduralConfig, ProceduralTeacher
from toolkit.teachers.protocol import Request, Teacher
from toolkit.teachers.recorded import RecordedConfig, RecordedTeacher

TeacherConfig = Annotated[
    ProceduralConfig | OpenAIConfig | LocalModelConfig | RecordedConfig, Field(discriminator="kind")
]
"""A `teacher:` section. It always names its kind; nothing falls back to the embedded teacher."""


def asked_of(teacher: object, request: Request) -> Request:
    """Return a request as a teacher is asked it: its own settings may leave parameters out and add others.

    Args:
        teacher: Its section; anything else changes nothing.
        request: As the builder makes it for whichever teacher.
    """
    return teacher.applied_to(request) if isinstance(teacher, OpenAIConfig) else request


def make_teacher(config: ProceduralConfig | OpenAIConfig | LocalModelConfig | RecordedConfig) -> Teacher:
    """Make the teacher a configuration describes; nothing is asked, and no key or model is read yet.

    Raises:
        UserError: A recorded teacher's store cannot be opened, or a server's address in the environment is none.
    """
    if isinstance(config, OpenAIConfig):
        if isinstance(config.base_url, tuple):
            return Pool([OpenAITeacher(config.model_copy(update={"base_url": url})) for url in config.base_url])
        return OpenAITeacher(config)
    if isinstance(config, LocalModelConfig):
        return LocalModelTeacher(config)
    if isinstance(config, RecordedConfig):
        return RecordedTeacher(config)
    return ProceduralTeacher(config)
