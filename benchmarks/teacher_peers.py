"""Other projects' clients, asked the same as ours; run by `teacher_engine.py` with the Python of their environment.

    PYTHON benchmarks/teacher_peers.py distilabel|curator URL ROWS SLOTS

Prints the seconds from the first to the last row, imports and setting up not counted where the client lets them apart.
"""

from __future__ import annotations

import os
import sys
import time

QUESTION = (
    "There are {} trees in the grove. Workers plant more today, and then there are more. How many did they plant?"
)
MODEL = "served"


def distilabel(url: str, rows: int, slots: int) -> float:
    """Time a pipeline of one text generation; its batches are as large as our window."""
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    with Pipeline(name="peer") as pipeline:
        data = [{"instruction": QUESTION.format(number)} for number in range(rows)]
        load = LoadDataFromDicts(data=data, batch_size=slots)
        llm = OpenAILLM(model=MODEL, base_url=url, api_key="none")
        load >> TextGeneration(llm=llm, input_batch_size=slots)
    began = time.perf_counter()
    answers = pipeline.run(use_cache=False)["default"]["train"]["generation"]
    seconds = time.perf_counter() - began
    assert sum(map(bool, answers)) == rows
    return seconds


def curator(url: str, rows: int, slots: int) -> float:
    """Time one call; its own rate limits are set out of the way."""
    os.environ |= {"CURATOR_DISABLE_CACHE": "1", "TELEMETRY_ENABLED": "0", "OPENAI_API_KEY": "none"}
    from bespokelabs import curator as peer

    limits = {"max_requests_per_minute": 10**7, "max_tokens_per_minute": 10**9, "max_concurrent_requests": slots}
    llm = peer.LLM(model_name=MODEL, backend="openai", backend_params={"base_url": url, **limits})
    began = time.perf_counter()
    answers = llm([QUESTION.format(number) for number in range(rows)])
    seconds = time.perf_counter() - began
    assert len(getattr(answers, "dataset", answers)) == rows
    return seconds


if __name__ == "__main__":
    name, url, *numbers = sys.argv[1:]
    client = {"distilabel": distilabel, "curator": curator}[name]
    print(f"\nseconds {client(url, *map(int, numbers))}")
