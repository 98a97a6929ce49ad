"""Reading recipes: YAML with places, `extends`, overrides, interpolation, and files that are not recipes."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.recipe_faults import Fault
from toolkit.recipe_files import read_recipe


def read(folder: Path, text: str | bytes, *overrides: str, **others: str) -> tuple[Any, list[Fault]]:
    """Write `text` as recipe.yaml, `others` beside it, and read it; the plain data and the faults."""
    for name, content in others.items():
        (folder / f"{name}.yaml").write_text(content)
    path = folder / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    tree, faults = read_recipe(str(path), overrides)
    return (tree.plain() if tree else None), faults


def data_of(folder: Path, text: str, *overrides: str, **others: str) -> Any:
    data, faults = read(folder, text, *overrides, **others)
    assert not faults, faults
    return data


def told(folder: Path, text: str | bytes, *overrides: str, **others: str) -> list[str]:
    """Return the faults without the folder's name."""
    return [str(fault).replace(f"{folder}/", "") for fault in read(folder, text, *overrides, **others)[1]]


# --- values


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-5", 1e-5),
        ("5.0e-6", 5e-6),
        (".5", 0.5),
        ("1_000", 1000),
        ("-3", -3),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("", None),
        ("1:30", "1:30"),
        ("2024-05-29", "2024-05-29"),
        ("v1.0.0", "v1.0.0"),
        ("'1e-5'", "1e-5"),
        ("2405.19737", 2405.19737),
    ],
)
def test_a_plain_value_is_what_a_person_means_by_it(tmp_path: Path, written: str, value: Any) -> None:
    found = data_of(tmp_path, f"a: {written}")["a"]
    assert found == value
    assert type(found) is type(value)


def test_every_value_knows_the_line_of_its_key_or_item(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("a:\n  b: 1\n  c:\n    - x\n    - y: 2\n")
    tree, _ = read_recipe(str(path))
    assert tree is not None
    lines = {
        where: tree.nearest_to(where)[0].place.line for where in [("a",), ("a", "b"), ("a", "c", 0), ("a", "c", 1, "y")]
    }
    assert lines == {("a",): 1, ("a", "b"): 2, ("a", "c", 0): 4, ("a", "c", 1, "y"): 5}


def test_an_alias_repeats_a_section(tmp_path: Path) -> None:
    assert data_of(tmp_path, "a: &t {x: 1}\nb: *t")["b"] == {"x": 1}


# --- files that are not recipes


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "recipe.yaml:1: found nothing (null), allowed a mapping of a recipe's sections"),
        ("# nothing\n", "recipe.yaml:1: found nothing (null), allowed a mapping of a recipe's sections"),
        ("- a\n- b\n", "recipe.yaml:1: found a list, allowed a mapping of a recipe's sections"),
        ("hello", "recipe.yaml:1: found 'hello', allowed a mapping of a recipe's sections"),
        ("a: 1\nb:\n  c: 2\n  c: 3\n", "recipe.yaml:4 b.c: found twice, it stands in line 3 already"),
        ("a: 1\nb: caf\xe9\n".encode("latin-1"), "recipe.yaml:2: found the byte 0xe9, allowed UTF-8 text"),
        ("a: 1\nb: x\x00y\n", "recipe.yaml:2: found the character '\\x00', which no YAML file may hold"),
        ("a: 1\nb: !!python/object:os.system x\n", "recipe.yaml:2 b: found the tag 'python/object:os.system', "),
        ("a: !foo {b: 1}\n", "recipe.yaml:1 a: found the tag '!foo', allowed is !replace before a section"),
        ('a: 1\nb: "\\0"\n', "recipe.yaml:2 b: found a NUL character, allowed text"),
        ('"\\0": 1\n', "recipe.yaml:1: found a NUL character, allowed text"),
        ('a: 1\nb: "\\ud800"\n', "recipe.yaml:2 b: found half of a surrogate pair, allowed text"),
        ("? [a, b]\n: 1\n", "recipe.yaml:1: found a list or mapping as a key, allowed text"),
        ("a: &x\n  b: *x\n", "recipe.yaml:2 a.b: found an alias of the section it stands in"),
        ("a: [1\nb: 2\n", "recipe.yaml:2: this is not YAML: "),
        ("a:\n\tb: 1\n", "recipe.yaml:2: this is not YAML: "),
        ("a: 1\n---\nb: 2\n", "recipe.yaml:2: this is not YAML: "),
        ("a: " + "[" * 5000, "recipe.yaml:1: found sections nested too deeply to be read"),
    ],
)
def test_a_file_that_is_no_recipe_is_one_fault_with_its_line(tmp_path: Path, content: str | bytes, fault: str) -> None:
    (found,) = told(tmp_path, content)
    assert found.startswith(fault)


