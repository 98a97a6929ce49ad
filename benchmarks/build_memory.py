"""Peak memory of a whole `distill build` by the number of its rows: asking, building and the card.

    python benchmarks/build_memory.py [--rows 1000 20000] [--builders teacher_cots dual_cots] [--json]

Every build is a process of its own, with the embedded teacher and an empty store. Two peaks are told: `resident`, what
the system reports when it ends, and `own`, what was looked up ten times a second of the memory that is the process's
alone. Between them lie pages of files, mostly of libraries, which the system takes back when it needs them. The target
is that however many times the rows take at most 1.5 times the memory of a thousand.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BUILDERS = ("teacher_cots", "dual_cots")
PEAKS = ("resident", "own")
RECIPE = """
recipe: {{name: many, version: 1, title: Many rows}}
hub_dir: {folder}/hub
dataset:
  builder: {builder}
  repo_id: many
  revision: v1.0.0
  config:
    problems: {{source: procedural, tasks: [chained_arithmetic, ordering], n: {rows}, n_test: 100}}
    teacher: {{kind: procedural}}
"""


def measured(builder: str, rows: int) -> dict[str, Any]:
    """Build a dataset of so many problems in a fresh folder; return seconds and the peak in MB."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "many.yaml"
        recipe.write_text(RECIPE.format(builder=builder, rows=rows, folder=folder))
        command = [sys.executable, "-m", "toolkit.cli", "build", str(recipe)]
        environment = {**os.environ, "HF_DATASETS_CACHE": f"{folder}/cache"}
        started = time.perf_counter()
        said = Path(folder) / "said.txt"
        own = 0
        with said.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, env=environment) as process:
            ended = 0
            while not ended:
                own = max(own, _own_kb(process.pid))
                time.sleep(0.1)
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {said.read_text()}")
        return {
            "builder": builder,
            "rows": rows,
            "seconds": round(time.perf_counter() - started, 1),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "resident_mb": round(usage.ru_maxrss / 1024),  # kilobytes on Linux
            "own_mb": round(own / 1024),
        }


def _own_kb(pid: int) -> int:
    """Return how many kilobytes a process has in memory that are in no file."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:")), 0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 20_000], help="problems of each build")
    parser.add_argument("--builders", nargs="+", choices=BUILDERS, default=BUILDERS)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    found = []
    for builder in options.builders:
        builds = [measured(builder, rows) for rows in sorted(options.rows)]
        found += [
            {**build, **{f"{peak}_ratio": round(build[f"{peak}_mb"] / builds[0][f"{peak}_mb"], 2) for peak in PEAKS}}
            for build in builds
        ]
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(
        f"{'builder':<14}{'rows':>9}{'seconds':>10}{'CPU s':>9}{'resident MB':>13}{'ratio':>7}{'own MB':>9}{'ratio':>7}"
    )
    for row in found:
        print(
            "{builder:<14}{rows:>9}{seconds:>10}{cpu_seconds:>9}{resident_mb:>13}{resident_ratio:>7}"
            "{own_mb:>9}{own_ratio:>7}".format(**row)
        )


if __name__ == "__main__":
    main()
