"""Licence identifiers as the Hub knows them. A card with any other is refused there, after all the work.

The list is the Hub's own (docs/hub/repositories-licenses), which does not change with a release of its client.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from toolkit.errors import nearest

_NAMES = """
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
_ON_THE_HUB = frozenset(_NAMES.split())
# SPDX identifiers, in small letters, that the Hub calls otherwise; others are the same but for capitals.
_FROM_SPDX = {
    "c-uda-1.0": "c-uda",
    "lgpllr": "lgpl-lr",
    "odbl-1.0": "odbl",
    "odc-by-1.0": "odc-by",
    "pddl-1.0": "pddl",
    **{f"gfdl-{number}": "gfdl" for number in ("1.1", "1.2", "1.3")},
}


def hub_licence(text: str) -> str:
    """Return the Hub's identifier of a licence, given by it or by its SPDX identifier.

    Raises:
        ValueError: The Hub knows no such licence.
    """
    name = text.lower()
    if re.match(r"(a|l)?gpl-|gfdl-", name):
        name = re.sub(r"-(only|or-later)$", "", name)  # which the Hub does not tell apart
        name = re.sub(r"-(no-)?invariants$", "", name)
    name = _FROM_SPDX.get(name, name)
    if name not in _ON_THE_HUB:
        known = "a licence identifier of the Hub, such as apache-2.0, or other"
        raise ValueError(f"allowed {known}{nearest(name, sorted(_ON_THE_HUB))}")
    return name


Licence = Annotated[str, AfterValidator(hub_licence)]