def test_a_tab_as_indentation_is_named(tmp_path: Path) -> None:
    assert told(tmp_path, "a:\n\tb: 1\n")[0].endswith("(a tab cannot indent, use spaces)")


def test_aliases_of_aliases_do_not_explode(tmp_path: Path) -> None:
    layers = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 9))
    (found,) = told(tmp_path, "l0: &l0 [x]\n" + layers)
    assert found.endswith("found more than 10000 values")


def test_a_missing_file_suggests_the_nearest_name_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "edit.yaml").write_text("a: 1")
    tree, (fault,) = read_recipe(str(tmp_path / "edti.yaml"))
    assert tree is None
    assert str(fault) == f"{tmp_path}/edti.yaml: there is no such file (did you mean 'edit.yaml'?)"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    _, (fault,) = read_recipe(str(tmp_path / "nowhere" / "edit.yaml"))
    assert fault.text == f"there is no such file, nor a folder '{tmp_path}/nowhere'"


def test_a_folder_in_place_of_a_recipe_lists_its_recipes(tmp_path: Path) -> None:
    (tmp_path / "edit.yaml").write_text("a: 1")
    _, (fault,) = read_recipe(str(tmp_path))
    assert fault.text == f"found a folder, allowed the file of a recipe; it holds {tmp_path}/edit.yaml"


