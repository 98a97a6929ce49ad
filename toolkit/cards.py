"""Cards: READMEs generated from data by the templates in `cards/`, and merged with what people wrote into them.

A template marks every generated section with `<!-- generated:NAME -->` and `<!-- /generated:NAME -->`. Text outside
such blocks, and front matter keys that are not generated, belong to people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import UserError

if TYPE_CHECKING:
    import jinja2

_BLOCK = re.compile(r"<!-- generated:(?P<name>[\w-]+) -->\n.*?<!-- /generated:(?P=name) -->\n?", re.DOTALL)
_PICTURE = re.compile(r"!\[[^\]]*\]\(\s*<?([^\s>)]+)|<img\b[^>]*?\bsrc=[\"']([^\"']+)")
_FRONT_MATTER = re.compile(r"\A---\n(?P<yaml>.*?\n)---\n", re.DOTALL)


def render(template_name: str, **context: Any) -> str:
    """Render a card template.

    Args:
        template_name: File in `cards/`, e.g. `dataset.md.jinja`.
        context: Its variables; a missing one is an error.
    """
    return _environment().get_template(template_name).render(**context)


def document(metadata: Mapping[str, Any], body: str) -> str:
    """Put front matter above a body; keys without a value are left out."""
    from huggingface_hub import DatasetCardData

    # The class only sorts out empty keys and writes the YAML as the Hub does; model cards share that.
    return f"---\n{DatasetCardData(**metadata).to_yaml()}\n---\n{body}"


def merge(existing: str, generated: str) -> str:
    """Bring a generated card into one that people may have edited.

    Generated blocks are replaced, dropped or added (behind the one they follow in the generated card); everything
    between them stays. In the front matter generated keys win and all others stay.

    Args:
        existing: The card as it is, or an empty text.
        generated: The new card.

    Raises:
        UserError: The existing card's front matter is not a YAML mapping.
    """
    if not existing.strip():
        return generated
    old_data, old_body = split(existing)
    new_data, new_body = split(generated)
    new_blocks = {match["name"]: match.group() for match in _BLOCK.finditer(new_body)}
    kept = [match["name"] for match in _BLOCK.finditer(old_body) if match["name"] in new_blocks]
    pieces = _BLOCK.sub(lambda match: f"\0{match['name']}\0" if match["name"] in new_blocks else "", old_body)
    after = ""
    for name in new_blocks:
        if name not in kept:
            anchor = f"\0{after}\0"
            place = pieces.index(anchor) + len(anchor) if after else len(pieces)
            separator = "" if not place or pieces[place - 1] in "\n\0" else "\n"
            pieces = f"{pieces[:place]}{separator}\0{name}\0{pieces[place:]}"
        after = name
    body = re.sub(r"\0([\w-]+)\0", lambda match: new_blocks[match.group(1)], pieces)
    return document({**new_data, **{key: old_data[key] for key in old_data if key not in new_data}}, body)


def with_block(card: str, block: str) -> str:
    """Put a generated block in the place of the card's block of the same name; a card without one stays as it is."""
    match = _BLOCK.fullmatch(block)
    assert match is not None
    return _BLOCK.sub(lambda old: block if old["name"] == match["name"] else old.group(), card)


def shown_files(card: str) -> set[str]:
    """Return the files beside a card that it shows as pictures, whoever wrote the reference to them."""
    shown = {name for found in _PICTURE.findall(card) for name in found if name}
    return {name for name in shown if ":" not in name and not name.startswith("/") and ".." not in name.split("/")}


def split(card: str) -> tuple[dict[str, Any], str]:
    """Return a card's front matter and its body; as of `document`, turned around.

    Raises:
        UserError: The front matter is not a YAML mapping.
    """
    import yaml

    card = card.replace("\r\n", "\n")
    match = _FRONT_MATTER.match(card)
    if match is None:
        return {}, card
    try:
        data = yaml.safe_load(match["yaml"]) or {}
    except yaml.YAMLError as error:
        raise UserError(f"the card's front matter is not YAML: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"the card's front matter must be a mapping, found {type(data).__name__}")
    return data, card[match.end() :]


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    import jinja2

    here = Path(__file__).parent
    # In a wheel the templates lie in the package, in a checkout beside it.
    folders = [here / "cards", here.parent / "cards"]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([str(folder) for folder in folders]),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _cell
    environment.filters["fenced"] = _fenced
    environment.filters["percent"] = lambda share: "–" if share is None else f"{100 * share:.1f} %"
    return environment


def _cell(text: object) -> str:
    """Return text that cannot break out of a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


def _fenced(text: object) -> str:
    """Return text that cannot end the code block it stands in, and that no block of the card is mistaken in."""
    return str(text).replace("```", "'''").replace("<!--", "<! --")
