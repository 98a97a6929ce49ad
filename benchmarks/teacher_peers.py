"""Other projects' clients, asked the same as ours; run by `teacher_engine.py` with the Python of their environment.

    PYTHON benchmarks/teacher_peers.py distilabel URL ROWS SLOTS

Prints the seconds it takes, imports not counted. `pip install "distilabel[openai]" requests` has all it needs.
"""

from __future__ import annotations

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


if __name__ == "__main__":
    name, url, *numbers = sys.argv[1:]
    client = {"distilabel": distilabel}[name]
    print(f"\nseconds {client(url, *map(int, numbers))}")