@given(text=st.text(alphabet="ab:-[]{}&*!|>'\"#% \n\t\\${}.=1e\x00\ud800é", max_size=40))
def test_no_text_whatever_makes_reading_fail_otherwise_than_by_faults(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    tree, faults = read_recipe(str(path), [f"a.b={text}", text])
    assert tree is not None or faults


# --- extends


def test_a_file_is_laid_over_the_one_it_extends(tmp_path: Path) -> None:
    base = "a: {x: 1, y: 2}\nb: [1, 2]\n"
    data = data_of(tmp_path, "extends: base.yaml\na: {y: 3, z: 4}\nb: [5]\n", base=base)
    assert data == {"a": {"x": 1, "y": 3, "z": 4}, "b": [5]}


OLD, NEW = "gradient_checkpointing", "activation_checkpointing"


@pytest.mark.parametrize(
    ("own", "overrides"),
    [
        (f"stages: {{a: {{training: {{{OLD}: true}}}}}}\n", []),
        ("", [f"stages.a.training.{OLD}=true"]),
        (f"stages: {{a: {{training: {{{OLD}: false}}}}}}\n", [f"stages.0.training.{NEW}=true"]),
    ],
    ids=["file", "override", "override of the file"],
)
def test_a_deprecated_name_and_its_current_one_are_one_key(own: str, overrides: list[str], tmp_path: Path) -> None:
    """transformers reads the old name only where the new one is not set: a layer that sets it would be ignored."""
    base = f"stages: [{{name: a, training: {{{NEW}: false, seed: 3}}}}]\n"
    data = data_of(tmp_path, f"extends: base.yaml\n{own}", *overrides, base=base)
    assert data["stages"] == [{"name": "a", "training": {NEW: True, "seed": 3}}]


@pytest.mark.parametrize("fields", [f"{OLD}: true, {NEW}: true", f"{NEW}: true, {OLD}: true"])
def test_both_names_of_a_field_side_by_side_are_a_fault(fields: str, tmp_path: Path) -> None:
    (found,) = told(tmp_path, f"stages:\n  - training: {{{fields}}}\n")
    assert f"stages.0.training.{OLD}: found {OLD!r} and {NEW!r}, allowed one of them" in found


def test_a_name_is_deprecated_in_training_alone(tmp_path: Path) -> None:
    assert data_of(tmp_path, f"student: {{{OLD}: true}}\n") == {"student": {OLD: True}}


BASE = "publish: {repo_id: ours, revision: v1.2.0, license: mit}\n"


@pytest.mark.parametrize(
    ("own", "overrides", "expected"),
    [
        ("", [], None),
        ("publish: {repo_id: mine}\n", [], None),
        ("publish: {license: llama2}\n", [], "llama2"),
        ("", ["publish.license=apache-2.0"], "apache-2.0"),
        ("publish: {license: llama2}\n", ["publish.revision=v2.0.0"], "llama2"),
    ],
)
def test_a_licence_is_stated_by_a_recipe_itself_and_not_inherited(
    own: str, overrides: list[str], expected: str | None, tmp_path: Path
) -> None:
    (tmp_path / "middle.yaml").write_text(f"extends: base.yaml\n{BASE.replace('mit', 'other')}")
    published = data_of(tmp_path, f"extends: middle.yaml\n{own}", *overrides, base=BASE)["publish"]
    assert published.get("license") == expected
    assert published["revision"].startswith("v")  # all the rest is


def test_extends_is_relative_to_the_file_it_stands_in_and_may_chain(tmp_path: Path) -> None:
    (tmp_path / "paper").mkdir()
    (tmp_path / "base.yaml").write_text("a: 1\nb: 1\nc: 1\n")
    (tmp_path / "middle.yaml").write_text("extends: base.yaml\nb: 2\nc: 2\n")
    (tmp_path / "paper" / "top.yaml").write_text("extends: ../middle.yaml\nc: 3\n")
    tree, faults = read_recipe(str(tmp_path / "paper" / "top.yaml"))
    assert tree is not None
    assert not faults
    assert tree.plain() == {"a": 1, "b": 2, "c": 3}
    places = [str(tree.value[key].place) for key in "abc"]
    assert places == [f"{tmp_path}/base.yaml:1", f"{tmp_path}/middle.yaml:2", f"{tmp_path}/paper/top.yaml:2"]


def test_files_that_extend_each_other_are_a_fault(tmp_path: Path) -> None:
    (found,) = told(tmp_path, "extends: other.yaml\n", other="# here\nextends: recipe.yaml\n")
    expected = "found a circle, recipe.yaml -> other.yaml -> recipe.yaml; a recipe cannot extend itself"
    assert found == f"other.yaml:2 extends: {expected}"


def test_what_extends_names_must_be_there(tmp_path: Path) -> None:
    (found,) = told(tmp_path, "a: 1\nextends: bsae.yaml\n", base="a: 1")
    assert found == "recipe.yaml:2 extends: 'bsae.yaml' there is no such file (did you mean 'base.yaml'?)"


def test_extends_must_be_a_path(tmp_path: Path) -> None:
    assert told(tmp_path, "extends: [a.yaml]\n") == [
        "recipe.yaml:1 extends: found a list, allowed the path of a recipe"
    ]


STAGES = "stages:\n  - {name: first, lr: 1}\n  - {name: second, lr: 2}\n"


@pytest.mark.parametrize("key", ["second", "1"])
def test_a_mapping_over_a_list_changes_an_item_by_name_or_position(tmp_path: Path, key: str) -> None:
    data = data_of(tmp_path, f"extends: base.yaml\nstages:\n  {key}: {{lr: 5}}\n", base=STAGES)
    assert data["stages"] == [{"name": "first", "lr": 1}, {"name": "second", "lr": 5}]


def test_a_mapping_over_a_list_must_name_what_is_there(tmp_path: Path) -> None:
    found = told(tmp_path, "extends: base.yaml\nstages:\n  secnd: {lr: 5}\n  2: {lr: 1}\n", base=STAGES)
    allowed = "allowed the names first, second or a position from 0 to 1"
    assert found == [
        f"recipe.yaml:3 stages.secnd: found 'secnd', {allowed} (did you mean 'second'?)",
        f"recipe.yaml:4 stages.2: found '2', {allowed}",
    ]


def test_replace_keeps_nothing_of_what_was_there(tmp_path: Path) -> None:
    assert data_of(tmp_path, "extends: base.yaml\na: !replace {z: 3}\n", base="a: {x: 1, y: 2}") == {"a": {"z": 3}}


# --- alternatives

MADE = "student: {from_config: {model_type: llama, hidden_size: 8}, tokenizer: {vocab_size: 300}, prompt_format: plain}"
LOADED = "student: {model_name_or_path: some/model, model_revision: abc, use_peft: true}"


@pytest.mark.parametrize("how", ["file", "override"])
def test_a_model_to_load_drops_the_inherited_configuration_and_its_tokenizer(tmp_path: Path, how: str) -> None:
    if how == "file":
        data = data_of(tmp_path, "extends: base.yaml\nstudent: {model_name_or_path: some/model}", base=MADE)
    else:
        data = data_of(tmp_path, MADE, "student.model_name_or_path=some/model")
    assert data["student"] == {"model_name_or_path": "some/model", "prompt_format": "plain"}


def test_a_configuration_drops_the_inherited_model(tmp_path: Path) -> None:
    data = data_of(tmp_path, LOADED, "student.from_config.model_type=llama")
    assert data["student"] == {"use_peft": True, "from_config": {"model_type": "llama"}}


def test_another_model_drops_the_revision_of_the_old_one(tmp_path: Path) -> None:
    data = data_of(tmp_path, LOADED, "student.model_name_or_path=other/model")
    assert data["student"] == {"model_name_or_path": "other/model", "use_peft": True}


def test_the_last_of_several_overrides_chooses_the_student(tmp_path: Path) -> None:
    data = data_of(tmp_path, MADE, "student.model_name_or_path=a/b", "student.from_config={model_type: gpt2}")
    assert data["student"] == {"prompt_format": "plain", "from_config": {"model_type": "gpt2"}}


@pytest.mark.parametrize(
    ("base", "override", "expected"),
    [
        ("teacher: {kind: procedural, error_rate: 0.2}", "teacher.kind=openai", {"teacher": {"kind": "openai"}}),
        ("teacher: {kind: openai, model: a}", "teacher.kind=openai", {"teacher": {"kind": "openai", "model": "a"}}),
        ("problems: {source: procedural, n: 5}", "problems.source=jsonl", {"problems": {"source": "jsonl"}}),
        ("sets: {a: {source: procedural, n: 5}}", "sets.a.split=test", {"sets": {"a": {"split": "test"}}}),
        ("sets: {a: {split: test}}", "sets.a={source: jsonl}", {"sets": {"a": {"source": "jsonl"}}}),
        (
            "from_config: {model_type: llama, mlp_bias: no}",
            "from_config.model_type=gpt2",
            {"from_config": {"model_type": "gpt2"}},
        ),
        (
            "dataset: {builder: a, repo_id: r, config: {n: 1}}",
            "dataset.builder=b",
            {"dataset": {"builder": "b", "repo_id": "r"}},
        ),
    ],
)
def test_another_kind_of_section_starts_afresh(tmp_path: Path, base: str, override: str, expected: Any) -> None:
    assert data_of(tmp_path, base, override) == expected


# --- overrides


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("a.b=1e-4", 1e-4),
        ("a.b=no", "no"),
        ("a.b=[1, 2]", [1, 2]),
        ("a.b=", None),
        ("a.b='x=y'", "x=y"),
        ("a.b=x=y", "x=y"),
    ],
)
def test_an_override_is_read_as_a_file_is(tmp_path: Path, override: str, value: Any) -> None:
    assert data_of(tmp_path, "a: {b: 0, c: 1}", override) == {"a": {"b": value, "c": 1}}


