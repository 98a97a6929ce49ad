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


def test_a_value_of_eight_characters_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("sesame88 sesame7")
    own = {"A_KEY": "sesame88", "B_KEY": "sesame7"}
    assert found(tmp_path, own) == ["a.txt, line 1: the value of A_KEY"]


@pytest.mark.parametrize(
    "name", ["KEY", "my_token", "db_PASSWORD", "A_CREDENTIALS_FILE", "SECRET_OF", "THE_CREDENTIAL", "passwd"]
)
def test_a_variable_is_a_secret_by_one_of_its_words(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.txt").write_text("open sesame")
    assert found(tmp_path, {name: "open sesame", "MONKEY": "open sesame"}) == [f"a.txt, line 1: the value of {name}"]


def test_a_secret_across_the_end_of_a_block_is_found_with_its_line(tmp_path: Path) -> None:
    """Blocks are four MiB long as they come, and share a KiB, in which a secret is found once."""
    line = "x" * 1023 + "\n"
    for before in (4095, 4096):  # the last line of the first block, and the first of the second
        (tmp_path / "a.txt").write_text(line * before + " " * 1010 + TOKEN + "\n" + line * 3 + TOKEN + "\n")
        kind = "a Hugging Face token"
        assert found(tmp_path) == [f"a.txt, line {before + 1}: {kind}", f"a.txt, line {before + 5}: {kind}"]


def test_files_are_gone_through_in_order_and_folders_are_no_files(tmp_path: Path) -> None:
    for name in ("b/c.txt", "a.txt", "b.d/e"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"\n{TOKEN}")
    assert found(tmp_path) == [f"{name}, line 2: a Hugging Face token" for name in ("a.txt", "b/c.txt", "b.d/e")]


@pytest.mark.parametrize("suffix", [".bin", ".png"])
def test_of_a_file_that_is_no_text_the_byte_is_told(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(b"\n\n\0" + TOKEN.encode())
    assert found(tmp_path) == [f"a{suffix}, byte 3: a Hugging Face token"]


def test_of_weights_the_header_alone_is_looked_at(tmp_path: Path) -> None:
    header = f'{{"note": "{TOKEN}"}}'.encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + TOKEN.encode())
    assert found(tmp_path) == ["model.safetensors, byte 18: a Hugging Face token"]
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 8 + TOKEN.encode())  # a length that is none
    assert found(tmp_path) == ["model.safetensors, byte 8: a Hugging Face token"]


def test_a_secret_behind_a_letter_is_none_unless_it_is_one_of_one_s_own(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"x{TOKEN} é{TOKEN} _{TOKEN}")
    assert found(tmp_path) == ["a.txt, line 1: a Hugging Face token"] * 2
    assert set(found(tmp_path, {"HF_TOKEN": TOKEN})) == {
        "a.txt, line 1: a Hugging Face token",
        "a.txt, line 1: the value of HF_TOKEN",
    }
    assert len(found(tmp_path, {"HF_TOKEN": TOKEN})) == 3  # a place is told once, by its first kind


def test_large_texts_and_keys_of_maps_are_looked_into(tmp_path: Path) -> None:
    large = pa.array(["a", TOKEN], pa.large_string())
    raw = pa.array([TOKEN.encode(), b"\xff"], pa.large_binary())
    lists = pa.array([["a"], ["b", TOKEN]], pa.large_list(pa.string()))
    maps = pa.array([[(TOKEN, "v")], None], pa.map_(pa.string(), pa.string()))
    columns = {"large": large, "raw": raw, "lists": lists, "maps": maps, "numbers": pa.array([1, 2])}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet", compression="zstd")
    assert [one.partition(": ")[0] for one in found(tmp_path) if ", row " in one] == [
        "t.parquet, row 2, column large",
        "t.parquet, row 1, column raw",
        "t.parquet, row 2, column lists[]",
        "t.parquet, row 1, column maps[].key",
    ]


def test_a_value_of_one_s_own_with_any_characters_is_found_in_parquet(tmp_path: Path) -> None:
    value = 'a.b*"\\{}[]é 9^$'
    parquet.write_table(pa.table({"t": [f"({value})", "axb*"]}), tmp_path / "t.parquet", compression="zstd")
    rows = [one for one in found(tmp_path, {"A_KEY": value}) if ", row " in one]
    assert rows == ["t.parquet, row 1, column t: the value of A_KEY"]


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


def test_of_a_file_whose_first_bytes_are_a_small_number_all_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"\0" * 8 + TOKEN.encode())
    assert found(tmp_path) == ["weights.bin, byte 8: a Hugging Face token"]


def test_of_a_header_no_byte_more_is_looked_at(tmp_path: Path) -> None:
    shortest = b"hf_" + b"a" * 30
    header = b'{"key": "' + shortest[:-1]
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + shortest[-1:])
    assert found(tmp_path) == []
