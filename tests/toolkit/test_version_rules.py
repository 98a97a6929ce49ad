from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from tests.records import saved_student
from toolkit import hub
from toolkit.errors import UserError
from toolkit.version_rules import Change, Content, Level, change, check_rise, interface, is_version, refuse, version

datasets.disable_progress_bars()
CARD = "# Title\n"


def dataset(root: Path, card: str = CARD, **columns: list[Any]) -> Content:
    (root / "default").mkdir(parents=True)
    datasets.Dataset.from_dict(columns).to_parquet(root / "default" / "train-00000-of-00001.parquet")
    (root / "README.md").write_text(card)
    return hub.content(root)


OLD: dict[str, list[Any]] = {"question": ["a", "b"], "chain": [{"text": "x", "spans": [{"start": 1}]}] * 2}
NESTED = [{"text": "x", "spans": [{"start": 1, "end": 2}]}] * 2


@pytest.mark.parametrize(
    ("columns", "level", "what"),
    [
        ({"chain": OLD["chain"]}, "major", "column question of default/train is gone"),
        ({**OLD, "question": [1, 2]}, "major", "column question of default/train is int64 and was string"),
        ({**OLD, "chain": [{"text": "x"}] * 2}, "major", "column chain.spans[].start of default/train is gone"),
        ({**OLD, "extra": [1, 2]}, "minor", "column extra of default/train is new"),
        ({**OLD, "chain": NESTED}, "minor", "column chain.spans[].end of default/train is new"),
        ({**OLD, "question": ["a", "c"]}, "minor", "default/train-00000-of-00001.parquet has other content"),
    ],
)
def test_what_a_change_of_a_dataset_asks_for(
    tmp_path: Path, columns: dict[str, list[Any]], level: Level, what: str
) -> None:
    before, after = dataset(tmp_path / "old", **OLD), dataset(tmp_path / "new", **columns)
    assert change(before, after) == Change(level, what)


@pytest.mark.parametrize(
    ("file", "is_told"),
    [
        (".eval_results/edit.yaml", True),
        ("training/imitate.jsonl", True),
        ("lengths.png", False),
        ("recipe.yaml", False),
        ("environment.txt", False),
    ],
)
def test_what_goes_with_a_card_is_a_patch_at_most(tmp_path: Path, file: str, is_told: bool) -> None:
    before = dataset(tmp_path / "old", **OLD)
    dataset(tmp_path / "new", **OLD)
    (tmp_path / "new" / file).parent.mkdir(exist_ok=True)
    (tmp_path / "new" / file).write_text("x")
    expected = Change("patch", f"{file} is another one") if is_told else None
    assert change(before, hub.content(tmp_path / "new")) == expected


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        (CARD, None),
        (CARD + "<!-- generated:rebuild -->\nanywhere\n<!-- /generated:rebuild -->", None),
        (CARD + "<!-- generated:links -->\na commit\n<!-- /generated:links -->", None),
        ("---\nb: 2\na: 1\n---\n" + CARD, Change("patch", "the card is another one")),
        ("# Another title\n", Change("patch", "the card is another one")),
    ],
)
def test_how_it_was_made_and_where_else_it_lies_is_no_change(
    tmp_path: Path, card: str, expected: Change | None
) -> None:
    assert change(dataset(tmp_path / "old", **OLD), dataset(tmp_path / "new", card, **OLD)) == expected


def test_the_order_of_front_matter_is_no_change() -> None:
    one, other = (Content({}, {}, f"---\n{data}---\n{CARD}") for data in ("a: 1\nb: 2\n", "b: 2\na: 1\n"))
    assert change(one, other) is None


def test_what_a_change_of_a_student_asks_for(tmp_path: Path) -> None:
    folder = Path(saved_student(tmp_path / "student"))
    before = hub.content(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert change(before, hub.content(folder)) == Change("minor", "model.safetensors has other content")

    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"transformers_version": "6", "dtype": "bfloat16"}))
    assert change(before, hub.content(folder)) == Change("minor", "config.json has other content")

    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 9}))
    found = change(before, hub.content(folder))
    assert found == Change("major", f"config.json: num_hidden_layers is 9 and was {config['num_hidden_layers']}")


def test_another_vocabulary_is_another_major_version() -> None:
    def read(vocab: dict[str, int], **more: Any) -> dict[str, str]:
        text = json.dumps({"model": {"vocab": vocab, "merges": []}, "added_tokens": [], **more})
        return interface(["tokenizer.json"], lambda name: io.BytesIO(text.encode()))

    one = Content({}, read({"a": 0, "b": 1}), "")
    other = Content({}, read({"a": 0, "c": 1}), "")
    cut_shorter = Content({}, read({"a": 0, "b": 1}, truncation={"max_length": 9}), "")

    found = change(one, other)
    assert found is not None
    assert (found.level, found.what.partition(" is ")[0]) == ("major", "the vocabulary")
    assert change(one, cut_shorter) is None


