"""Answer clauses in other languages than English: German, Spanish, French, Portuguese, Italian, Russian, Chinese,
Japanese and Korean. They are looked for in texts that have no English clause; what they say is read as everything is.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_EUROPEAN = {
    "de": r"""(?:(?:daher|deshalb|also|somit|folglich|damit)[ ,]{1,3})?
      (?: (?:die|meine)[ ] (?:(?:richtige|korrekte|endgültige|finale|beste)[ ])? (?:antwort|lösung|option)[ ]
          (?:lautet|ist|wäre) (?:[ ](?:daher|also|somit|folglich))?
        | (?:ist|lautet)[ ](?:die|meine)[ ](?:(?:richtige|korrekte|endgültige|finale)[ ])?(?:antwort|lösung|option)
        | das[ ](?:end)?ergebnis[ ](?:lautet|ist|beträgt)
        | (?<!\w)(?:endgültige[ ]|richtige[ ])?(?:antwort|lösung)(?=[ *]{0,4}:) )""",
    "es": r"""(?:(?:por[ ](?:lo[ ])?tanto|así|entonces|por[ ]ende)[ ,]{1,3})?
      (?: (?:la|mi)[ ](?:respuesta|solución|opción)[ ](?:(?:final|correcta)[ ])?
          (?:es|sería)(?:[ ]igual[ ]a)?
        | el[ ]resultado[ ](?:final[ ])?es | (?<!\w)respuesta(?:[ ](?:final|correcta))?(?=[ *]{0,4}:) )""",
    "fr": r"""(?:(?:donc|ainsi|par[ ]conséquent|alors)[ ,]{1,3})?
      (?: (?:la|ma)[ ](?:bonne[ ])?(?:réponse|solution|option)[ ](?:(?:finale|correcte|exacte)[ ])?
          (?:est|serait)(?:[ ]donc)?
        | le[ ]résultat[ ](?:final[ ])?est | (?<!\w)réponse(?:[ ](?:finale|correcte))?(?=[ *]{0,4}:) )""",
    "pt": r"""(?:(?:portanto|assim|logo|então)[ ,]{1,3})?
      (?: a[ ](?:minha[ ])?(?:resposta|solução|opção)[ ](?:(?:final|correta)[ ])?é
        | (?<!\w)resposta(?:[ ](?:final|correta))?(?=[ *]{0,4}:) )""",
    "it": r"""(?:(?:quindi|pertanto|dunque)[ ,]{1,3})?
      (?: la[ ](?:mia[ ])?(?:risposta|soluzione|opzione)[ ](?:(?:finale|corretta|giusta)[ ])?è
        | (?<!\w)risposta(?:[ ](?:finale|corretta))?(?=[ *]{0,4}:) )""",
    "ru": r"""(?:(?:поэтому|следовательно|таким[ ]образом|значит)[ ,]{1,3})?
      (?<!\w)(?:(?:окончательный|правильный|верный)[ ])?ответ(?:[ ](?:равен|будет)|(?=[ *]{0,4}(?::|—|-[ ])))""",
}
_EAST_ASIAN = {
    "zh": r"""(?:(?:因此|所以|故|综上所述?|綜上所述?|那么|則|则)[ ,]{0,2})? (?:(?:最终|最終|最后|正确|正確)的?)?
      (?: 答案(?:选|選)?(?:应该|應該)?(?:就?是|为|為|选|選|(?=[ *]{0,4}:)) | (?:选项|選項)(?:是|为|為)
        | (?<![不没沒])(?:故|应|應|所以|因此)?[选選](?:择|擇)?(?=[ ]?:?[ ]?[(A-H](?![A-Za-z])) | \[答案\] )""",
    "ja": r"""(?:(?:したがって|よって|ゆえに|以上より|つまり)[ 、,]{0,2})? (?:(?:最終的な|正しい|最終)の?)?
      (?: (?:答え|解答|正解|回答|選択肢)(?:は|(?=[ *]{0,4}:)) | \[(?:答え|解答|正解)\] )""",
    "ko": r"""(?:(?:따라서|그러므로|그래서)[ ,]{0,2})? (?:(?:최종|정확한|올바른)[ ]?)?
      (?:정답|답|답변)(?:은|이|(?=[ *]{0,4}:))""",
}
# What may stand between the words and the answer: a colon, emphasis, "as follows" is left to the finder.
_BEHIND = r"[*_]{0,3}[ ]?(?::|—|-(?=[ ]))?[*_]{0,3}[ ]?"
_CLAUSES = {
    language: re.compile(rf"(?:{pattern}){_BEHIND}", re.IGNORECASE | re.VERBOSE)
    for language, pattern in (_EUROPEAN | _EAST_ASIAN).items()
}
_COPULA = re.compile(
    r"\s*(?:です|でした|である|であります|となります|になります|だ|입니다|이다|이에요|예요|뿐입니다)[.!]?\Z"
)


class ForeignClause(NamedTuple):
    """Where a clause stands: its words begin at `start`, its answer at `end`."""

    start: int
    end: int
    decimal_comma: bool  # 3,5 for 3.5

    @staticmethod
    def bare(answer: str) -> str:
        """Return the answer without the verb that Japanese and Korean put behind it."""
        return _COPULA.sub("", answer)


def find(text: str, searched: int) -> ForeignClause | None:
    """Return the last clause of `text`, in plain characters, from the offset `searched` on; None where none is."""
    last: ForeignClause | None = None
    for language, clause in _CLAUSES.items():
        for match in clause.finditer(text, searched):
            if last is None or match.end() > last.end:
                last = ForeignClause(match.start(), match.end(), language in _EUROPEAN)
    return last
