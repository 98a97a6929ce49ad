"""Completions as no teacher should write them, each a function of its number: the n-th is the same in every run."""

from __future__ import annotations

import random
from collections.abc import Callable

TEMPLATES = [
    "{question}",
    "{{ 7 * 7 }}",
    "{{ question.__class__.__mro__ }}",
    "{% for x in range(10**9) %}x{% endfor %}",
    "{QUESTION} {CORRECT} {RIGHT} {WRONG}",
    "{right.answer} {0} {} %s %(question)s $question ${oc.env:HOME} {{",
    "{# comment #} {% raw %} {% endraw %} }} {",
    "\\g<0> \\1 \\\\ &amp; <script>alert(1)</script> `rm -rf` ../../etc/passwd",
]

# What the patterns that read completions look for; a thousand of each in a row is what makes a bad pattern slow.
UNITS = [
    *"([{<)]}>*_`\"'$#=.,:;!?-+/^~%&|\\ \n\t\r\0\u2028\u00a0\ufeff\ud800\udc00\u0301\u202eaAé1½",
    *("\\boxed{", "\\boxed{}", "\\fbox {", "{{", "}}", "\\frac{1}{2}", "\\text{", "\\(", "$$", "**a", "a**"),
    *("Therefore, the answer is ", "Therefore, the answer is 7.", "the answer is: ", "answer:\n", "<answer>"),
    *("#### ", "A: ", "\nA: ", "Q: ", "\nQ", "\n Q", "Q1: x\n", "A1: y\n", "Q1: x\nA1: y\n", "1. ", "- ", "* x\n"),
    *("<think>", "</think>", "<think></think>", "<|im_end|>", "</s>", "<|", "<<", "<<1=1>>", "</answer>", "\n\n"),
    *("is ", "is 7 ", "not ", "1,", "1,000", "1/", "1 1/2 ", "1e9", "= 7", "7 and ", "(A) ", "(A", "A or ", "yes "),
    *("so ", "thus, ", "the ", "my final ", ". A", "Mr. ", "no, ", "10²", "a ", "😀", "日本"),
    *("Right Response: ", "\n\nWrong Response:", "H: The correct answer is 7.\n", "Question Description: "),
]


def unit_run(rng: random.Random) -> str:
    length = rng.choice([3, 30, 300, 300, 3000]) if rng.random() < 0.99 else 60_000
    unit = rng.choice(UNITS)
    return unit * max(1, length // len(unit))


def mixed_units(rng: random.Random) -> str:
    return "".join(rng.choices(UNITS, k=rng.randint(1, 200)))


def any_characters(rng: random.Random) -> str:
    tops = [0x7F, 0xFF, 0x2FFF, 0xFFFF, 0x10FFFF]
    return "".join(chr(rng.randint(0, rng.choice(tops))) for _ in range(rng.randint(1, 200)))


def nested(rng: random.Random) -> str:
    left, right = rng.choice(
        [("(", ")"), ("{", "}"), ("\\boxed{", "}"), ("<think>", "</think>"), ("**", "**"), ("[", "]")]
    )
    depth = rng.choice([2, 50, 1500])
    return left * depth + "7" + right * (depth - rng.choice([0, 0, 1]))


def template(rng: random.Random) -> str:
    return " ".join(rng.choices(TEMPLATES, k=rng.randint(1, 3)))


def echo(rng: random.Random) -> str:
    asked = "Q: What is p?\nA: Let's think step by step."
    return rng.choice(
        [asked, f"{asked}\nTherefore, the answer is 24.\n\n{asked}", f"Right Response: x\n\nWrong Response: {asked}"]
    )


def thinking(rng: random.Random) -> str:
    return rng.choice(
        ["<think>", "</think>", "<think>\n\n</think>", "<think>hm. The answer is 9.</think>", " <think> x"]
    )


def words(rng: random.Random) -> str:
    some = [
        "3",
        "4",
        "7",
        "and",
        "makes",
        "so",
        "it",
        "is",
        "the",
        "total",
        "=",
        "apples,",
        "because",
        "twice",
        "as",
        "many",
    ]
    return " ".join(rng.choices(some, k=rng.randint(3, 60))) + "."


def clauses(rng: random.Random) -> str:
    return " ".join(f"Therefore, the answer is {n}." for n in range(rng.choice([2, 20, 600])))


PIECES: list[Callable[[random.Random], str]] = [any_characters, mixed_units, nested, echo, thinking, clauses]
PIECES += [unit_run, template] * 2 + [words] * 3


def fuzzed(number: int, gold: str = "7") -> str:
    """Return the completion of that number; about half end in an answer clause, right or wrong."""
    rng = random.Random(f"fuzzed {number}")
    separator = rng.choice(["", " ", "\n", "\n\n"])
    text = separator.join(rng.choice(PIECES)(rng) for _ in range(rng.randint(1, 4)))
    ending = rng.choice(["", "", "", gold, gold, "8", "(B)", "yes", template(rng), "\\boxed{7}"])
    return text + separator + (f"Therefore, the answer is {ending}." if ending else "")


FIELDS = ["choices", "message", "content", "refusal", "reasoning", "reasoning_content", "usage", "text", "logprobs"]
FIELDS += ["prompt_tokens", "completion_tokens", "prompt_tokens_details", "cached_tokens", "finish_reason", "model"]


def garbage_structure(number: int, text: str, depth: int = 0) -> object:
    """Return what might stand where a server's JSON should hold an object, a list, a number or that text."""
    rng = random.Random(f"structure {number} {depth}")
    kind = rng.randrange(9 if depth < 6 else 6)
    if kind < 6:
        return [None, text, -1, 1e308, True, 2**80][kind]
    if kind == 6:
        return [garbage_structure(number * 3 + n, text, depth + 1) for n in range(rng.randint(0, 3))]
    return {key: garbage_structure(number * 5 + n, text, depth + 1) for n, key in enumerate(rng.sample(FIELDS, 8))}
