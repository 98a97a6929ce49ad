"""Tier 2: programs in CPython, for numpy, sympy and what else the interpreter lacks, each in a jail of its own.

The jail is bubblewrap: namespaces without network, an ordinary uid without rights, nothing of this machine but the
system's libraries, the Python that runs us and a few packages, all read-only; no file system is writable, so nothing
can be filled. rlimits bound time and memory, and a system call filter closes the memory that they do not count. The
program is on stdin and `toolkit/program_in_jail.py` runs it. Where any of this cannot be had there is no tier 2 at all.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import platform
import secrets
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from toolkit.program_outcome import Limits
from toolkit.program_source import Program

START_SECONDS = 60.0  # until the jail stands and its libraries are imported, on a machine with other work
PATIENCE = 2.0  # wall seconds allowed for each second of computing: sleeping counts as well
NOBODY = "65534"
PACKAGES = ("dateutil", "mpmath", "numpy", "six", "sympy")
SCRIPT = Path(__file__).with_name("program_in_jail.py")

# Memory that no rlimit counts (System V and POSIX queues, memory files, keys), sockets of every kind, and interfaces
# into the kernel or other processes that no program has a use for. Numbers of x86-64.
_REFUSED = {
    "socket": 41, "socketpair": 53,
    "shmget": 29, "shmat": 30, "shmctl": 31, "semget": 64, "semop": 65, "semctl": 66, "semtimedop": 220,
    "msgget": 68, "msgsnd": 69, "msgrcv": 70, "msgctl": 71, "mq_open": 240, "memfd_create": 319, "memfd_secret": 447,
    "add_key": 248, "request_key": 249, "keyctl": 250,
    "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311,
    "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425,
    "mount": 165, "umount2": 166, "pivot_root": 155, "unshare": 272, "setns": 308, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "mount_setattr": 442,
}  # fmt: skip


def system_call_filter() -> bytes:
    """Return the classic BPF programme that answers EPERM to the refused calls, as bubblewrap loads it."""
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, JMP|JEQ|K, JMP|JGE|K, RET|K
    allow, refuse, kill = 0x7FFF0000, 0x00050001, 0x80000000  # SECCOMP_RET_ALLOW, _ERRNO|EPERM, _KILL_PROCESS
    x86_64, x32 = 0xC000003E, 0x40000000
    body = [(load, 0, 0, 4), (equal, 1, 0, x86_64), (give, 0, 0, kill), (load, 0, 0, 0), (at_least, 0, 1, x32)]
    body.append((give, 0, 0, refuse))  # the same calls by the numbers of the x32 ABI
    for number in sorted(_REFUSED.values()):
        body += [(equal, 0, 1, number), (give, 0, 0, refuse)]
    return b"".join(struct.pack("=HBBI", *each) for each in [*body, (give, 0, 0, allow)])


@functools.cache
def unavailable() -> str:
    """Return why there is no jail on this machine, or nothing where a first program ran in it."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return f"needs Linux on x86-64, found {platform.system()} on {platform.machine()}"
    for needed in ("bwrap", *(["setpriv"] if os.geteuid() == 0 else [])):
        if shutil.which(needed) is None:
            return f"`{needed}` is not installed (it is in the package {'bubblewrap' if needed == 'bwrap' else needed})"
    with tempfile.TemporaryFile() as errors:
        status, found = run(Program("ans = 1", "ans"), Limits(), errors)
        if (status, found) == ("ok", 1.0):
            return ""
        errors.seek(0)
        return f"bubblewrap does not start: {errors.read(300).decode(errors='replace').strip() or status}"


def run(program: Program, limits: Limits, errors: int | IO[bytes] = subprocess.DEVNULL) -> tuple[str, object]:
    """Run one program in a new jail -> (status, what its variable held).

    Args:
        program: Any Python at all; nothing is assumed of it.
        limits: What it may use; `seconds` are of computing, `PATIENCE` times as many may pass.
        errors: Where the jail's own messages go.
    """
    nonce = secrets.token_hex(16)
    request = {**limits._asdict(), **program._asdict(), "nonce": nonce}
    with jailed(SCRIPT, errors) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(json.dumps(request).encode())
        reply = _Reply(process.stdout.fileno(), 10 * limits.output + 1000)
        if reply.line(nonce, START_SECONDS) is None:
            return "unsupported", None  # the jail did not come to stand: nothing of the program ran
        answer = reply.line(nonce, PATIENCE * limits.seconds)
        if answer is None and not reply.ended:  # still running, or writing more than any reply has
            return ("runtime" if reply.full else "timeout"), None
        if answer is None:
            try:
                returned = process.wait(PATIENCE * limits.seconds)
            except subprocess.TimeoutExpired:  # it closed what it would reply on, and runs
                return "timeout", None
    if answer is None:
        # bubblewrap returns 128 + the signal. Only the processor time limit sends these two.
        return ("timeout", None) if returned - 128 in (signal.SIGXCPU, signal.SIGKILL) else ("runtime", None)
    try:
        found = json.loads(answer)
        status, value = str(found["status"]), found["value"]
    except (ValueError, TypeError, KeyError, RecursionError):  # not what the child writes: the program wrote it
        return "runtime", None
    return (status, value) if status in ("ok", "no_value", "syntax", "memory", "import") else ("runtime", None)


