"""Cards that people or programs may leave on a hub and that cannot be merged with, each with a word of the refusal."""

from __future__ import annotations

_BODY = b"---\n# Words\n"
DAMAGED: dict[str, tuple[bytes, str]] = {
    "a number as a key": (b"---\nlicense: mit\n2024: notes\n" + _BODY, "a key in line 3 that is no text: '2024'"),
    "a float as a key": (b"---\n1.5: notes\n" + _BODY, "a key in line 2 that is no text: '1.5'"),
    "a date as a key": (b"---\n2024-01-02: notes\n" + _BODY, "a key in line 2 that is no text: '2024-01-02'"),
    "null as a key": (b"---\n~: notes\n" + _BODY, "a key in line 2 that is no text: '~'"),
    "a truth value as a key": (b"---\n\non: notes\n" + _BODY, "a key in line 3 that is no text: 'on'"),
    "a list as a key": (b"---\n? [a, b]\n: notes\n" + _BODY, "unhashable key"),
    "a mapping as a key": (b"---\n{a: b}: notes\n" + _BODY, "unhashable key"),
    "a key twice": (b"---\ntags: [a]\nlicense: mit\ntags: [b]\n" + _BODY, "the key 'tags' twice, again in line 4"),
    "a list": (b"---\n- license\n- mit\n" + _BODY, "must be a mapping, found list"),
    "a text": (b"---\nlicense\n" + _BODY, "must be a mapping, found str"),
    "a set": (b"---\n!!set {a, b}\n" + _BODY, "must be a mapping, found set"),
    "no YAML": (b"---\nlicense: [mit\n" + _BODY, "is not YAML"),
    "a tab": (b"---\nlicense:\n\t- mit\n" + _BODY, "is not YAML"),
    "a day that there is not": (b"---\nwhen: 2024-02-30\n" + _BODY, "is not YAML: day is out of range"),
    "an object of Python": (b"---\nx: !!python/object:os.system y\n" + _BODY, "is not YAML"),
    "an alias": (b"---\na: &x [1]\nb: *x\n" + _BODY, "*x is an alias"),
    "an alias of itself": (b"---\na: &x [*x]\n" + _BODY, "*x is an alias"),
    "aliases of aliases": (
        b"---\na0: &a0 [x, x]\n"
        + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 40))
        + _BODY,
        "*a0 is an alias",
    ),
    "deep nesting": (b"---\na: " + b"[" * 20_000 + b"\n" + _BODY, "is not YAML"),
    "two documents": (b"---\na: b\n...\nc: d\n" + _BODY, "is not YAML"),
    "a control character": (b"---\na: \x1b[2J\n" + _BODY, "is not YAML"),
    "never closed": (b"---\nlicense: mit\n# Words\n", "is not closed"),
    "NUL in the front matter": (b"---\nlicense: mit\0\n" + _BODY, "a NUL byte in line 2"),
    "NUL in the text": (b"---\nlicense: mit\n" + _BODY + b"\n\0\n", "a NUL byte in line 6"),
    "Latin-1": (b"---\nlicense: mit\n" + _BODY + b"caf\xe9\n", "is not UTF-8: invalid continuation byte in line 5"),
    "UTF-16": ("---\nlicense: mit\n---\n# Words\n".encode("utf-16"), "is not UTF-8: invalid start byte in line 1"),
    "5 MB": (b"---\nlicense: mit\n" + _BODY + b"word " * 1_000_001, "is larger than 5,000,000 bytes"),
    "front matter of 2 MB": (b"---\nnote: " + b"x" * 2_000_000 + b"\n" + _BODY, "has 2,000,007 characters, allowed"),
}  # fmt: skip
"""By what it is: the card, and what is said about it."""
READABLE: dict[str, bytes] = {
    "a mark before it": b"\xef\xbb\xbf---\nlicense: mit\nmine: kept\n" + _BODY,
    "line ends of Windows": b"---\r\nlicense: mit\r\nmine: kept\r\n---\r\n# Words\r\n",
    "both": b"\xef\xbb\xbf---\r\nlicense: mit\r\nmine: kept\r\n---\r\n# Words\r\n",
    "blank lines before it": b"\n \n---\nmine: kept\n" + _BODY,
    "blanks behind the marks": b"--- \nmine: kept\n---\t\n# Words\n",
    "a comment": b"---\n# a comment\nmine: kept\n" + _BODY,
    "a key in quotation marks": b"---\n'2024': notes\nmine: kept\n" + _BODY,
    "a number as an inner key": b"---\nmine: kept\nyears: {2024: notes}\n" + _BODY,
    "names that Python knows": b"---\nself: a\nkwargs: b\nignore_metadata_errors: true\nmine: kept\n" + _BODY,
}
"""Those that can be merged with: they have the key `mine`, whose value is `kept`, and the line `# Words`."""