def vocabulary(tokenizer: Any) -> str:
    return interface(["tokenizer.json"], lambda name: io.BytesIO(json.dumps(tokenizer).encode()))["the vocabulary"]


def test_a_vocabulary_is_its_tokens_its_merges_and_those_that_were_added() -> None:
    base: dict[str, Any] = {
        "model": {"vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]], "dropout": None},
        "added_tokens": [{"id": 2, "content": "<|end|>", "special": True}],
    }
    model, added = base["model"], base["added_tokens"][0]
    others = [
        base | {"model": model | {"vocab": {"a": 0, "b": 2}}},
        base | {"model": model | {"merges": []}},
        base | {"added_tokens": [added | {"id": 3}]},
        base | {"added_tokens": [added | {"content": "<|stop|>"}]},
        {"model": None, "added_tokens": None},
    ]
    assert len({vocabulary(tokenizer) for tokenizer in (base, *others)}) == 6
    assert vocabulary(base | {"model": model | {"vocab": {"b": 1, "a": 0}, "dropout": 0.1}}) == vocabulary(base)
    assert vocabulary(base | {"added_tokens": [added | {"special": False}]}) == vocabulary(base)
    assert vocabulary({}) == vocabulary({"model": {}, "added_tokens": []})


def test_what_users_rely_on_of_a_student_is_its_architecture() -> None:
    files: dict[str, dict[str, Any]] = {
        "config.json": {"model_type": "llama", "rope": {"b": 1, "a": 2}, "dtype": "float32", "use_cache": True},
        "adapter_config.json": {"r": 8, "lora_dropout": 0.1, "revision": None, "inference_mode": True},
        "generation_config.json": {"top_p": 1.0},
        "notes.json": {"a": 1},
    }
    names = ["_name_or_path", "torch_dtype", "transformers_version", "peft_version", "auto_mapping"]
    files["config.json"] |= dict.fromkeys(names, "x")
    read = interface(files, lambda name: io.BytesIO(json.dumps(files[name]).encode()))
    assert read == {
        "adapter_config.json: r": "8",
        "config.json: model_type": '"llama"',
        "config.json: rope": '{"a": 2, "b": 1}',
    }


def test_columns_are_read_of_one_file_of_each_table_lists_of_every_make_included() -> None:
    kinds = {
        "a": pa.list_(pa.large_list(pa.int64())),
        "b": pa.list_(pa.struct([("x", pa.string()), ("y", pa.struct([("z", pa.bool_())]))]), 2),
    }
    schemas = {
        "default/train-00000-of-00002.parquet": pa.schema(kinds),
        "default/train-00001-of-00002.parquet": pa.schema({"other": pa.int8()}),
        "sft/train-00000-of-00001.parquet": pa.schema({"prompt": pa.string()}),
        "README.md": pa.schema({}),
    }
    opened = []

    def read(name: str) -> io.BytesIO:
        opened.append(name)
        file = io.BytesIO()
        parquet.write_table(schemas[name].empty_table(), file)
        return io.BytesIO(file.getvalue())

    assert interface(reversed(list(schemas)), read) == {
        "column a[][] of default/train": "int64",
        "column b[].x of default/train": "string",
        "column b[].y.z of default/train": "bool",
        "column prompt of sft/train": "string",
    }
    assert opened == ["default/train-00000-of-00002.parquet", "sft/train-00000-of-00001.parquet"]


def files(**digests: str) -> Content:
    return Content({name.replace("_", "."): frozenset(told.split()) for name, told in digests.items()}, {}, CARD)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (files(a_bin="1 2"), files(a_bin="2 3"), None),  # one digest in common is enough
        (files(a_bin="1"), files(a_bin="2"), Change("minor", "a.bin has other content")),
        (files(), files(a_bin="1"), Change("minor", "a.bin has other content")),
        (files(a_bin="1"), files(), Change("minor", "a.bin has other content")),
        (files(z_bin="1", b_jsonl="1"), files(z_bin="2", b_jsonl="2"), Change("minor", "z.bin has other content")),
        (files(c_jsonl="1", b_jsonl="1"), files(c_jsonl="2", b_jsonl="2"), Change("patch", "b.jsonl is another one")),
        (files(run_json="1"), files(run_json="2"), Change("patch", "run.json is another one")),
        *(
            (files(**{f"a_{kind}": "1"}), files(**{f"a_{kind}": "2"}), None)
            for kind in ("jpg", "jpeg", "gif", "svg", "webp", "png")
        ),
    ],
)
def test_which_files_count(before: Content, after: Content, expected: Change | None) -> None:
    assert change(before, after) == expected


