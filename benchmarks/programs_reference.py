"""The reference of programs.py: one plain CPython process per program. Runs as the first process of a jail only."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

# The clock stands as it does for the programs that are compared with this.
RUN = """
import datetime, json, sys
class Real(type):
    def __instancecheck__(cls, moment):
        return isinstance(moment, cls.__mro__[1])
class Date(datetime.date, metaclass=Real):
    today = classmethod(lambda cls: cls(2024, 1, 1))
class Datetime(datetime.datetime, metaclass=Real):
    today = now = classmethod(lambda cls, tz=None: cls(2024, 1, 1, tzinfo=tz))
source, variable = json.load(sys.stdin)
real, sys.stdout = sys.stdout, open("/dev/null", "w")
sys.path.append("/packages")
if "dateutil" in source:
    import dateutil.relativedelta
datetime.date, datetime.datetime = Date, Datetime
names = {"__name__": "__main__"}
exec(source, names)
value = names[variable[:-2]]() if variable.endswith("()") else names[variable]
def scalar(value):
    if isinstance(value, (bool, str)):
        return value
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None
many = isinstance(value, (list, tuple)) or getattr(value, "shape", ())
value = [scalar(item) for item in value] if many else scalar(value)
if many and None in value or isinstance(value, float) and value - value != 0:
    value = None
print(json.dumps(value), file=real)
"""


def limit() -> None:
    """Give the process of a program 2 seconds and 1 GB."""
    resource.setrlimit(resource.RLIMIT_CPU, (2, 2))
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))


def main() -> None:
    """Read [source, variable] pairs, print a value or null for each, then the seconds that it took."""
    programs = json.load(sys.stdin)
    began = time.perf_counter()
    for program in programs:
        done = subprocess.run(
            [sys.executable, "-s", "-S", "-P", "-B", "-c", RUN],
            input=json.dumps(program),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=limit,
        )
        lines = done.stdout.splitlines()
        print(lines[-1] if done.returncode == 0 and lines else "null")
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