class _Reply:
    """Lines behind a nonce from a pipe, of which no more than `most` bytes are ever read."""

    def __init__(self, descriptor: int, most: int) -> None:
        self._descriptor, self._left, self._read = descriptor, most, b""
        self._readable = select.poll()  # not select(2), which knows no descriptor above 1023
        self._readable.register(descriptor, select.POLLIN)
        self.ended = False

    @property
    def full(self) -> bool:
        """Whether all that may be read was read."""
        return self._left <= 0

    def line(self, nonce: str, seconds: float) -> str | None:
        """Return the next line that begins with the nonce, without it; None at the end, at the bound or too late."""
        deadline = time.monotonic() + seconds
        while True:
            head, newline, rest = self._read.partition(b"\n")
            if newline:
                self._read = rest
                if head.startswith(nonce.encode()):
                    return head[len(nonce) :].decode(errors="replace")
                continue
            remaining = deadline - time.monotonic()
            if self.full or remaining <= 0 or not self._readable.poll(1000 * remaining):
                return None
            piece = os.read(self._descriptor, min(self._left, 65536))
            self._left -= len(piece)
            self._read += piece
            if not piece:
                self.ended = True
                return None


@contextlib.contextmanager
def jailed(script: Path, errors: int | IO[bytes] = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    """Start a jail that runs `script`, with pipes to it; kill it and all that is in it on the way out."""
    with tempfile.TemporaryFile() as calls:
        calls.write(system_call_filter())
        calls.seek(0)
        with subprocess.Popen(
            _command(script, calls.fileno()),
            env={},  # bubblewrap's own process can be read from inside
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            pass_fds=[calls.fileno()],
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _command(script: Path, calls: int) -> list[str]:
    """Return the command line of a jail; `calls` is the descriptor that holds the system call filter."""
    bwrap = shutil.which("bwrap") or "bwrap"
    seen = {"/script.py": str(script.resolve()), **_seen()}
    outer = []
    if os.geteuid() == 0:
        # Root's processes are not counted by RLIMIT_NPROC, so the jail belongs to an ordinary uid. Such a one may not
        # be able to reach what root can: it is shown it elsewhere, before the rights go.
        shown = {f"/tmp/{index}": source for index, source in enumerate(seen.values())}
        outer = [bwrap, "--unshare-pid", "--die-with-parent", "--dev-bind", "/", "/", "--tmpfs", "/tmp"]
        outer += [word for place, source in shown.items() for word in ("--ro-bind", source, place)]
        outer += ["--", shutil.which("setpriv") or "setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]
        seen = dict(zip(seen, shown, strict=True))
    flags = "--unshare-all --unshare-user --disable-userns --die-with-parent --new-session --clearenv --cap-drop ALL"
    jail = [bwrap, *flags.split(), "--hostname", "jail", "--ro-bind", "/usr", "/usr"]
    for place in ("/lib", "/lib64"):
        jail += ["--ro-bind-try", place, place]
    jail += [word for place, source in seen.items() for word in ("--ro-bind", source, place)]
    jail += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev", "--chdir", "/", "--remount-ro", "/"]
    # One thread: the limit of processes counts them too. A fixed seed of hashes: sets come in one order.
    for name, value in (("OPENBLAS_NUM_THREADS", "1"), ("OMP_NUM_THREADS", "1"), ("PYTHONHASHSEED", "0")):
        jail += ["--setenv", name, value]
    python = os.path.realpath(sys.executable)
    return [*outer, *jail, "--seccomp", str(calls), "--", python, "-s", "-S", "-P", "-B", "/script.py"]


@functools.cache
def _seen() -> dict[str, str]:
    """Return what of this machine is in the jail besides /usr and the script: place inside -> path outside."""
    seen = {}
    prefix = os.path.realpath(sys.base_prefix)
    if not prefix.startswith("/usr"):
        seen[prefix] = prefix
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            origin = Path(spec.origin)
            path = origin.parent if spec.submodule_search_locations else origin
            for found in (path, path.with_name(f"{name}.libs")):  # shared libraries that a wheel brings
                if found.exists():
                    seen[f"/packages/{found.name}"] = str(found.resolve())
    return seen