@pytest.mark.parametrize("key", ["stages.1.lr", "stages.second.lr", "stages[1].lr"])
def test_an_override_reaches_into_lists(tmp_path: Path, key: str) -> None:
    assert data_of(tmp_path, STAGES, f"{key}=7")["stages"][1] == {"name": "second", "lr": 7}


def test_the_last_override_wins(tmp_path: Path) -> None:
    assert data_of(tmp_path, "a: 0", "a=1", "a=2") == {"a": 2}


@pytest.mark.parametrize("override", ["student", "=1", "a..b=1", "a b=1", ".a=1"])
def test_a_word_that_is_no_override_is_a_fault(tmp_path: Path, override: str) -> None:
    assert told(tmp_path, "a: 1", override) == [
        f"override {override!r}: allowed is KEY=VALUE with a dotted key, e.g. stages.0.training.seed=1"
    ]


def test_a_value_that_is_no_yaml_names_the_override(tmp_path: Path) -> None:
    (found,) = told(tmp_path, "a: 1", "a=[1")
    assert found.startswith("override 'a=[1': this is not YAML: ")


# --- interpolation


def test_a_value_may_come_from_the_environment_or_its_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNS", "/elsewhere")
    monkeypatch.delenv("HUB", raising=False)
    data = data_of(tmp_path, "a: ${oc.env:RUNS}/x\nb: ${oc.env:HUB,hub}\nc: ${oc.decode:${oc.env:HUB,1e-3}}\nd: ${b}")
    assert data == {"a": "/elsewhere/x", "b": "hub", "c": 1e-3, "d": "hub"}


