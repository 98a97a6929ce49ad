"""Time that passes at once: stands where the engine sleeps."""

from __future__ import annotations

import asyncio


class Waits:
    """Stands in for sleeping: remembers how long was asked for and returns at once."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)
