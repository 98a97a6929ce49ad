"""Mining key steps: this project's path against a plain Python dynamic programme and against difflib.

    python benchmarks/key_steps.py [--data dual_cots/pairs.jsonl.gz] [--json]

All three are timed on the same pairs in one run, in turns; the slow ones on a sample of them. Without `--data` the
pairs are drawn: lengths and share of changed tokens as real dual chains have them (docs/methods/edit.md).
"""

from __future__ import annotations

import argparse
import difflib
import gzip
import json
import random
import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from toolkit.alignment import key_steps

PAIRS = 5207  # EDIT's training set
Tokens = Sequence[object]
Flags = tuple[list[bool], list[bool]]


def plain_python(right: Tokens, wrong: Tokens) -> Flags:
    """Unit-cost Levenshtein by the textbook table, traced back from its corner."""
    rows = [list(range(len(right) + 1))]
    for i, x in enumerate(wrong, 1):
        above, row = rows[-1], [i]
        for j, y in enumerate(right, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (x != y)))
        rows.append(row)
    key_right, key_wrong = [False] * len(right), [False] * len(wrong)
    i, j = len(wrong), len(right)
    while i or j:
        if i and rows[i][j] == rows[i - 1][j] + 1:
            key_wrong[i - 1], i = True, i - 1
        elif j and rows[i][j] == rows[i][j - 1] + 1:
            key_right[j - 1], j = True, j - 1
        else:
            key_right[j - 1] = key_wrong[i - 1] = wrong[i - 1] != right[j - 1]
            i, j = i - 1, j - 1
    return key_right, key_wrong


def by_difflib(right: Tokens, wrong: Tokens) -> Flags:
    """What difflib's matching blocks leave over; not a minimum edit script."""
    key_right, key_wrong = [True] * len(right), [True] * len(wrong)
    for a, b, size in difflib.SequenceMatcher(None, wrong, right, autojunk=False).get_matching_blocks():
        key_wrong[a : a + size] = [False] * size
        key_right[b : b + size] = [False] * size
    return key_right, key_wrong


def drawn_pairs(n: int, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """Draw pairs: log-normal lengths with median 330 tokens, about 15 % of the tokens changed in short runs."""
    rng = random.Random(seed)
    pairs = []
    for _ in range(n):
        wrong = [rng.randrange(32000) for _ in range(min(1024, int(rng.lognormvariate(5.8, 0.5))))]
        right: list[int] = []
        for token in wrong:
            draw = rng.random()
            if draw < 0.10:
                right.append(rng.randrange(32000))
            elif draw < 0.125:
                right += [token, rng.randrange(32000)]
            elif draw > 0.15:  # the rest is left out
                right.append(token)
        pairs.append((right, wrong))
    return pairs


def real_pairs(path: Path, n: int) -> list[tuple[list[str], list[str]]]:
    """Read real dual chains, digits apart and words whole, and repeat them until there are n."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    split = re.compile(r"\d|[^\W\d]+|[^\w\s]").findall
    pairs = [(split(row["right"]["cot"]), split(row["wrong"]["cot"])) for row in rows]
    return [pairs[i % len(pairs)] for i in range(n)]


def seconds(run: Callable[[Tokens, Tokens], Flags], pairs: Sequence[tuple[Tokens, Tokens]]) -> float:
    began = time.perf_counter()
    for right, wrong in pairs:
        run(right, wrong)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="JSON Lines of real pairs, gzipped")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    args = parser.parse_args()
    pairs: Sequence[tuple[Tokens, Tokens]] = real_pairs(args.data, PAIRS) if args.data else drawn_pairs(PAIRS)
    lengths = [len(chain) for pair in pairs for chain in pair]
    whole = min(seconds(key_steps, pairs) for _ in range(3))
    # In turns on the same sample, so that a slow moment of the machine hits all of them.
    python_ratios, difflib_ratios = [], []
    for turn in range(5):
        sample = pairs[turn * 100 : turn * 100 + 20]
        ours = min(seconds(key_steps, sample) for _ in range(3))
        python_ratios.append(seconds(plain_python, sample) / ours)
        difflib_ratios.append(seconds(by_difflib, sample) / ours)
    same = all(
        sum(map(max, *_gaps(key_steps(*pair)))) == sum(map(max, *_gaps(plain_python(*pair)))) for pair in pairs[:20]
    )
    figures = {
        "pairs": len(pairs),
        "seconds": round(whole, 3),
        "ratio_python": round(statistics.median(python_ratios), 1),
        "ratio_difflib": round(statistics.median(difflib_ratios), 1),
    }
    source = "real pairs" if args.data else "drawn pairs"
    print(f"{len(pairs)} {source}, chains of {statistics.mean(lengths):.0f} tokens on average, at most {max(lengths)}")
    print(f"{'mining all pairs, seconds':<44}{figures['seconds']:>10}")
    print(f"{'plain Python programme / ours, same pairs':<44}{figures['ratio_python']:>10}")
    print(f"{'difflib / ours, same pairs':<44}{figures['ratio_difflib']:>10}")
    print(f"{'same distance as the plain programme, 20 pairs':<44}{'yes' if same else 'NO':>9}")
    if args.json:
        print(json.dumps(figures))


def _gaps(flags: Flags) -> tuple[list[int], list[int]]:
    """Return, between kept tokens, how many right and how many wrong tokens are key."""
    sides = []
    for side in flags:
        gaps = [0]
        for flag in side:
            if flag:
                gaps[-1] += 1
            else:
                gaps.append(0)
        sides.append(gaps)
    return sides[0], sides[1]


if __name__ == "__main__":
    main()
