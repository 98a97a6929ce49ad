"""Reading and comparing answers: microseconds a row, of this checkout and of another one.

    git worktree add ../before 5727813
    python benchmarks/answers.py --against ../before [--rows 4000] [--rounds 5] [--json]

Two processes, one for each checkout, take turns over the same rows: a round of `extract`, a round of `matches`. A ratio
is the median of the rounds' ratios. Rows are the model solutions of GSM8K (`../shared/data/gsm8k`) where they are at
hand, and completions that this script writes otherwise. Mathematics (math-verify, tens of milliseconds) is apart.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOLUTIONS = ROOT.parent / "shared" / "data" / "gsm8k" / "example_model_solutions.jsonl.gz"
MATHEMATICS = [
    (r"\frac{1}{2}", "0.5"),
    (r"2\sqrt{2}", r"\sqrt{8}"),
    ("(x+1)^2", "x^2+2x+1"),
    (r"\{2, 1\}", r"\{1, 2\}"),
    (r"3\pi", r"2\pi"),
    ("x = 5", "5"),
]

# Runs in a process of its own, below one checkout: a line in, a round of seconds out.
WORKER = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from toolkit.answers import extract, matches
rows, mathematics = json.loads(sys.stdin.readline())
print("ready", flush=True)
for line in sys.stdin:
    begun = time.perf_counter()
    answers = [extract(text, kind) for text, gold, kind in rows]
    extracted = time.perf_counter()
    right = sum(matches(answer, gold, kind) for answer, (text, gold, kind) in zip(answers, rows))
    matched = time.perf_counter()
    equal = sum(matches(one, other, "math") for one, other in mathematics)
    ended = time.perf_counter()
    print(json.dumps([extracted - begun, matched - extracted, ended - matched, right, equal]), flush=True)
"""


def rows(count: int) -> list[tuple[str, str, str]]:
    """Return completions with their gold answer and its kind."""
    if SOLUTIONS.is_file():
        lines = gzip.decompress(SOLUTIONS.read_bytes()).decode().splitlines()
        found = [json.loads(line) for line in lines]
        return [
            (row[model]["solution"], row["ground_truth"].rpartition("A:")[2].strip(), "number")
            for row in found
            for model in ("6b_finetuning", "175b_verification")
        ][:count]
    draw = random.Random(0)
    made = []
    for _ in range(count):
        one, other = draw.randint(2, 999), draw.randint(2, 999)
        steps = " ".join(f"Then {one} + {step} = {one + step} apples are left." for step in range(draw.randint(3, 12)))
        made.append((f"{steps} Therefore, the answer is {one + other} apples.", str(one + other), "number"))
    return made


class Checkout:
    """A process that reads answers with the code of one checkout."""

    def __init__(self, root: Path, given: list[tuple[str, str, str]]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._say(json.dumps([given, MATHEMATICS]))

    def _say(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def round(self) -> list[float]:
        """Return the seconds of `extract`, of `matches` and of mathematics, and how many were right and equal."""
        return json.loads(self._say("go"))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, required=True, help="another checkout of the repository")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    given = rows(arguments.rows)
    here, there = Checkout(ROOT, given), Checkout(arguments.against.resolve(), given)
    taken = []
    for _ in range(arguments.rounds + 1):
        taken.append((here.round(), there.round()))
    here.close()
    there.close()
    taken = taken[1:]  # the first round compiles patterns and starts the verifier
    result: dict[str, float] = {"rows": len(given)}
    for place, (name, per) in enumerate((("extract", len(given)), ("matches", len(given)), ("math", len(MATHEMATICS)))):
        for side, label in enumerate(("here", "there")):
            seconds = statistics.median(pair[side][place] for pair in taken)
            result[f"{name}_{label}_us"] = round(seconds / per * 1e6, 1)
        result[f"{name}_ratio"] = round(statistics.median(pair[0][place] / pair[1][place] for pair in taken), 3)
    result |= {"right_here": taken[0][0][3], "right_there": taken[0][1][3]}
    print(f"{len(given)} rows, {arguments.rounds} rounds            here   there   ratio")
    for name in ("extract", "matches", "math"):
        here_us, there_us = result[f"{name}_here_us"], result[f"{name}_there_us"]
        print(f"{name}, microseconds a row      {here_us:10.1f} {there_us:7.1f} {result[f'{name}_ratio']:7.3f}")
    print(f"rows called right                  {result['right_here']:7.0f} {result['right_there']:7.0f}")
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