def test_a_section_may_be_repeated_by_interpolation(tmp_path: Path) -> None:
    assert data_of(tmp_path, "a: {x: [1, 2]}\nb: ${a}")["b"] == {"x": [1, 2]}


def test_a_dollar_before_a_brace_can_be_meant(tmp_path: Path) -> None:
    assert data_of(tmp_path, r"prompt: 'costs \${question}, not $5'")["prompt"] == "costs ${question}, not $5"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${oc.env:SURELY_NOT_SET}", "SURELY_NOT_SET"),
        ("${nowhere}", "nowhere"),
        ("${", "no viable alternative"),
        ("${b}", "Recursive interpolation detected"),
        ("${oc.env:OPENAI_API_KEY}", "oc.env:OPENAI_API_KEY looks like a secret"),
    ],
)
def test_what_cannot_be_interpolated_is_a_fault_with_its_line(tmp_path: Path, text: str, reason: str) -> None:
    (found,) = told(tmp_path, f"a: 1\nb: '{text}'\n")
    assert found.startswith(f"recipe.yaml:2 b: found {text!r}, ")
    assert reason in found


def test_a_secret_of_the_environment_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    assert "sk-very-secret" not in "".join(told(tmp_path, "a: ${oc.env:OPENAI_API_KEY}"))


# --- merge keys


def test_a_merge_key_brings_a_section_whose_keys_the_own_ones_override(tmp_path: Path) -> None:
    text = "a: &a {x: 1, y: 2}\nb: {y: 3, <<: *a}\n"
    assert data_of(tmp_path, text)["b"] == {"x": 1, "y": 3}


def test_of_several_merged_sections_the_first_wins(tmp_path: Path) -> None:
    text = "a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc: {<<: [*a, *b]}\n"
    assert data_of(tmp_path, text)["c"] == {"x": 1, "y": 2}


def test_a_merge_key_with_no_section_is_a_fault(tmp_path: Path) -> None:
    assert told(tmp_path, "a: {<<: 3}\n") == [
        "recipe.yaml:1 a.<<: found 3, allowed a section (<<: *anchor) or a list of sections"
    ]


# --- tags: a value is what its spelling says