def test_long_kinds_are_shown_in_forty_characters() -> None:
    before, after = Content({}, {"it": "x" * 40}, ""), Content({}, {"it": "y" * 41}, "")
    assert change(before, after) == Change("major", f"it is {'y' * 37}... and was {'x' * 40}")


def test_what_is_gone_weighs_more_than_what_is_new_and_that_more_than_the_files() -> None:
    before = Content({"a.bin": frozenset("1")}, {"b": "int"}, "")
    after = Content({"a.bin": frozenset("2")}, {"c": "int"}, "")
    assert change(before, after) == Change("major", "b is gone")
    assert change(Content(before.files, {}, ""), after) == Change("minor", "c is new")


def test_a_refusal_says_what_changed_and_which_versions_are_free() -> None:
    with pytest.raises(UserError) as refused:
        check_rise("dataset 'x'", "k", "1.0.1", ["1.0.0"], lambda _: Change("minor", "a column is new"))
    assert str(refused.value) == (
        "dataset 'x': 1.0.1 is a patch version after 1.0.0, but a column is new, for which the minor version "
        "must rise. The next free minor version is 1.1.0, the next major one 2.0.0: set k=1.1.0"
    )
    with pytest.raises(UserError) as refused:
        refuse("dataset 'x'", "k", "v1.0.0", ["v1.0.0", "v1.0.1"], Change("patch", "the card is another one"))
    assert str(refused.value) == (
        "dataset 'x' has a revision v1.0.0 already, and the card is another one; a published revision never changes. "
        "The next free patch version is v1.0.2, the next minor one v1.1.0, the next major one v2.0.0: set k=v1.0.2"
    )


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("v1.2.3", (1, 2, 3)), ("10.0.12", (10, 0, 12)), ("v1.2", None), ("v1.2.3-rc", None), ("x1.2.3", None)],
)
def test_a_version_is_three_numbers_with_or_without_a_v(name: str, numbers: tuple[int, int, int] | None) -> None:
    assert is_version(name) == (numbers is not None)
    if numbers:
        assert version(name) == numbers


@pytest.mark.parametrize(
    ("level", "revision", "known", "allowed"),
    [
        ("patch", "v1.0.1", ["v1.0.0"], None),
        ("minor", "v1.1.0", ["v1.0.0"], None),
        ("minor", "v2.0.0", ["v1.0.0"], None),
        ("major", "v1.0.0", [], None),
        ("major", "v1.0.0", ["v1.1.0"], None),
        ("minor", "v1.0.1", ["v1.0.0"], ["v1.1.0", "v2.0.0"]),
        ("minor", "v1.0.2", ["v1.0.1", "v1.1.0", "v2.0.0"], ["v1.2.0", "v3.0.0"]),
        ("major", "v1.10.0", ["v1.9.0", "v1.2.0"], ["v2.0.0"]),
    ],
)
def test_a_rise_smaller_than_the_change_is_refused_with_the_versions_that_would_do(
    level: Level, revision: str, known: list[str], allowed: list[str] | None
) -> None:
    def check() -> None:
        check_rise("dataset 'x'", "dataset.revision", revision, known, lambda _: Change(level, "it changed"))

    if allowed is None:
        check()
        return
    with pytest.raises(UserError, match=f"the {level} version must rise") as error:
        check()
    said = str(error.value).partition("must rise")[2]
    assert list(dict.fromkeys(re.findall(r"v\d+\.\d+\.\d+", said))) == allowed
    assert said.endswith(f"set dataset.revision={allowed[0]}")


def test_it_is_compared_with_the_newest_lower_version_alone() -> None:
    asked = []
    check_rise("x", "k", "v1.3.0", ["v1.2.0", "v1.10.0", "v0.9.0"], lambda name: asked.append(name) or None)
    assert asked == ["v1.2.0"]


VERSIONS = st.lists(st.tuples(*[st.integers(0, 3)] * 3).map(lambda v: "v{}.{}.{}".format(*v)), min_size=1, unique=True)


@given(known=VERSIONS, level=st.sampled_from(["major", "minor", "patch"]), data=st.data())
def test_every_version_that_is_offered_is_free_and_far_enough(
    known: list[str], level: Level, data: st.DataObject
) -> None:
    taken = data.draw(st.sampled_from(known))
    with pytest.raises(UserError) as error:
        refuse("x", "k", taken, known, Change(level, "it changed"))
    offered = set(re.findall(r"v\d+\.\d+\.\d+", str(error.value).partition("The next free")[2]))
    for name in offered:
        assert name not in known
        assert version(name) > version(taken)
        check_rise("x", "k", name, [taken], lambda _: Change(level, "it changed"))
