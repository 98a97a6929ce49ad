"""What holds for every test: drawn examples are the same in every run; `--hypothesis-profile default` draws others."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