TAGGED = {
    "a: !!float x": "1 a: found the tag 'float'",
    "a: !!float 1.0": "1 a: found the tag 'float'",
    "a: !!int ''": "1 a: found the tag 'int'",
    "a: !!int 0x1F": "1 a: found the tag 'int'",
    "a: !!bool maybe": "1 a: found the tag 'bool'",
    "a: !!bool true": "1 a: found the tag 'bool'",
    "a: !!null something": "1 a: found the tag 'null'",
    "a: !!null": "1 a: found the tag 'null'",
    "a: !!str 12": "1 a: found the tag 'str'",
    "a: !!timestamp 2026-02-30": "1 a: found the tag 'timestamp'",
    "a: !!binary '*'": "1 a: found the tag 'binary'",
    "a: !!python/name:os.system x": "1 a: found the tag 'python/name:os.system'",
    "a: !!python/tuple [1, 2]": "1 a: found the tag 'python/tuple'",
    "a: !!set {x, y}": "1 a: found the tag 'set'",
    "a: !!omap [x: 1]": "1 a: found the tag 'omap'",
    "a: !!pairs [x: 1]": "1 a: found the tag 'pairs'",
    "a: !!map {x: 1}": "1 a: found the tag 'map'",
    "a: !!seq [1]": "1 a: found the tag 'seq'",
    "a: !!merge x": "1 a: found the tag 'merge'",
    "a: !x 1": "1 a: found the tag '!x'",
    "a: ! 12": "1 a: found the tag '!'",
    "a: !<tag:yaml.org,2002:int> 12": "1 a: found the tag 'int'",
    "a: !<tag:example.org,2026:x> 12": "1 a: found the tag 'tag:example.org,2026:x'",
    "%TAG ! tag:yaml.org,2002:\n---\na: !float x": "3 a: found the tag 'float'",
    "%TAG !e! tag:yaml.org,2002:\n---\na: !e!bool x": "3 a: found the tag 'bool'",
    "a: 1\nb:\n- 1\n- !!int x": "4 b.1: found the tag 'int'",
    "a: !replace 1": "1 a: found the tag '!replace'",
    "a: !replace": "1 a: found the tag '!replace'",
    "!!str a: 1": "1: found the tag 'str'",
    "a: {!!null x: 1}": "1 a: found the tag 'null'",
    "a: &x !!int y": "1 a: found the tag 'int'",
}


@pytest.mark.parametrize("text", TAGGED)
def test_a_tag_is_a_fault_with_its_line_whatever_it_claims(tmp_path: Path, text: str) -> None:
    (found,) = told(tmp_path, text)
    assert found.startswith(f"recipe.yaml:{TAGGED[text]}, allowed is !replace before a section")


@given(
    tag=st.sampled_from(["int", "float", "bool", "null", "str", "timestamp", "binary", "python/none"]),
    value=st.text(alphabet="abz019.-+:eE_~ ", max_size=8),
)
def test_no_tagged_value_is_ever_read(tmp_path_factory: pytest.TempPathFactory, tag: str, value: str) -> None:
    path = tmp_path_factory.getbasetemp() / "tagged.yaml"
    path.write_text(f"a: !!{tag} '{value}'\n")
    tree, faults = read_recipe(str(path))
    assert faults
    assert tree is None or tree.plain() == {"a": None}


def test_a_tag_in_an_override_is_a_fault(tmp_path: Path) -> None:
    (found,) = told(tmp_path, "a: 1", "a=!!float x")
    assert found.startswith("override 'a=!!float x' a: found the tag 'float'")


def test_a_tag_in_a_file_that_is_extended_is_a_fault_of_that_file(tmp_path: Path) -> None:
    (found,) = told(tmp_path, "extends: base.yaml\nb: 1", base="# here\na: !!bool maybe\n")
    assert found.startswith("base.yaml:2 a: found the tag 'bool'")


# --- numbers


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        (".inf", "found inf, allowed a finite number"),
        ("-.inf", "found -inf, allowed a finite number"),
        (".nan", "found nan, allowed a finite number"),
        (".NaN", "found nan, allowed a finite number"),
        ("1e999", "found inf, allowed a finite number"),
        ("-1e400", "found -inf, allowed a finite number"),
        ("[1, .inf]", "found inf, allowed a finite number"),
        ("9223372036854775808", "found a whole number of 19 digits, allowed those of 64 bits"),
        ("-9223372036854775809", "found a whole number of 19 digits, allowed those of 64 bits"),
        ("1" + "0" * 300, "found a whole number of 301 digits, allowed those of 64 bits"),
        ("9" * 5000, "found a number of 5000 digits"),
        ("${oc.decode:'1e999'}", "found inf, allowed a finite number"),
    ],
)
def test_a_number_that_nothing_can_mean_is_a_fault_wherever_it_stands(tmp_path: Path, written: str, fault: str) -> None:
    text = f"a: '{written}'" if "$" in written and "'" not in written else f"a: {written}"
    (found,) = told(tmp_path, text)
    assert found.endswith(fault)


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 0, 10**18])
def test_whole_numbers_of_64_bits_are_numbers(tmp_path: Path, number: int) -> None:
    assert data_of(tmp_path, f"a: {number}") == {"a": number}


