"""Ready-made chains and programs that lie in files of their own, brought to the problems they belong to."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dataset_builders.chains import Chain, parse, ready_made, unreadable, well_formed
from dataset_builders.cot_pot_settings import WrittenMix, WrittenTexts
from toolkit.alignment import spelt, words
from toolkit.errors import UserError
from toolkit.on_disk import DiskList
from toolkit.problem import Problem
from toolkit.problem_files import read_rows
from toolkit.problem_rows import digest
from toolkit.program_answers import program_in
from toolkit.views import fill


class Written:
    """The texts of some files, found by problem. The texts lie on disk; a few bytes of each row are in memory.

    Args:
        written: The files.
        max_characters: Longest text that is read.

    Raises:
        UserError: A file is missing or faulty, or no row of it has the columns that are named.
    """

    def __init__(self, written: WrittenMix, max_characters: int) -> None:
        self._max_characters = max_characters
        self._cots = [_Texts(file) for file in written.cot]
        self._programs = [_Texts(file) for file in written.pot]

    def cots(self, problem: Problem) -> list[Chain]:
        """Return the chains of thought of a problem, in the order of files and rows."""
        found = []
        for model, text in _of(self._cots, problem):
            rationale, answer, fault = parse(text, problem, "stop", self._max_characters)
            provenance = ready_made("written", model, text)
            found.append(Chain(rationale, answer, fault, "written", provenance=provenance))
        return found

    def programs(self, problem: Problem) -> list[Chain]:
        """Return the programs of a problem, in the order of files and rows; they have no answers before they run."""
        found = []
        for model, text in _of(self._programs, problem):
            fault = unreadable(text, "stop", self._max_characters)
            program = None if fault else program_in(text)
            found.append(Chain(program, None, fault, "written", provenance=ready_made("written", model, text)))
        return found


class _Texts:
    """The texts of one file, by what they have in common with their problems."""

    def __init__(self, file: WrittenTexts) -> None:
        self.file = file
        self._texts: DiskList[str] = DiskList()
        self._places: dict[str, list[int]] = {}
        missing = ""
        for row in read_rows(file.path, file.records):
            if row.fault:
                raise UserError(f"{row.place}: {row.fault}")
            try:
                text = fill(file.text, row.data)
                key = _key(fill(file.key, row.data), file.by)
            except UserError as error:
                missing = missing or f"{row.place}: {error}"
                continue
            self._places.setdefault(key, []).append(len(self._texts))
            self._texts.append(well_formed(text))
        if not self._texts:
            raise UserError(f"{file.path}: no row has the columns of {file.key!r} and {file.text!r}; {missing}")

    def of(self, problem: Problem) -> Sequence[str]:
        key = _key(problem.id if self.file.by == "id" else problem.question, self.file.by)
        return [self._texts[place] for place in self._places.get(key, ())]


def _key(text: str, by: str) -> str:
    """Return what is compared: of questions, which sources punctuate as they like, a digest of the words."""
    if by == "id":
        return text
    text = text.casefold()
    return digest(*(word for word in spelt(text, words(text)) if re.match(r"\w", word)))[:16]


def _of(files: Sequence[_Texts], problem: Problem) -> list[tuple[str, str]]:
    """Return (model, text) of every text of a problem."""
    return [(texts.file.model, text) for texts in files for text in texts.of(problem)]
