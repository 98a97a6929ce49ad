"""What a run may write to standard error where it is no terminal: the toolkit's lines, none of a library."""

from __future__ import annotations

import re

KNOWN = [
    r"asking \S+  [\d,]+(/[\d,]+)?  .*\d+/\d+ in flight",
    r"\w+  [\d,]+/[\d,]+ steps(  (eval_)?loss \S+)*",
]
# `accelerate launch` writes this before it starts anything of ours.
LAUNCHER = re.compile(
    r"The following values were not passed to `accelerate launch`.*?`accelerate config`\.\n", re.DOTALL
)


def foreign_lines(stderr: str) -> list[str]:
    """Return the lines that are not the toolkit's."""
    lines = LAUNCHER.sub("", stderr).splitlines()
    return [line for line in lines if not any(re.fullmatch(known, line) for known in KNOWN)]