# --- what is no file, or too much of one


def special(folder: Path, what: str) -> str:
    """Make something that is no recipe, and return how `extends` names it."""
    path = folder / "special"
    if what == "a named pipe":
        os.mkfifo(path)
    elif what == "a socket":
        listening = socket.socket(socket.AF_UNIX)
        here = os.getcwd()
        os.chdir(folder)  # the address of a socket has a hundred characters at most
        listening.bind("special")
        os.chdir(here)
    elif what == "a folder":
        path.mkdir()
    elif what == "a link to itself":
        path.symlink_to("special")
    elif what == "a link to a pipe":
        os.mkfifo(folder / "pipe")
        path.symlink_to("pipe")
    elif what == "a file of 5 MB on one line":
        path.write_text("a: '" + "x" * 5_000_000 + "'")
    elif what == "a comment of 5 MB":
        path.write_text("# " + "x" * 5_000_000 + "\na: 1\n")
    elif what == "a million lines of comment":
        path.write_text("#\n" * 1_000_000)
    return {"a device": "/dev/zero", "NUL": '"a\\0b"', "a long name": "x" * 5000, "empty": "''"}.get(what, "special")


SPECIAL = {
    "a named pipe": "found a named pipe, allowed the file of a recipe",
    "a link to a pipe": "found a named pipe, allowed the file of a recipe",
    "a socket": "found a socket, allowed the file of a recipe",
    "a device": "found a device, allowed the file of a recipe",
    "a folder": "found a folder, allowed the file of a recipe",
    "empty": "found a folder, allowed the file of a recipe",
    "a link to itself": "the file cannot be read: Too many levels of symbolic links",
    "NUL": "found a NUL character, allowed text",
    "a long name": "the file cannot be read: File name too long",
    "a file of 5 MB on one line": "found 5,000,005 bytes, allowed at most 262,144",
    "a comment of 5 MB": "found 5,000,008 bytes, allowed at most 262,144",
    "a million lines of comment": "found 2,000,000 bytes, allowed at most 262,144",
}


@pytest.mark.parametrize("what", SPECIAL)
def test_what_extends_names_must_be_a_file_of_a_recipes_size(tmp_path: Path, what: str) -> None:
    (found,) = told(tmp_path, f"a: 1\nextends: {special(tmp_path, what)}\n")
    assert found.startswith("recipe.yaml:2 extends: ")
    assert SPECIAL[what] in found
    assert len(found) < 1000


@pytest.mark.parametrize("what", [what for what in SPECIAL if what not in ("empty", "NUL", "a long name")])
def test_a_recipe_itself_must_be_a_file_of_a_recipes_size(tmp_path: Path, what: str) -> None:
    _, (fault,) = read_recipe(os.path.join(tmp_path, special(tmp_path, what)))
    assert SPECIAL[what] in fault.text


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "a/\ud800/b"])
def test_a_path_that_no_file_can_have_is_a_fault(path: str) -> None:
    tree, (fault,) = read_recipe(path)
    assert tree is None
    assert fault.text


MUCH = {
    "unknown keys": "".join(f"k{number}: 0\n" for number in range(24_000)),
    "values in a list": "a: [" + "x," * 120_000 + "]",
    "lists in lists": "[" * 10_000,
    "mappings in mappings": "{" * 10_000,
    "dashes": "- " * 10_000,
    "question marks": "? " * 10_000,
    "levels": "".join("  " * min(level, 120) + "a:\n" for level in range(200)),
    "references in a text": "a: '" + "${x}" * 20_000 + "'",
    "references in references": "a: '" + "${" * 20_000 + "'",
    "texts with references": "".join(f"k{number}: ${{oc.env:HOME}}\n" for number in range(4_000)),
    "references to references": "".join(f"k{number}: ${{k{number + 1}}}\n" for number in range(4_000)),
    "merged sections": "b0: &b0 {k: 1}\n"
    + "".join(f"b{n}: &b{n} {{<<: [*b{n - 1}, *b{n - 1}]}}\n" for n in range(1, 40)),
}


