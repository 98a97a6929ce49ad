"""Which small faults in the kernel the tests notice: `make mutants`, by hand; it takes an hour on two cores.

Every mutant is written into a copy of the repository and tried by the test files that answer for its module, in a
process forked from one that has imported torch and the like already: a process of its own would spend ten seconds on
that, a thousand times.

    make mutants                                   40 mutants of each module, the same ones every time
    make mutants ARGS="pacing spending --all"      every mutant of two modules
    make mutants ARGS="--seed 1 --write docs/results/mutants.md"
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import importlib
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from tests.mutants.modules import MODULES
from tests.mutants.operators import mutants

ROOT = Path(__file__).parents[2]
NEEDED, NEEDED_OF_A_MODULE = 0.92, 0.85
_MOST_MEMORY = 10 << 30  # address space of each process: a mutant may take away what keeps another one small
_OURS = ("toolkit", "dataset_builders", "tests")
_HEAVY = ("torch", "datasets", "transformers", "peft", "hypothesis", "pydantic", "jinja2", "rapidfuzz.distance")


@dataclass(frozen=True)
class Score:
    """What became of a module's mutants."""

    module: str
    killed: int
    survived: int
    equivalent: int
    seconds: float

    @property
    def share(self) -> float:
        """Of those that are not equivalent, how many were noticed."""
        tried = self.killed + self.survived
        return self.killed / tried if tried else 1.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="modules of toolkit/; all of the kernel if none")
    parser.add_argument("--sample", type=int, default=40, help="mutants of each module, equivalent ones included")
    parser.add_argument("--all", action="store_true", help="every mutant")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--jobs", type=int, default=2, help="modules tried at once")
    parser.add_argument("--write", type=Path, help="write the table to this page as well")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.modules if name not in MODULES]:
        parser.error(f"found {', '.join(unknown)}, allowed {', '.join(MODULES)}")
    return arguments


def main() -> int:
    """Try the mutants, print the score of each module; 0 where every score is high enough."""
    arguments = _arguments()
    reasons = _equivalent()
    _import_what_is_heavy()
    score = partial(_score, arguments=arguments, reasons=reasons)
    with multiprocessing.get_context("fork").Pool(arguments.jobs) as pool:
        scores = pool.map(score, arguments.modules or list(MODULES), chunksize=1)
    table = _table(scores)
    print(table)
    if arguments.write:
        _write(arguments.write, table)
    killed, survived = sum(score.killed for score in scores), sum(score.survived for score in scores)
    enough = killed >= NEEDED * (killed + survived)
    return 0 if enough and all(score.share >= NEEDED_OF_A_MODULE for score in scores) else 1


def _equivalent() -> set[tuple[str, str, str]]:
    """Return the mutants that no test can notice, by module and lines; their reasons stand in the file."""
    listed = tomllib.loads(Path(__file__).with_name("equivalent.toml").read_text(encoding="utf-8"))
    return {(each["module"], each["before"], each["after"]) for each in listed.get("mutant", [])}


def _import_what_is_heavy() -> None:
    for name in _HEAVY:
        importlib.import_module(name)
    from hypothesis import Phase, settings
    from trl import SFTTrainer  # noqa: F401 (lazy: the name is what imports it)

    # The first example that fails is enough: finding the smallest one takes longer than all tests. A busy machine is no
    # fault of a mutant's, so there is no deadline. Fewer examples than the tests draw: a score is too low if anything.
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutants", derandomize=True, database=None, deadline=None, phases=phases, max_examples=40)


def _copied(copy: Path) -> Path:
    """Copy what git knows, compiled: a mutant never writes byte code, which could outlive it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    compileall.compile_dir(copy, quiet=2)
    return copy


def _score(module: str, arguments: argparse.Namespace, reasons: set[tuple[str, str, str]]) -> Score:
    with tempfile.TemporaryDirectory() as folder:
        return _score_in(_copied(Path(folder) / "repository"), module, arguments, reasons)


def _score_in(copy: Path, module: str, arguments: argparse.Namespace, reasons: set[tuple[str, str, str]]) -> Score:
    file = copy / "toolkit" / f"{module}.py"
    source = file.read_text(encoding="utf-8")
    begun = time.monotonic()
    if _run_tests(copy, module, 600.0, writes=True) != 0:
        raise RuntimeError(f"{module}: its tests fail without any mutant")
    patience = 30.0 + 5 * (time.monotonic() - begun)
    found: Counter[str] = Counter()
    # A stale byte code is told by time and size of its source: a mutant of the same second and size has both.
    for stale in (file.parent / "__pycache__").glob(f"{module}.*.pyc"):
        stale.unlink()
    try:
        drawn = mutants(source, f"{arguments.seed}/{module}")
        for mutant in drawn if arguments.all else islice(drawn, arguments.sample):
            if (module, mutant.before, mutant.after) in reasons:
                found["equivalent"] += 1
                continue
            file.write_text(mutant.source, encoding="utf-8")
            noticed = _run_tests(copy, module, patience) != 0
            found["killed" if noticed else "survived"] += 1
            if not noticed:
                print(f"survived {module}:{mutant.line}\n  - {mutant.before}\n  + {mutant.after}\n", end="", flush=True)
    finally:
        file.write_text(source, encoding="utf-8")
    score = Score(module, found["killed"], found["survived"], found["equivalent"], time.monotonic() - begun)
    print(f"{module}: {score.killed} of {score.killed + score.survived}, {score.seconds:.0f} s", flush=True)
    return score


def _run_tests(copy: Path, module: str, patience: float, writes: bool = False) -> int:
    """Return the exit code of a module's tests, up to the first that fails; 1 where they take too long."""
    child = os.fork()
    if child == 0:
        _be_tests(copy, module, writes)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            _end_group(child)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    _end_group(child)
    os.waitpid(child, 0)
    return 1


def _end_group(leader: int) -> None:
    """End what a run of tests has left behind: workers whose parent died of a mutant."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _be_tests(copy: Path, module: str, writes: bool) -> None:
    """Run the tests in this process and end it; `writes` says whether byte code is kept, pytest's own of tests too."""
    code = 1
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
        os.chdir(copy)
        os.environ["PYTHONPATH"] = str(copy)
        if not writes:
            sys.dont_write_bytecode = True
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        for name in [name for name in sys.modules if name.partition(".")[0] in _OURS]:
            del sys.modules[name]
        sys.path[:] = [str(copy), *(place for place in sys.path if Path(place or ".").resolve() != ROOT)]
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        import pytest

        files = [f"tests/toolkit/{name}.py" for name in MODULES[module]]
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile=mutants"]
        code = int(pytest.main([*options, *files]))
    finally:
        os._exit(code)


def _table(scores: list[Score]) -> str:
    lines = ["| module | killed | of | share | equivalent | seconds |", "|---|---|---|---|---|---|"]
    total = Score(
        "all",
        *(sum(getattr(score, name) for score in scores) for name in ("killed", "survived", "equivalent", "seconds")),
    )
    for each in [*scores, total]:
        tried = each.killed + each.survived
        lines.append(
            f"| {each.module} | {each.killed} | {tried} | {each.share:.0%} | {each.equivalent} | {each.seconds:.0f} |"
        )
    return "\n".join(lines)


def _write(page: Path, table: str) -> None:
    """Put the table into the page, between its marks."""
    before, _, rest = page.read_text(encoding="utf-8").partition("<!-- scores -->\n")
    after = rest.partition("<!-- end of scores -->")[2]
    page.write_text(f"{before}<!-- scores -->\n{table}\n<!-- end of scores -->{after}", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
