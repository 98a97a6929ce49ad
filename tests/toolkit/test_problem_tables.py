"""Tables as spreadsheets and other programs write them: read whole, or refused with the line that is at fault."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import UserError
from toolkit.problem_files import read_rows

BOM = b"\xef\xbb\xbf"


def table(folder: Path, content: bytes, name: str = "t.csv") -> list[tuple[str, dict[str, str], str]]:
    """Return line, columns and fault of each row."""
    (folder / name).write_bytes(content)
    return [(row.place.rpartition(":")[2], row.data, row.fault) for row in read_rows(str(folder / name))]


def refusal(folder: Path, content: bytes, name: str = "t.csv") -> str:
    with pytest.raises(UserError) as raised:
        table(folder, content, name)
    return str(raised.value).removeprefix(str(folder / name))


@pytest.mark.parametrize(
    "header",
    [
        b"question,answer\n",
        b'"question","answer"\n',
        b'question,"answer"\r\n',
        BOM + b"question,answer\n",
        BOM + b'"question","answer"\n',
        BOM + b'"question","answer"\r\n',
        b"\n\nquestion,answer\n",
        b"  \nquestion,answer\n\n \t\n",
    ],
)
def test_a_header_is_read_with_a_mark_before_it_and_in_quotation_marks(tmp_path: Path, header: bytes) -> None:
    ((_, row, fault),) = table(tmp_path, header + b"Is it?,yes\n")
    assert (row, fault) == ({"question": "Is it?", "answer": "yes"}, "")


def test_tabs_part_the_columns_of_a_tsv_file_with_a_mark_and_quotation_marks(tmp_path: Path) -> None:
    content = BOM + b'"question"\t"answer"\n"Is it,\tnow?"\tyes\n'
    ((_, row, _),) = table(tmp_path, content, "t.tsv")
    assert row == {"question": "Is it,\tnow?", "answer": "yes"}


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b"a,1\nb,2\n", ["2", "3"]),
        (b'"a\nb",1\nc,2\n', ["2", "4"]),
        (b'"a\r\nb\r\n\r\nc",1\r\nd,2\r\n', ["2", "6"]),
        (b'a,1\n\n\n"b\n",2\n\nc,3', ["2", "5", "8"]),
        (b'a,"1\n"\nb,2\n', ["2", "4"]),
        (b'"a\n\nb","\n"\nb,2\n', ["2", "6"]),
    ],
)
def test_a_rows_place_is_the_line_that_it_begins_on(tmp_path: Path, body: bytes, lines: list[str]) -> None:
    assert [line for line, _, _ in table(tmp_path, b"question,answer\n" + body)] == lines


def test_what_stands_in_quotation_marks_is_kept_as_it_is(tmp_path: Path) -> None:
    ((_, row, _),) = table(tmp_path, b'question,answer\n"a\r\n""b"", c\n"," 1 "\n')
    assert row == {"question": 'a\r\n"b", c\n', "answer": " 1 "}


@pytest.mark.parametrize("cells", [b"x", b"x,1,2", b"x,1,", b",,,"])
def test_a_ragged_row_is_a_fault_of_its_line_alone(tmp_path: Path, cells: bytes) -> None:
    rows = table(tmp_path, b'question,answer\n"a\nb",1\n' + cells + b"\nc,2\n")
    count = cells.count(b",") + 1
    assert [(line, fault) for line, _, fault in rows] == [
        ("2", ""),
        ("4", f"has {count} cells, and the table 2 columns"),
        ("5", ""),
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", ": the file is empty"),
        (b"\n \n\n", ": the file is empty"),
        (BOM, ": the file is empty"),
        (b"question,answer,question\na,1,b\n", ":1: two columns have the name 'question'"),
        (b"\n\nquestion,question\na,1\n", ":3: two columns have the name 'question'"),
        (b",a,\n1,2,3\n", ":1: two columns have the name ''"),
        (b"question;answer\na;1\n", ":1: the columns are separated by semicolons, allowed are commas"),
        (BOM + b'"question";"answer"\n"a";"1"\n', ":1: "),
        (b"question\tanswer\na\t1\n", ":1: the columns are separated by tabs"),
        (b"question|answer\na|1\n", ":1: the columns are separated by `|`"),
        ("question,answer\na,1\n".encode("utf-16"), ": is UTF-16 (it begins with ff fe)"),
        (b"\xfe\xff" + "question,answer\na,1\n".encode("utf-16-be"), ": is UTF-16 (it begins with fe ff)"),
        ("question,answer\na,1\n".encode("utf-16-le"), ":1: holds a NUL byte"),
        ("question,answer\na,1\n".encode("utf-32"), ": is UTF-16"),
        (b'question,answer\n"a\nb",1\nc\0,2\n', ":4: holds a NUL byte"),
        (b'question,answer\n"a\nb",1\nc\xe9,2\n', ":4: is not UTF-8: "),
        (b'question,answer\na,1\n"b,2\nc,3\n', ":3: is no table: unexpected end of data"),
        (b'question,answer\na,1\n"b"x,2\n', ":3: is no table: "),
        (b"question,answer\ra,1\rb,2\r", ":1: is no table: new-line character seen"),
    ],
)
def test_a_table_that_is_not_understood_is_refused_by_name_and_line(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    assert refusal(tmp_path, content).startswith(reason)


def test_commas_do_not_part_the_columns_of_a_tsv_file(tmp_path: Path) -> None:
    assert refusal(tmp_path, b"question,answer\na,1\n", "t.tsv").startswith(":1: the columns are separated by commas")


@pytest.mark.parametrize("content", [b'{"a": 1, "b": 2, "a": 3}', b'{"b": {"a": 1, "a": 1}}'])
def test_a_key_that_is_there_twice_is_a_fault_of_its_row(tmp_path: Path, content: bytes) -> None:
    ((line, row, fault),) = table(tmp_path, content + b"\n", "t.jsonl")
    assert (line, row, fault) == ("1", {}, "is not JSON: key 'a' is there twice")


def test_a_mark_before_json_lines_is_none_of_the_first_row(tmp_path: Path) -> None:
    rows = table(tmp_path, BOM + b'{"a": 1}\n{"a": 2}\n', "t.jsonl")
    assert [(row, fault) for _, row, fault in rows] == [({"a": 1}, ""), ({"a": 2}, "")]


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8)
TABLES = st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=6)


@given(TABLES, st.booleans(), st.sampled_from(["\n", "\r\n"]), st.sampled_from([",", "\t"]))
def test_a_table_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]], marked: bool, end: str, delimiter: str
) -> None:
    """Every cell comes back, and every row with the line on which an editor shows its beginning."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerow(["question", "answer"])
    lines = []
    for row in cells:
        lines.append(str(text.getvalue().count("\n") + 1))
        writer.writerow(row)
    name = "t.csv" if delimiter == "," else "t.tsv"
    found = table(tmp_path_factory.mktemp("t"), (BOM if marked else b"") + text.getvalue().encode(), name)
    assert [(line, *row.values()) for line, row, _ in found] == [
        (line, *row) for line, row in zip(lines, cells, strict=True)
    ]