@pytest.mark.parametrize("what", MUCH)
def test_too_much_of_anything_is_a_fault_and_not_a_wait(tmp_path: Path, what: str) -> None:
    assert told(tmp_path, MUCH[what])


def test_files_that_extend_each_other_without_end_are_a_fault(tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"c{number}.yaml").write_text(f"extends: c{number + 1}.yaml\n")
    (found,) = told(tmp_path, "extends: c0.yaml\n")
    assert "found more than 50 recipes that extend each other" in found


# --- secrets


@pytest.mark.parametrize(
    "text",
    [
        '${oc.env:"OPENAI_API_KEY"}',
        "${oc.env:'OPENAI_API_KEY'}",
        "${ oc.env : OPENAI_API_KEY }",
        '${oc.env: "OPENAI_API_KEY" }',
        '${oc.env:"OPENAI_API_KEY",y}',
        "${oc.env:'OPENAI_API_KEY', y}",
        "${oc.env:OPENAI_API_KEY,null}",
        '${oc.decode:${oc.env:"OPENAI_API_KEY"}}',
        '${oc.create:{a: "${oc.env:OPENAI_API_KEY}"}}',
        "before ${oc.env:${name}} behind",
        "${oc.env:OPENAI_API_${last}}",
        "${oc.env:'OPENAI_API_${last}'}",
        "${${resolver}:OPENAI_API_KEY}",
        "${oc.env:MY_KEY_2}",
        "${oc.env:hf_token}",
        "${oc.env:DB_PASSWORD,none}",
        "${oc.env:INNOCENT}",
        "${oc.env:OWN}",
        "${oc.env:SERVER}",
    ],
)
@pytest.mark.parametrize("how", ["file", "extends", "override"])
def test_a_secret_of_the_environment_is_refused_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, how: str
) -> None:
    secret = "sk-" + "abcd" * 8
    for name in ("OPENAI_API_KEY", "MY_KEY_2", "hf_token", "DB_PASSWORD", "INNOCENT", "OWN"):
        monkeypatch.setenv(name, secret if name != "OWN" else "a-secret-by-its-use-alone")
    monkeypatch.setenv("SERVER", f"https://me:{secret}@example.org/v1")
    others = "name: OPENAI_API_KEY\nlast: KEY\nresolver: oc.env\nteacher: {api_key_env: OWN}\n"
    quoted = "'" + text.replace("'", "''") + "'"
    if how == "override":
        data, faults = read(tmp_path, others, f"a={quoted}")
    elif how == "extends":
        data, faults = read(tmp_path, "extends: base.yaml\n", base=f"{others}a: {quoted}\n")
    else:
        data, faults = read(tmp_path, f"{others}a: {quoted}\n")
    (fault,) = faults
    assert "looks like a secret, and a recipe is recorded with its values" in fault.text
    assert data["a"] is None
    assert secret not in str(fault)


@pytest.mark.parametrize("name", ["MAX_TOKENS", "KEYBOARD", "TOKENIZER", "HF_TOKEN_PATH", "PWD", "COT_DATA"])
def test_a_variable_that_holds_no_secret_may_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "plain")
    assert data_of(tmp_path, f"a: ${{oc.env:'{name}'}}") == {"a": "plain"}


def test_reading_a_recipe_leaves_the_resolver_of_others_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omegaconf import OmegaConf

    monkeypatch.setenv("OPENAI_API_KEY", "open sesame")
    told(tmp_path, "a: ${oc.env:OPENAI_API_KEY}")
    assert OmegaConf.create({"a": "${oc.env:OPENAI_API_KEY}"}).a == "open sesame"


def test_a_key_neither_fills_nor_commands_a_terminal(tmp_path: Path) -> None:
    long, commanding = told(tmp_path, f'? {"k" * 5000}\n: .inf\n"\\e[31m\\n": .inf\n')
    assert long == f"recipe.yaml:1 {'k' * 100}...{'k' * 90}: found inf, allowed a finite number"
    assert commanding == "recipe.yaml:3 \\x1b[31m\\n: found inf, allowed a finite number"
