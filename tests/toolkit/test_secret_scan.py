"""The secrets here are made up; each is put together at run time, so that no scanner of this repository finds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from safetensors.numpy import save_file

from toolkit import secret_scan
from toolkit.secret_scan import Secrets

TOKEN = "hf_" + "aB3" * 12
KINDS = {
    "a Hugging Face token": TOKEN,
    "an API key that starts with sk-": "sk-" + "proj-" + "aB3_" * 8,
    "an AWS access key": "AKIA" + "IOSFODNN7EXAMPLE",
    "a GitHub token": "ghp_" + "aB3" * 12,
    "a GitHub fine-grained token": "github_pat_" + "aB3_" * 20,
    "a GitLab token": "glpat-" + "aB3_" * 5,
    "a Google API key": "AIza" + "aB3_x" * 7,
    "a Slack token": "xoxb-" + "123456789012",
    "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
}


def found(folder: Path, environment: dict[str, str] | None = None, **more: Any) -> list[str]:
    findings = [str(finding) for finding in Secrets(environment or {}, **more).scan(folder)]
    assert not any(secret in finding for finding in findings for secret in KINDS.values())
    return findings


@pytest.mark.parametrize("kind", KINDS)
def test_a_secret_in_a_text_is_found_with_its_line(tmp_path: Path, kind: str) -> None:
    (tmp_path / "README.md").write_text(f"one\ntwo\nkey={KINDS[kind]} \nfour\n")
    assert found(tmp_path) == [f"README.md, line 3: {kind}"]


@pytest.mark.parametrize("text", ["ask-" + "a" * 40, "hf_short", "the task-" + "force" * 9, "AKIA", "risk-" + "b" * 30])
def test_words_that_look_alike_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text)
    assert found(tmp_path) == []


DEEP = {
    "text": ["fine", f"see {TOKEN}", None],
    "nested": [[{"a": {"b": ["x"]}}], [], [{"a": {"b": ["y", TOKEN]}}]],
    "raw": [b"\x00\xff", TOKEN.encode(), None],
}


@pytest.mark.parametrize("compression", ["zstd", "snappy", "none"])
def test_secrets_within_parquet_are_found_with_row_and_column(
    tmp_path: Path, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret_scan, "_ROWS", 2)  # in several batches
    table = pa.table(DEEP).append_column("few", pa.array(["a", "a", TOKEN]).dictionary_encode())
    parquet.write_table(table, tmp_path / "t.parquet", compression=compression, use_dictionary=False)
    kind = "a Hugging Face token"
    assert {one for one in found(tmp_path) if ", row " in one} == {
        f"t.parquet, row 2, column text: {kind}",
        f"t.parquet, row 3, column nested[].a.b[]: {kind}",
        f"t.parquet, row 2, column raw: {kind}",
        f"t.parquet, row 3, column few: {kind}",
    }


def test_a_map_and_a_list_of_fixed_size_are_looked_into(tmp_path: Path) -> None:
    maps = pa.array([[("k", "v")], [("k", TOKEN)]], pa.map_(pa.string(), pa.string()))
    fixed = pa.array([["a", "b"], ["c", TOKEN]], pa.list_(pa.string(), 2))
    parquet.write_table(pa.table({"maps": maps, "fixed": fixed}), tmp_path / "t.parquet", compression="zstd")
    assert {one.partition(": ")[0] for one in found(tmp_path) if ", row " in one} == {
        "t.parquet, row 2, column maps[].value",
        "t.parquet, row 2, column fixed[]",
    }


def test_the_metadata_of_weights_is_looked_at(tmp_path: Path) -> None:
    import numpy as np

    save_file({"w": np.zeros(4)}, tmp_path / "model.safetensors", metadata={"note": f"made with {TOKEN}"})
    (finding,) = found(tmp_path)
    assert finding.startswith("model.safetensors, byte ")
    assert finding.endswith(": a Hugging Face token")


def test_the_metadata_of_parquet_is_looked_at(tmp_path: Path) -> None:
    table = pa.table({"a": [1]}).replace_schema_metadata({"note": TOKEN})
    parquet.write_table(table, tmp_path / "t.parquet")
    assert "t.parquet, byte " in found(tmp_path)[0]


def test_values_of_the_environment_that_are_secrets_are_found_wherever_they_stand(tmp_path: Path) -> None:
    environment = {"MY_API_KEY": "correct|horse", "PATH": "/usr/local/bin", "TOKENIZERS_PARALLELISM": "disabled"}
    (tmp_path / "a.txt").write_text("xcorrect|horsex /usr/local/bin disabled")
    parquet.write_table(pa.table({"t": ["a", "(correct|horse)"]}), tmp_path / "b.parquet", compression="zstd")
    assert found(tmp_path, environment)[:2] == [
        "a.txt, line 1: the value of MY_API_KEY",
        "b.parquet, row 2, column t: the value of MY_API_KEY",
    ]


def test_the_token_one_is_logged_in_with_is_a_secret_whatever_it_looks_like(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("with open sesame and 1234567")
    of_hub, own = "the token you are logged in to the Hub with", {"HOME": "/home/me"}
    assert found(tmp_path, own, values={of_hub: "open sesame"}) == [f"a.txt, line 1: {of_hub}"]
    assert found(tmp_path, own, values={of_hub: None, "another": "1234567"}) == [], "none, and seven characters"


def test_a_variable_that_the_recipe_names_is_a_secret_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("open sesame")
    assert found(tmp_path, {"PROVIDER": "open sesame"}) == []
    assert found(tmp_path, {"PROVIDER": "open sesame"}, named=["PROVIDER"]) == ["a.txt, line 1: the value of PROVIDER"]


def test_a_short_value_is_not_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("EMPTY")
    assert found(tmp_path, {"OPENAI_API_KEY": "EMPTY"}) == []


def test_a_name_of_a_file_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / f"{TOKEN}.txt").write_text("")
    (finding,) = Secrets({}).scan(tmp_path)
    assert finding.place == "its name, character 1"


@given(before=st.integers(0, 3000), lines=st.integers(0, 5))
def test_a_secret_is_found_once_with_its_line_wherever_blocks_end(
    tmp_path_factory: pytest.TempPathFactory, before: int, lines: int
) -> None:
    folder = tmp_path_factory.mktemp("scanned")
    (folder / "a.txt").write_text("\n" * lines + "." * before + f" {TOKEN} \n" + "." * 3000)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(secret_scan, "_BLOCK", 500)
        patched.setattr(secret_scan, "_OVERLAP", 100)
        assert found(folder) == [f"a.txt, line {lines + 1}: a Hugging Face token"]
