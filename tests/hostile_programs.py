"""Programs that try to get out, to take all there is, or to pass for something else; used by test_program_probes.py.

Each is harmless should it succeed: what it reads, writes, signals or calls was put there by the test for the purpose.
A reach probe names where it goes by variables that the test assigns in front of it: FILE (a secret in it), FOLDER
(where FILE is), OUTSIDE (a path to make), SPARE (a file to harm), VICTIM and CALLER (process ids), PORT, SOCKET,
ABSTRACT (listeners), NAME (an environment variable with the secret), HOST, HELD (a descriptor of FILE that the caller
has open).
"""

from __future__ import annotations

LIBC = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"

# The evidence is `ans`: the secret itself, or True where something was got that should not be had. What leaves a trace
# outside (a file, a connection, a signal) is looked for there.
REACH = {
    # 1 and variants: files
    "read a file": "ans = open(FILE).read()",
    "read a file by its descriptor": "import os\nans = os.read(os.open(FILE, os.O_RDONLY), 999).decode()",
    "read a file with pathlib": "import pathlib\nans = pathlib.Path(FILE).read_text()",
    "read a file with io": "import io\nans = io.FileIO(FILE).read().decode()",
    "read a file with linecache": "import linecache\nans = ''.join(linecache.getlines(FILE))",
    "read a file with libc": LIBC + "b = ctypes.create_string_buffer(999)\n"
    "libc.read(libc.open(FILE.encode(), 0), b, 999)\nans = b.value.decode()",
    "read a file through /proc/self/root": "ans = open('/proc/self/root' + FILE).read()",
    "read a file through the root of another process": "ans = open(f'/proc/{VICTIM}/root{FILE}').read()",
    "run a file as a module": "import runpy\nans = runpy.run_path(FILE)['secret']",
    "import a file": "import sys\nsys.path.insert(0, FOLDER)\nimport planted\nans = planted.secret",
    "list a folder": "import os\nans = ' '.join(os.listdir(FOLDER))",
    "find a file by a pattern": "import glob\nans = ' '.join(glob.glob(FOLDER + '/*'))",
    "read through the classes of an empty tuple": "import os\nfor c in ().__class__.__base__.__subclasses__():\n"
    "    if c.__name__ == '_wrap_close':\n        ans = c.__init__.__globals__['__builtins__']['open'](FILE).read()",
    "read what the caller has open": "import os\nans = os.pread(HELD, 999, 0).decode()",
    "map a file": "import mmap, os\nans = mmap.mmap(os.open(FILE, 0), 0, prot=mmap.PROT_READ)[:].decode()",
    # 2: secrets of the caller
    "read the environment": "import os\nans = os.environ[NAME]",
    "read the environment with posix": "import posix\nans = posix.environ[NAME.encode()].decode()",
    "read the environment with libc": LIBC + "libc.getenv.restype = ctypes.c_char_p\n"
    "ans = libc.getenv(NAME.encode()).decode()",
    "read the environment of this process in /proc": "ans = open('/proc/self/environ').read()",
    "read the environment of the caller": "ans = open(f'/proc/{CALLER}/environ').read()",
    "read the environment of the parent": "import os\nans = open(f'/proc/{os.getppid()}/environ').read()",
    "read the environment of every process": "import os\nans = ''\nfor p in os.listdir('/proc'):\n    try:\n"
    "        text = open(f'/proc/{p}/environ').read()\n        ans += text if NAME in text else ''\n"
    "    except Exception:\n        pass\nans = ans[:3000]",
    "read the environment with a format string": "import os\ndef f():\n    pass\n"
    "ans = ('{0.__globals__[os].environ[' + NAME + ']}').format(f)",
    "read the name of the machine": "import os\nans = os.uname().nodename == HOST",
    # 3 and 5: processes
    "start a program": "import subprocess\nans = subprocess.run(['/usr/bin/env', 'true']).returncode == 0",
    "start a shell": "import os\nos.system('echo out > ' + OUTSIDE)",
    "spawn a program": "import os\nans = os.waitpid(os.posix_spawn('/usr/bin/env', ['env', 'true'], {}), 0)[1] == 0",
    "become a shell": "import os\nos.execv('/bin/sh', ['sh', '-c', 'echo out > ' + OUTSIDE])",
    "fork": "import os\np = os.fork()\nif p == 0:\n    os._exit(0)\nos.waitpid(p, 0)\nans = True",
    "leave a process behind": "import os\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
    "        open(OUTSIDE, 'w').close()\n    os._exit(0)\nos.wait()",
    "vfork with libc": LIBC + "p = libc.syscall(57)\nif p == 0:\n    libc._exit(0)\nans = p > 0",
    "start a thread": "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()\nans = True",
    # 4: network
    "connect": "import socket\nsocket.create_connection(('127.0.0.1', PORT), 2).close()",
    "connect with libc": LIBC + "import struct\ns = libc.socket(2, 1, 0)\n"
    "libc.connect(s, struct.pack('=HHI8x', 2, (PORT >> 8) | (PORT & 255) << 8, 0x0100007F), 16)",
    "fetch a page": "import urllib.request\ntry:\n    urllib.request.urlopen(f'http://127.0.0.1:{PORT}', timeout=0.5)\n"
    "except OSError:\n    pass",
    "connect by path": "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect(SOCKET)",
    "connect by an abstract name": "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('\\0' + ABSTRACT)",
    "listen": "import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 0))\ns.listen()\nans = True",
    # 7: writing
    "write a file": "open(OUTSIDE, 'w').write('out')",
    "make a folder": "import os\nos.mkdir(OUTSIDE)",
    "make a link": "import os\nos.symlink(FILE, OUTSIDE)",
    "write a file with libc": LIBC + "libc.creat(OUTSIDE.encode(), 0o600)",
    "write a database": "import sqlite3\nc = sqlite3.connect(OUTSIDE)\nc.execute('create table t (a)')\nc.commit()",
    "write a log": "import logging\nlogging.FileHandler(OUTSIDE)",
    "delete a file": "import os\nos.remove(SPARE)",
    "rename a file": "import os\nos.rename(SPARE, OUTSIDE)",
    "empty a file": "import os\nos.truncate(SPARE, 0)",
    "change the rights of a file": "import os\nos.chmod(SPARE, 0o777)",
    "write a temporary file": "import tempfile\ntempfile.TemporaryFile()\nans = True",
    "write to shared memory": "import os\np = f'/dev/shm/probe-{CALLER}'\nopen(p, 'w').write('x')\n"
    "os.remove(p)\nans = True",
    "write through the limits of another process": "open(f'/proc/{VICTIM}/oom_score_adj', 'w').write('500')",
    # 8: signals and other reach into processes
    "signal a process": "import os\nos.kill(VICTIM, 15)",
    "signal a group": "import os\nos.killpg(VICTIM, 15)",
    "signal a process with libc": LIBC + "libc.kill(VICTIM, 15)",
    "signal the caller": "import os\nos.kill(CALLER, 0)\nans = True",
    "slow a process": "import os\nos.setpriority(os.PRIO_PROCESS, VICTIM, 15)",
    "limit a process": "import resource\nresource.prlimit(VICTIM, resource.RLIMIT_CORE, (0, 0))\nans = True",
    # 6 and 14: the kernel
    "mount": LIBC + "libc.unshare(0x20000) and libc.unshare(0x10020000)\nlibc.mount(None, b'/', None, 0x44000, None)\n"
    "ans = libc.mount(b'none', FOLDER.encode(), b'tmpfs', 0, None) == 0",
    "make a user namespace": LIBC + "ans = libc.unshare(0x10000000) == 0",
    "make a network namespace": LIBC + "ans = libc.unshare(0x50000000) == 0",
    "take System V memory": LIBC + "i = libc.shmget(0, 4096, 0o1600)\nans = i >= 0\nlibc.shmctl(i, 0, None)",
    "take a System V queue": LIBC + "i = libc.msgget(0, 0o1600)\nans = i >= 0\nlibc.msgctl(i, 0, None)",
    "take a memory file": "import os\nos.close(os.memfd_create('x'))\nans = True",
}

