"""Peak memory of a whole `distill build` by the number of its rows: asking, building and the card.

    python benchmarks/build_memory.py [--rows 1000 20000] [--builders teacher_cots dual_cots] [--json]

Every build is a process of its own, with the embedded teacher and an empty store; its peak is what the system reports
when it ends (largest resident set, mapped files included). The target is that a hundred times the rows take at most 1.5
times the memory.
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
        with said.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, env=environment) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {said.read_text()}")
        return {
            "builder": builder,
            "rows": rows,
            "seconds": round(time.perf_counter() - started, 1),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "peak_mb": round(usage.ru_maxrss / 1024),  # kilobytes on Linux
        }


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
        found += [{**build, "ratio": round(build["peak_mb"] / builds[0]["peak_mb"], 2)} for build in builds]
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'builder':<14}{'rows':>9}{'seconds':>10}{'CPU s':>9}{'peak MB':>9}{'ratio':>7}")
    for row in found:
        print("{builder:<14}{rows:>9}{seconds:>10}{cpu_seconds:>9}{peak_mb:>9}{ratio:>7}".format(**row))


if __name__ == "__main__":
    main()
