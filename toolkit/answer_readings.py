"""Reading an answer: what a short text says as an option letter, as yes or no, or as words.

With `number_reading` the second half of `toolkit.answers`, which finds the answer in a completion first. Each reading
is exact and gives None where the text says nothing of its kind, or says several things: no containment, no prefix, no
guess.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from toolkit.answer_marks import plain, tidy

_LETTER = re.compile(
    r"""(?:(?:the[ ])?(?:correct[ ])?(?:option|choice|letter|answer)[ :]{1,2}
      | (?:(?:la|die|a)[ ])?(?:opción|option|opção|opzione)[ ] | la[ ](?=[A-H]\b) | 选项 | 選項 | 選択肢 )?
    (?: [(\[][ ]?(?P<bracketed>[A-Za-z])[ ]?[)\]]
      | (?P<bare>[A-Za-z]) (?= [ ]?\Z | [).:,;\]] | [ ]-[ ] | [ ]?— | 选项 | 選項 | です | [ ]\( | /[A-Z]\b
                             | [ ](?:is|because|since|as|for|which|and|or|nor)\b)
    ) [).:\]]?""",
    re.VERBOSE | re.IGNORECASE,
)
_INITIALS = re.compile(r"[A-Za-z]\. ?[A-Za-z]\.")
_SECOND_LETTER = re.compile(
    r"[ ,]*(?:\band\b|\bor\b|\bnor\b|[,&/+]) ?(?i:option )?"
    r"(?:[(\[] ?[A-Za-z] ?[)\]]|[A-Z](?=\Z| ?[.,;)]| (?:and|or)\b))"
)
_JOINED = re.compile(
    r"[ ,;]*\(?(?:and|or|nor|as well as)\b|[ ,;:)(\]]*[(\[]?(?-i:(?!I\b|A [a-z])[A-Z])[)\]]?(?=\Z|[ .,;:)\]])",
    re.IGNORECASE,
)
_ADVERB = re.compile(r"\A(?:therefore|thus|definitely|clearly|indeed|certainly),?[ ]", re.IGNORECASE)
_TAKEN_BACK = re.compile(
    r"""\A[).:\]]*[ ,]*(?:is|was|are|:|-)[ ](?:wrong|incorrect|false|not[ ](?:correct|right|true))\b
    | \b(?:wait[,.!]|actually\b|also[ ](?:correct|right|true)|or[ ]maybe\b|maybe\b) | ではな | ではあり | 아[니닙]""",
    re.IGNORECASE | re.VERBOSE,
)
_ANYWHERE = re.compile(r"(?<!\w)[(\[] ?([A-Za-z]) ?[)\]]|\b[Oo]ption ([A-Z])\b|(?<!\S)([A-Z])\)")
_SETTLED = re.compile(
    r"""(?:\b(?:is|be|choose|pick|select|say|option|choice|letter|answer|go[ ]with|going[ ]with)|'s)
    (?:[ ](?:therefore|thus|definitely|clearly|indeed|certainly))? [ ]? :? [ ]
    ["'*$]{0,3} ([A-Z]) ["'*$]{0,3} (?= \Z | [.,;:!] | [ ]?[—(] | [ ]-[ ])""",
    re.VERBOSE,
)
_DENIAL = re.compile(
    r"\b(?:not|neither|none|nor|cannot|except|incorrect|wrong|both|all|unlikely|other than|opposite|different|less|but"
    r"|no|nicht|kein\w*|außer|sauf|pas|menos|не)\b|n't\b|[不非]|ではな|ではあり|아니",
    re.IGNORECASE,
)


def letter(answer: str, choices: Sequence[str] = (), *, announced: bool = True) -> str | None:
    """The option letter that the answer settles on, upper case; None for none, for several and for "not (D)".

    "A dog" is no letter. With `choices` an option given by its whole text is its letter. An announced answer may be a
    sentence that ends with one: "I think it is C".
    """
    answer = _ADVERB.sub(
        "", answer.strip("${}<>「」『』 ")
    )  # "Answer: $B" follows a prompt that said "Answer: $LETTER"
    match = _LETTER.match(answer)
    if match and not _INITIALS.match(answer):
        settled = (match["bracketed"] or match["bare"]).upper()
        return settled if _stands(settled, answer[match.end() :], choices) else None
    texts = [words(choice) for choice in choices]
    if texts.count(words(answer)) == 1:
        return chr(ord("A") + texts.index(words(answer)))
    found = _ANYWHERE.findall(answer) + (_SETTLED.findall(answer) if announced else [])
    letters = {"".join(each).upper() for each in found}
    if len(letters) != 1 or _DENIAL.search(answer):
        return None
    settled = letters.pop()
    return settled if _stands(settled, re.sub(r"[(\[] ?[A-Za-z] ?[)\]]", "", answer), choices) else None


def _stands(letter: str, behind: str, choices: Sequence[str]) -> bool:
    """Whether a letter at the start of an answer is all that it settles on: not denied, corrected or one of several."""
    place, said = ord(letter) - ord("A"), words(re.sub(r"^[\s).:\]-]+", "", behind))
    options = [words(text) for text in choices]
    if place < len(options) and said == options[place]:
        return True  # whatever words that option has: "and shout", "wait for"
    if _SECOND_LETTER.match(behind) or _JOINED.match(behind) or _TAKEN_BACK.search(behind):
        return False
    return not choices or (place < len(options) and said not in options)


TRUTH = re.compile(r"\b(yes|no|true|false|valid|invalid)\b", re.IGNORECASE)
_OPPOSITE = {"true": "false", "false": "true", "valid": "invalid", "invalid": "valid"}
_SAME = {"true": "yes", "false": "no"}


def truth(answer: str, *, at_edge: bool = False) -> str | None:
    """The yes, no, true, false, valid or invalid that the answer states, as written; None for none or for several.

    The first word of the answer counts whatever follows ("No, it is not true"), elsewhere the only one, undenied.
    With `at_edge` that one must also be the last word.
    """
    found = list(TRUTH.finditer(answer))
    if not found or answer.rstrip("\"'*_) ").endswith("?") or _UNSETTLED.search(answer):
        return None
    first, rest = found[0], answer[found[0].end() :]
    if first[1].lower() == "no" and not _NO_BY_ITSELF.match(rest):
        return None  # "no idea": it belongs to the word behind it
    meanings = {same_truth(match[1]) for match in found}
    if not re.search(r"\w", answer[: first.start()]):
        opposed = _OPPOSITE.get(first[1].lower()) in (match[1].lower() for match in found)
        corrected = len(meanings) > 1 and _CORRECTED.match(rest)
        return None if opposed or corrected or _AND_ANOTHER.match(rest) else first[1]
    at_its_edge = not at_edge or not re.search(r"\w", answer[found[-1].end() :])
    return first[1] if len(meanings) == 1 and at_its_edge and not _HEDGE.search(answer) else None


_AND_ANOTHER = re.compile(r"[\s,/]*(?:or|and|nor)\b|/", re.IGNORECASE)
_CORRECTED = re.compile(r"[ ]\w*[ ]?\(?(?:yes|no)\b|[.?!]+[ ]", re.IGNORECASE)  # "Yes (A) No (B)", "yes... no"
_NO_BY_ITSELF = re.compile(
    r"[^\w\s]|\s*\Z|\s+[^\w\s]|\s+(?:it|he|she|they|we|you|i|this|that|these|those|the|there|a|an|because|since|as|not)\b",
    re.IGNORECASE,
)
_UNSETTLED = re.compile(r"\b(?:wait|actually|if|only if|unless)\b", re.IGNORECASE)
_HEDGE = re.compile(
    r"\b(?:not|neither|cannot|never|hardly|far from|sometimes|partly|partially|half|mistaken|doubt\w*|unlikely|fails?"
    r"|nobody|hard to)\b|n't\b",
    re.IGNORECASE,
)


def same_truth(word: str) -> str:
    """The word that stands for all words of one meaning: yes for true, no for false, in lower case."""
    return _SAME.get(word.lower(), word.lower())


def words(answer: str) -> str:
    """A text answer in the form that is compared: case, spacing, commas and closing marks do not count."""
    text = re.sub(r",(?=\s)", " ", unicodedata.normalize("NFC", tidy(plain(answer))).casefold())
    text = " ".join(text.split())
    if re.fullmatch(r"[][(){}<>\s,\"']+", text) and re.search(r"[][(){}<>]", text):
        text = re.sub(r"[\s,\"']", "", text)  # Dyck words: `] ] >`, `]]>` and `"]", "]", ">"` are one answer
    return text.rstrip(" .,;:") or text
