"""What `distill validate` takes trains: each mistake that used to show itself later is one fault with its own key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.tiny_recipe import EDIT
from toolkit.cli import main, open_recipe
from toolkit.licences import hub_licence
from toolkit.model_shape import shape_of_model_faults
from toolkit.recipe import Recipe, RecipeFaults
from toolkit.recipe_faults import shape_faults
from toolkit.recipe_names import RepoId, Revision, Version
from toolkit.training_fields import architecture, model_types, trackers


def load(folder: Path, *overrides: str, **sections: Any) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(EDIT)) | sections, sort_keys=False))
    return open_recipe(str(path), overrides)


def only_fault(folder: Path, *overrides: str, **sections: Any) -> str:
    """Return key and text of what is wrong with the tiny recipe under overrides, and nothing else is."""
    with pytest.raises(RecipeFaults) as caught:
        load(folder, *overrides, **sections)
    (fault,) = caught.value.faults
    return f"{fault.key}: {fault.text}"


CONFIG = "student.from_config."
INSTANCES = {
    # shapes of a student of 2 heads and 2 layers
    f"{CONFIG}hidden_size=-1": f"{CONFIG}hidden_size: found -1, allowed a number >= 1",
    f"{CONFIG}hidden_size=0": f"{CONFIG}hidden_size: found 0, allowed a number >= 1",
    f"{CONFIG}hidden_size=33": f"{CONFIG}hidden_size: found 33, which is not a multiple of the number of attention",
    f"{CONFIG}hidden_size=34": f"{CONFIG}hidden_size: found 34, which gives heads of 17; rotary positions need an even",
    f"{CONFIG}num_attention_heads=0": f"{CONFIG}num_attention_heads: found 0, allowed a number >= 1",
    f"{CONFIG}num_attention_heads=3": f"{CONFIG}hidden_size: found 32, which is not a multiple of the number of",
    f"{CONFIG}num_key_value_heads=0": f"{CONFIG}num_key_value_heads: found 0, allowed a number >= 1",
    f"{CONFIG}num_key_value_heads=3": f"{CONFIG}num_key_value_heads: found 3: 3 heads of keys and values do not divide",
    f"{CONFIG}num_hidden_layers=0": f"{CONFIG}num_hidden_layers: found 0, allowed a number >= 1",
    f"{CONFIG}intermediate_size=-64": f"{CONFIG}intermediate_size: found -64, allowed a number >= 1",
    f"{CONFIG}max_position_embeddings=0": f"{CONFIG}max_position_embeddings: found 0, allowed a number >= 1",
    f"{CONFIG}head_dim=0": f"{CONFIG}head_dim: found 0, allowed a number >= 1",
    f"{CONFIG}head_dim=15": f"{CONFIG}head_dim: found 15, which gives heads of 15; rotary positions need an even",
    f"{CONFIG}hidden_act=sliu": f"{CONFIG}hidden_act: found 'sliu', allowed an activation function of transformers",
    f"{CONFIG}attention_dropout=1.0": f"{CONFIG}attention_dropout: found 1, allowed a number >= 0 and < 1",
    f"{CONFIG}initializer_range=-0.1": f"{CONFIG}initializer_range: found -0.1, allowed a number >= 0 and <= 1",
    f"{CONFIG}rms_norm_eps=0.0": f"{CONFIG}rms_norm_eps: found 0, allowed a number > 0",
    f"{CONFIG}rope_theta=-1": f"{CONFIG}rope_theta: found -1, allowed a number > 0",
    f"{CONFIG}rope_theta=.inf": f"{CONFIG}rope_theta: found inf, allowed a finite number",
    "student.tokenizer.vocab_size=100000000": "student.tokenizer.vocab_size: found 100000000, allowed a number <= 1.0",
    "student.seed=4294967296": "student.seed: found 4294967296, allowed a number < 4.29497e+09",
    # chat
    "student.prompt_format=chat": "student.prompt_format: found 'chat', allowed 'plain': a student from a",
    "student.chat_template='{{ messages | shout }}'": "student.chat_template: line 1: No filter named 'shout'",
    "student.chat_template='{% for m in messages %}'": "student.chat_template: line 1: Unexpected end of template",
    "student.chat_template='{{ 1 / 0 }}'": "student.chat_template: division by zero",
    "student.chat_template=hello": "student.chat_template: does not show what the user says as it is",
    # names
    "references.imitate.stages=[]": "references.imitate: found 'imitate', the name of stage 0 already",
    "references.key_steps.stages=[]": "references.key_steps: found 'key_steps', the name of stage 1 already",
    "stages.1.name=imitate": "stages.1.name: found 'imitate', the name of stage 0 already",
    # logs
    "stages.0.training.report_to=wandbb": "stages.0.training.report_to: found 'wandbb', allowed none, all, azure_ml,",
    "stages.0.training.report_to=clearml": "stages.0.training.report_to: found 'clearml', which needs a package",
    "stages.0.training.report_to=[none, neptune]": "stages.0.training.report_to.1: found 'neptune', which needs a",
    # sets and texts
    "evaluation.sets=!replace {}": "evaluation.sets: found an empty mapping, allowed at least 1 of them",
    "stages.0.views.cot.target=['']": "stages.0.views.cot.target.0: found an empty text, allowed a template",
    "stages.0.views.cot.target=[{text: ''}]": "stages.0.views.cot.target.0.text: found an empty text, allowed a",
    "stages.0.views.cot.target=[' ']": "stages.0.views.cot.target: found white space alone in the segments with",
    'stages.0.views.cot.target=["\\n", " \\t"]': "stages.0.views.cot.target: found white space alone in the segments",
    "stages.0.views.cot.target=[{text: id, weight: 0}, ' ']": "stages.0.views.cot.target: found white space alone in",
    "stages.0.views.cot.target=[]": "stages.0.views.cot.target: found no segment with a weight other than 0",
    "stages.0.views.cot.prompt=' '": "stages.0.views.cot.prompt: found white space alone, allowed text or a column",
    # numbers
    "evaluation.batch_size=1e23": "evaluation.batch_size: found 1e+23, allowed a whole number",
    "evaluation.batch_size=100000000000000000000000": "evaluation.batch_size: found a whole number of 24 digits",
    "stages.0.training.per_device_train_batch_size=1e23": "stages.0.training.per_device_train_batch_size: found 1e+23",
    "stages.0.training.seed=4294967296": "stages.0.training.seed: found 4294967296, allowed a number < 4.29497e+09",
    "dataset.config.collect.max_cost_usd=.inf": "dataset.config.collect.max_cost_usd: found inf, allowed a finite",
    "dataset.config.collect.max_wait=.nan": "dataset.config.collect.max_wait: found nan, allowed a finite number",
    "dataset.config.sampling.temperature=1e999": "dataset.config.sampling.temperature: found inf, allowed a finite",
    "dataset.config.problems.n=1e3": "dataset.config.problems.n: found 1000.0, allowed a whole number",
    "decode.max_new_tokens=99999999999999999999": "decode.max_new_tokens: found a whole number of 20 digits, allowed",
    # names on the Hub
    "dataset.repo_id=org/cots.git": "dataset.repo_id: found 'org/cots.git', allowed 'name' or 'organisation/name'",
    "publish.repo_id=org/cots.git": "publish.repo_id: found 'org/cots.git', allowed 'name' or 'organisation/name'",
    f"publish.revision=v1.0.{'9' * 300}": "publish.revision: found 'v1.0.999",
    f"dataset.revision=v{'1' * 300}.0.0": "dataset.revision: found 'v1111",
    "publish.license=Apache 2.0": "publish.license: found 'Apache 2.0', allowed a licence identifier of the Hub, such",
    "publish.license=apache-2": "publish.license: found 'apache-2', allowed a licence identifier of the Hub, such as ",
    "dataset.config.license=proprietary": "dataset.config.license: found 'proprietary', allowed a licence identifier",
}


@pytest.mark.parametrize("override", INSTANCES)
def test_what_does_not_train_does_not_validate(tmp_path: Path, override: str) -> None:
    assert only_fault(tmp_path, override).startswith(INSTANCES[override])


def test_the_recipe_that_these_are_mistakes_of_is_a_good_one(tmp_path: Path) -> None:
    load(tmp_path).check_files()


def test_several_mistakes_are_told_each_with_its_own_key(tmp_path: Path) -> None:
    overrides = [
        f"{CONFIG}num_hidden_layers=0",
        f"{CONFIG}hidden_act=x",
        "publish.license=x",
        "evaluation.sets=!replace {}",
    ]
    with pytest.raises(RecipeFaults) as caught:
        load(tmp_path, *overrides)
    assert [fault.key for fault in caught.value.faults] == [
        "evaluation.sets",
        "publish.license",
        f"{CONFIG}hidden_act",
        f"{CONFIG}num_hidden_layers",
    ]


def test_thousands_of_unknown_keys_are_told_by_the_first_and_their_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load(tmp_path)
    text = (tmp_path / "recipe.yaml").read_text()
    for indent, where in (("", ""), ("    ", "stages.0.training.")):
        keys = "".join(
            f"{indent}  unknwn_{number}: 0\n" if indent else f"unknwn_{number}: 0\n" for number in range(4000)
        )
        at = text.index("    learning_rate") if indent else 0
        (tmp_path / "many.yaml").write_text(text[:at] + keys.replace("      ", "    ") + text[at:])
        assert main(["validate", str(tmp_path / "many.yaml")]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 101
        assert f"{where}unknwn_0: unknown key" in lines[0]
        assert lines[-1] == "... and 3,900 more faults"


# --- shapes of models


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "opt", "gpt_neox", "qwen3", "phi", "falcon", "mpt", "mamba"])
def test_the_defaults_of_an_architecture_are_no_fault(model_type: str) -> None:
    found = architecture(model_type)
    assert found is not None
    assert list(shape_of_model_faults({"model_type": model_type}, found)) == []


def test_the_defaults_of_no_architecture_are_a_fault() -> None:
    known = {model_type: architecture(model_type) for model_type in model_types()}
    assert {
        model_type: told
        for model_type, found in known.items()
        if found is not None and (told := list(shape_of_model_faults({}, found)))
    } == {}


@pytest.mark.parametrize(
    ("model_type", "config", "key"),
    [
        ("gpt2", {"n_embd": 130, "n_head": 4}, "n_embd"),
        ("gpt2", {"hidden_size": 130, "num_attention_heads": 4}, "hidden_size"),
        ("gpt2", {"n_head": 7}, "n_head"),
        ("gpt2", {"n_layer": 0}, "n_layer"),
        ("gpt2", {"n_positions": -1}, "n_positions"),
        ("opt", {"hidden_size": 130, "num_attention_heads": 4}, "hidden_size"),
        ("opt", {"ffn_dim": 0}, "ffn_dim"),
        ("gpt_neox", {"hidden_size": 130, "num_attention_heads": 4}, "hidden_size"),
        ("mpt", {"d_model": 130, "n_heads": 4}, "d_model"),
        ("qwen3", {"head_dim": 7}, "head_dim"),
        ("qwen3", {"num_key_value_heads": 5}, "num_key_value_heads"),
        ("llama", {"hidden_size": 130, "head_dim": 32, "num_attention_heads": 4}, "hidden_size"),
        ("bloom", {"n_head": 3}, "n_head"),
    ],
)
def test_a_shape_that_makes_no_model_is_told_by_the_key_that_the_recipe_sets(
    model_type: str, config: dict[str, Any], key: str
) -> None:
    found = architecture(model_type)
    assert found is not None
    assert [told for told, _ in shape_of_model_faults(config, found)] == [key]


@pytest.mark.parametrize(
    ("model_type", "config"),
    [
        ("qwen3", {"hidden_size": 130, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}),
        ("gpt2", {"n_embd": 66, "n_head": 2}),
        ("llama", {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 3}),
    ],
)
def test_a_shape_that_makes_a_model_is_no_fault(model_type: str, config: dict[str, Any]) -> None:
    found = architecture(model_type)
    assert found is not None
    assert list(shape_of_model_faults(config, found)) == []


@given(
    hidden=st.integers(-2, 40),
    heads=st.integers(-1, 6),
    key_heads=st.integers(0, 6),
    layers=st.integers(-1, 2),
)
def test_what_is_no_fault_of_a_llama_is_a_model_whose_parts_fit(
    hidden: int, heads: int, key_heads: int, layers: int
) -> None:
    config = {
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "num_hidden_layers": layers,
    }
    found = architecture("llama")
    assert found is not None
    fits = min(hidden, heads, key_heads, layers) >= 1 and hidden % (2 * heads) == 0 and heads % key_heads == 0
    assert (not list(shape_of_model_faults(config, found))) == fits


# --- licences, names


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("apache-2.0", "apache-2.0"),
        ("Apache-2.0", "apache-2.0"),
        ("MIT", "mit"),
        ("CC-BY-4.0", "cc-by-4.0"),
        ("CC-BY-NC-SA-4.0", "cc-by-nc-sa-4.0"),
        ("CC0-1.0", "cc0-1.0"),
        ("BSD-3-Clause", "bsd-3-clause"),
        ("GPL-3.0-only", "gpl-3.0"),
        ("GPL-2.0-or-later", "gpl-2.0"),
        ("LGPL-2.1-or-later", "lgpl-2.1"),
        ("AGPL-3.0-only", "agpl-3.0"),
        ("ODbL-1.0", "odbl"),
        ("ODC-By-1.0", "odc-by"),
        ("PDDL-1.0", "pddl"),
        ("C-UDA-1.0", "c-uda"),
        ("CDLA-Permissive-2.0", "cdla-permissive-2.0"),
        ("GFDL-1.3-no-invariants-or-later", "gfdl"),
        ("MPL-2.0", "mpl-2.0"),
        ("Unlicense", "unlicense"),
        ("llama3.1", "llama3.1"),
        ("other", "other"),
    ],
)
def test_a_licence_is_the_hubs_by_its_own_or_its_spdx_name(written: str, name: str) -> None:
    assert hub_licence(written) == name


@pytest.mark.parametrize(
    "written",
    ["", " ", "apache", "Apache 2.0", "apache2.0", "apache-3.0", "gpl-4.0", "cc-by-5.0", "cc-by-4.0-only", "mit ",
     "Apache-2.0 OR MIT", "GPL-2.0+", "SSPL-1.0", "LicenseRef-mine", "proprietary", "none", "MIT-0"],
)  # fmt: skip
def test_a_licence_that_the_hub_does_not_know_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="allowed a licence identifier of the Hub"):
        hub_licence(written)


def test_a_licence_stands_in_the_recipe_under_the_hubs_name(tmp_path: Path) -> None:
    publish = load(tmp_path, "publish.license=CC-BY-4.0").publish
    assert publish is not None
    assert publish.license == "cc-by-4.0"


class Named(BaseModel):
    """One of each name."""

    repo_id: RepoId = "a"
    revision: Revision = "v1.0.0"
    version: Version = "v1.0.0"


@pytest.mark.parametrize(
    "name",
    ["org/cots.git", "cots.GIT", "org/a--b", ".x", "org/.x", "x.", "-x", "x-", "a/b/c", "/a", "a/", "", "a..b", "a b",
     "é", "a/" + "b" * 95, "a" * 97, "org\\a", "a\n", "a@b"],
)  # fmt: skip
def test_a_name_that_the_hub_refuses_is_a_fault(name: str) -> None:
    assert len(shape_faults(Named, {"repo_id": name})) == 1


@pytest.mark.parametrize("name", ["cots", "org/cots", "a" * 96, "a/" + "b" * 94, "org/cots.github", "a_b/c.d-e", "git"])
def test_a_name_that_the_hub_takes_is_none(name: str) -> None:
    assert shape_faults(Named, {"repo_id": name}) == []


@pytest.mark.parametrize(
    "revision",
    ["v1", "1.0.0", "v1.0", "v01.0.0", "v1.0.0-rc1", "v1.0.0 ", "V1.0.0", "v1.0.1234567890", "v" + "9" * 300 + ".0.0",
     "main", "", "v１.0.0", "v1.0.0\n"],
)  # fmt: skip
def test_a_version_is_three_numbers_of_at_most_nine_digits(revision: str) -> None:
    assert len(shape_faults(Named, {"version": revision})) == 1
    assert len(shape_faults(Named, {"revision": revision})) == 1


# --- logs


def test_trackers_are_those_of_transformers() -> None:
    assert {"wandb", "tensorboard", "mlflow", "trackio"} <= set(trackers())


@pytest.mark.parametrize("value", ["none", "all", "[none]", "kubeflow", "trackio"])
def test_a_tracker_that_is_there_is_no_fault(tmp_path: Path, value: str) -> None:
    if value == "trackio":
        pytest.importorskip("trackio")
    load(tmp_path, f"stages.0.training.report_to={value}")
