"""Running real programs: what of them gives a value here, whether it is CPython's, and at what rate.

    python benchmarks/programs.py [--data ../shared/data] [--per-file 200] [--json]

The programs are those that models wrote for Program of Thoughts and Faithful CoT (folders `program_of_thoughts` and
`faithful_cot`). The reference starts one CPython process for each; since they are as untrusted as any, it does so
inside a jail, and the jail's own start is not counted. Both take one program at a time, file by file in turns.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

from toolkit import program_jail
from toolkit.programs import Outcome, Runner, Value

REFERENCE = Path(__file__).with_name("programs_reference.py")
Task = tuple[str, str]  # source, variable


def tasks(path: Path) -> Iterator[Task]:
    """Read the programs of one file, with the variable of each."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            source = row.get("generated") or row.get("completion")
            source = source[0] if isinstance(source, list) else source
            if source:
                variable = "answer" if "completion" in row else "ans"
                yield source, "solver()" if "def solver():" in source else variable


def files(data: Path) -> list[Path]:
    """Return the files that hold programs; those named after chains of thought hold none."""
    found = [
        *(data / "program_of_thoughts" / "outputs").glob("*.jsonl.gz"),
        *(data / "faithful_cot" / "output_dir").glob("*/test/*/predictions.jsonl.gz"),
    ]
    chains = ("_COT", "_cot", "gpt4_s0")
    return sorted(path for path in found if not any(word in f"{path.parent.name}/{path.name}" for word in chains))


def by_cpython(programs: list[Task]) -> tuple[list[Value | None], float]:
    """Run each program in a CPython process of its own -> (values, seconds that the processes took in all)."""
    with program_jail.jailed(REFERENCE) as process:
        written, _ = process.communicate(json.dumps(programs).encode())
    lines = written.decode().splitlines()
    assert len(lines) == len(programs) + 1, "the reference did not get through"
    return [json.loads(line) for line in lines[:-1]], json.loads(lines[-1])


def by_us(runner: Runner, programs: list[Task]) -> tuple[list[Outcome], float]:
    """Run each program here -> (outcomes, seconds)."""
    began = time.perf_counter()
    outcomes = [runner.run(source, variable) for source, variable in programs]
    return outcomes, time.perf_counter() - began


def same(ours: Value | None, theirs: Value | None) -> bool:
    """Whether two values are equal: numbers up to rounding in the last digits."""
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=1e-12)
    return type(ours) is type(theirs) and ours == theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("COT_DATA", "../shared/data")))
    parser.add_argument("--per-file", type=int, default=200, help="programs of each file; 0 takes them all")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--misses", action="store_true", help="print each program that gives no value or another one")
    args = parser.parse_args()
    if program_jail.unavailable():
        raise SystemExit(f"the reference needs a jail, since the programs are untrusted: {program_jail.unavailable()}")
    total = dict.fromkeys(("programs", "cpython", "covered", "disagreements", "jailed", "ours_s", "cpython_s"), 0.0)
    print(f"{'file':<52}{'n':>6}{'CPython':>9}{'here':>6}{'other':>6}{'jailed':>7}{'ms':>8}{'CPython ms':>12}")
    with Runner(workers=1) as runner:
        runner.run("ans = 1")
        for path in files(args.data):
            programs = list(tasks(path))[: args.per_file or None]
            values, cpython_s = by_cpython(programs)
            outcomes, ours_s = by_us(runner, programs)
            row = dict.fromkeys(total, 0.0)
            row |= {"programs": len(programs), "ours_s": ours_s, "cpython_s": cpython_s}
            for (source, _), outcome, value in zip(programs, outcomes, values, strict=True):
                row["cpython"] += value is not None
                row["covered"] += value is not None and outcome.status == "ok"
                row["jailed"] += outcome.tier == 2
                other = value is not None and outcome.status == "ok" and not same(outcome.value, value)
                row["disagreements"] += other
                if args.misses and (other or (value is None) != (outcome.value is None)):
                    print(f"--- {outcome} CPython: {value}\n{source}\n---")
            _print(path.relative_to(args.data).as_posix().removesuffix(".jsonl.gz")[-51:], row)
            total = {name: total[name] + row[name] for name in total}
    _print("all", total)
    figures = {
        "programs": int(total["programs"]),
        "coverage": round(total["covered"] / total["cpython"], 5),
        "disagreements": int(total["disagreements"]),
        "ratio_rate": round(total["cpython_s"] / total["ours_s"], 1),
    }
    if args.json:
        print(json.dumps(figures))


def _print(name: str, row: dict[str, float]) -> None:
    counts = "".join(
        f"{int(row[key]):>{width}}"
        for key, width in (("programs", 6), ("cpython", 9), ("covered", 6), ("disagreements", 6), ("jailed", 7))
    )
    each = 1000 / max(row["programs"], 1)
    print(f"{name:<52}{counts}{each * row['ours_s']:>8.2f}{each * row['cpython_s']:>12.1f}", flush=True)


if __name__ == "__main__":
    main()