# These want too much, or break what runs them; each with what it may end as.
BREAK = {
    "loop": ("while True:\n    pass", "timeout"),
    "loop that catches everything": (
        "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
        "timeout",
    ),
    "loop behind finally": ("try:\n    while True:\n        pass\nfinally:\n    while True:\n        pass", "timeout"),
    "power tower": ("ans = 9**9**9", "memory timeout"),
    "growing list": ("x = []\nwhile True:\n    x.append([0] * 10000)", "memory timeout"),
    "growing list that catches everything": (
        "x = []\nwhile True:\n    try:\n        x.append([0] * 10000)\n    except MemoryError:\n        pass",
        "memory timeout",
    ),
    "long string": ("x = 'a' * 10**9\nans = 1", "memory"),
    "long string by format": ("ans = len(f'{1:1000000000}')", "memory"),
    "wide list": ("ans = len([0] * 10**9)", "memory"),
    "print without end": ("while True:\n    print('a' * 1000)", "runtime timeout"),
    "print without end, caught": (
        "while True:\n    try:\n        print('a' * 1000)\n    except BaseException:\n        pass",
        "runtime timeout",
    ),
    "endless recursion": ("def f():\n    return f()\nans = f()", "runtime"),
    "recursion without a bound": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef f():\n    return f()\nans = f()",
        "runtime memory timeout",
    ),
    "sleep": ("import time\ntime.sleep(60)\nans = 1", "ok"),
    "wait": ("import select\nselect.select([], [], [], 60)\nans = 1", "timeout import"),
    "deep expression by eval": ("ans = eval('(' * 5000 + '1' + ')' * 5000)", "runtime syntax memory"),
    "catastrophic pattern": ("import re\nans = bool(re.match('(a|a)*$', 'a' * 40 + 'b'))", "timeout runtime ok"),
    "large factorial": ("import math\nmath.factorial(10**7)\nans = 1", "timeout memory"),
    "endless sum": ("ans = sum(range(10**15))", "timeout"),
    "end the process": ("import os\nos._exit(0)", "runtime"),
    "exit": ("raise SystemExit(0)", "runtime"),
    "abort": ("import os\nos.abort()", "runtime"),
    "read address 0": ("import ctypes\nctypes.string_at(0)", "runtime import"),
    "kill all": ("import os\nos.kill(-1, 9)\nans = 1", "runtime timeout"),
    "ignore the time limit": (
        "import signal\nfor s in range(1, 64):\n    try:\n        signal.signal(s, signal.SIG_IGN)\n"
        "    except Exception:\n        pass\nwhile True:\n    pass",
        "timeout import",
    ),
    "raise the limits": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nx = bytearray(10**9)\nans = 1",
        "runtime import",
    ),
    "fill pipes": (
        "import os\np = []\nwhile True:\n    p.append(os.pipe())\n    os.set_blocking(p[-1][1], False)\n"
        "    os.write(p[-1][1], b'x' * 10**6)",
        "runtime",
    ),
    # 13: replies
    "forge a reply": ('import os\nos.write(1, b\'{"status": "ok", "value": 99}\\n\')\nos._exit(0)', "runtime"),
    "forge a reply on every descriptor": (
        'import os\nfor d in range(64):\n    try:\n        os.write(d, b\'\\n{"status": "ok", "value": 99}\\n\')\n'
        "    except OSError:\n        pass\nos._exit(0)",
        "runtime",
    ),
    "flood every descriptor": (
        "import os\nwhile True:\n    for d in range(3, 64):\n        try:\n            os.write(d, b'x' * 60000)\n"
        "        except OSError:\n            pass",
        "timeout runtime",
    ),
    "close every descriptor": ("import os\nos.closerange(0, 64)\nans = 1", "runtime"),
    "close every descriptor and run on": ("import os\nos.closerange(0, 64)\nwhile True:\n    pass", "timeout"),
    "stop itself": ("import os\nos.kill(os.getpid(), 19)\nans = 1", "timeout"),
    "reply with a deep value": (
        "import sys\nm = sys.modules['__main__']\nm.json.dumps = lambda x: '[' * 30000\nans = 1",
        "runtime",
    ),
    "reply with an unknown status": (
        "import sys\nm = sys.modules['__main__']\n"
        'm.json.dumps = lambda x: \'{"status": "best", "value": 1}\'\nans = 1',
        "runtime",
    ),
    # values
    "a value that holds itself": ("ans = []\nans.append(ans)", "no_value"),
    "a value of 2**60 parts": ("ans = 1\nfor i in range(60):\n    ans = [ans, ans]", "no_value"),
    "a value of 2**60 parts, past the look at it": (
        "ans = 1\nfor i in range(60):\n    ans = [ans, ans]\ndef _value_of(found):\n    return found",
        "no_value",
    ),
    "a deep value": ("ans = []\nfor i in range(100000):\n    ans = [ans]", "no_value"),
    "a long value": ("ans = 'x' * 100000", "no_value"),
    "a list of a million": ("ans = [0] * 1000000", "no_value"),
    "a number of 5000 digits": ("ans = 10**5000", "no_value"),
    "not a number": ("ans = float('nan')", "no_value"),
    "infinite": ("ans = float('inf')", "no_value"),
    "a function": ("def ans():\n    pass", "no_value"),
    "a class that counts as everything": (
        "class A:\n    def __getattr__(self, name):\n        return A()\n    def __float__(self):\n"
        "        while True:\n            pass\nans = A()",
        "no_value runtime timeout",
    ),
    "a string that lies about its length": (
        "class A(str):\n    def __len__(self):\n        return 1\n    def __str__(self):\n        return 'x' * 10**6\n"
        "ans = A('abc')",
        "ok no_value runtime unsupported",
    ),
}
