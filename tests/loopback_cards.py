"""The rules by which the loopback Hub checks the front matter of a card, as far as the Hub documents them."""

from __future__ import annotations

import re
from typing import Any

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.repocard_data import model_index_to_eval_results

_LICENSE_NAMES = """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
    lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
    openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
    fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown
    other
"""
_LICENSES = frozenset(_LICENSE_NAMES.split())
_SIZES = re.compile(r"n<1K|1K<n<10K|10K<n<100K|100K<n<1M|1M<n<10M|10M<n<100M|100M<n<1B|1B<n<10B|.*n>1T")
_LANGUAGE = re.compile(r"[a-z]{2,3}([-_][A-Za-z0-9]+)*|code|multilingual")
_REPO_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def faults_of(card: str, kind: str) -> tuple[list[str], list[str]]:
    """Return what is wrong with a card's front matter, and what its author should be warned of.

    Args:
        card: The whole README.
        kind: `dataset` or `model`.
    """
    block = REGEX_YAML_BLOCK.search(card)
    if block is None:
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        data = yaml.safe_load(block.group(2))
    except yaml.YAMLError as error:
        return [f"YAML Metadata Error: {error}"], []
    if not isinstance(data, dict):
        return ["YAML Metadata Error: it must be a mapping"], []
    errors = [f'"{key}" must be {wanted}' for key, wanted, is_right in _rules(data, kind) if not is_right]
    if "model-index" in data:
        try:
            model_index_to_eval_results(data["model-index"])
        except (KeyError, TypeError, ValueError) as error:
            errors.append(f'"model-index" cannot be read: {error!r}')
    return errors, []


def _rules(data: dict[str, Any], kind: str) -> list[tuple[str, str, bool]]:
    """Return key, what its value must be, and whether it is, for every key with a rule."""
    rules = [
        ("license", "one of the known licences", all(name in _LICENSES for name in _list(data, "license"))),
        ("language", "ISO 639 codes", all(_LANGUAGE.fullmatch(str(code)) for code in _list(data, "language"))),
        ("tags", "a list of strings", all(isinstance(tag, str) for tag in _list(data, "tags"))),
        ("pretty_name", "a string", isinstance(data.get("pretty_name", ""), str)),
    ]
    if data.get("license") == "other":
        rules.append(("license_name", "given for the licence `other`", "license_name" in data))
    if kind == "model":
        for key in ("datasets", "base_model"):
            names = _list(data, key)
            rules.append((key, "ids of repositories", all(_REPO_ID.fullmatch(str(name)) for name in names)))
        return rules
    sizes = _list(data, "size_categories")
    rules.append(("size_categories", "the Hub's sizes", all(_SIZES.fullmatch(str(size)) for size in sizes)))
    tasks = _list(data, "task_categories")
    rules.append(("task_categories", "a list of strings", all(isinstance(task, str) for task in tasks)))
    configs = _list(data, "configs")
    named = all(isinstance(config, dict) and isinstance(config.get("config_name"), str) for config in configs)
    rules.append(("configs", "a list of mappings with a `config_name`", named))
    infos = _list(data, "dataset_info")
    rules.append(("dataset_info", "a mapping or a list of them", all(isinstance(info, dict) for info in infos)))
    return rules


def _list(data: dict[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    return value if isinstance(value, list) else [] if value is None else [value]
