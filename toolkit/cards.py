"""Cards: READMEs generated from data by the templates in `cards/`, and merged with what people wrote into them.

A template marks every generated section with `<!-- generated:NAME -->` and `<!-- /generated:NAME -->`. Text outside
such blocks, and front matter keys that are not generated, belong to people.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import UserError
from toolkit.terminal_text import visible

if TYPE_CHECKING:
    import jinja2

LARGEST = 5_000_000  # bytes of a card; all that is done with one takes time in proportion to them
_LARGEST_FRONT_MATTER = 300_000  # characters; PyYAML reads some 100,000 a second
_OPENING = re.compile(r"<!-- generated:([\w-]+) -->\n")
_CLOSING = re.compile(r"<!-- /generated:([\w-]+) -->\n?")
_OF_PICTURES = re.compile(
    r"(?P<label>!\[)|\]\(\s*<?(?P<target>[^\s>)]+)|(?P<end>\])|(?P<tag><img\b)|\bsrc=[\"'](?P<source>[^\"']+)|(?P<close>>)"
)
# As the Hub's own client finds it, which takes blank lines before it and the end of the file behind it.
_FENCE = re.compile(r"^---[ \t]*(?:\n|\Z)", re.MULTILINE)


def render(template_name: str, **context: Any) -> str:
    """Render a card template.

    Args:
        template_name: File in `cards/`, e.g. `dataset.md.jinja`.
        context: Its variables; a missing one is an error.
    """
    return _environment().get_template(template_name).render(**context)


def document(metadata: Mapping[str, Any], body: str) -> str:
    """Put front matter above a body, its keys in the Hub's own order; keys without a value are left out."""
    from huggingface_hub import DatasetCardData
    from huggingface_hub.utils import yaml_dump

    keys = [*(key for key in vars(DatasetCardData()) if key in metadata), *metadata]
    data = {key: metadata[key] for key in keys if metadata[key] is not None}
    return f"---\n{yaml_dump(data, Dumper=_dumper(), sort_keys=False).strip()}\n---\n{body}"


def merge(existing: str, generated: str) -> str:
    """Bring a generated card into one that people may have edited.

    Generated blocks are replaced, dropped or added (behind the one they follow in the generated card); everything
    between them stays. In the front matter generated keys win and all others stay.

    Args:
        existing: The card as it is, or an empty text.
        generated: The new card.

    Raises:
        UserError: As of `split`, of the existing card.
    """
    if not existing.strip():
        return generated
    old_data, old_body = split(existing)
    new_data, new_body = split(generated)
    new_blocks = {name: block for name, block in _blocks(new_body) if name}
    kept = [name for name, _ in _blocks(old_body) if name in new_blocks]
    pieces = "".join(f"\0{name}\0" if name in new_blocks else "" if name else text for name, text in _blocks(old_body))
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
    ((wanted, _),) = _blocks(block)
    return "".join(block if name == wanted else text for name, text in _blocks(card))


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Take a text apart into generated blocks with their names, and what lies between, whose name is empty."""
    closings: dict[str, list[re.Match[str]]] = {}
    for closing in _CLOSING.finditer(text):
        closings.setdefault(closing.group(1), []).append(closing)
    for places in closings.values():
        places.reverse()  # the next one is the last of its list
    end = 0
    for opening in _OPENING.finditer(text):
        places = closings.get(opening.group(1), [])
        while places and places[-1].start() < opening.end():
            places.pop()
        if opening.start() < end or not places:
            continue
        if opening.start() > end:
            yield "", text[end : opening.start()]
        end = places[-1].end()
        yield opening.group(1), text[opening.start() : end]
    if end < len(text):
        yield "", text[end:]


def shown_files(card: str) -> set[str]:
    """Return the files beside a card that it shows as pictures, whoever wrote the reference to them."""
    shown = set()
    within = ""  # what is open: a picture's label, or the tag of one
    for found in _OF_PICTURES.finditer(card):
        if (kind := found.lastgroup) in ("label", "tag"):
            within = str(kind)
        elif (within, kind) in (("label", "target"), ("tag", "source")):
            shown.add(found.group(str(kind)))
            within = ""
        elif (within, kind) in (("label", "end"), ("label", "target"), ("tag", "close")):
            within = ""
    return {name for name in shown if ":" not in name and not name.startswith("/") and ".." not in name.split("/")}


def read_card(content: bytes, where: str) -> str:
    """Return the text of a card that people may have written.

    Args:
        content: The file.
        where: What it is, for errors.

    Raises:
        UserError: It is not UTF-8, or as of `split`.
    """
    try:
        text = content[: LARGEST + 1].decode(errors="strict" if len(content) <= LARGEST else "replace")
        split(text)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{where}: is not UTF-8: {error.reason} in line {line}; save it as UTF-8") from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return text


def split(card: str) -> tuple[dict[str, Any], str]:
    """Return a card's front matter and its body; as of `document`, turned around.

    Raises:
        UserError: The front matter is no YAML mapping of texts to values, or is not closed; the card is too large, or
            holds NUL bytes.
    """
    if len(card) > LARGEST:
        raise UserError(f"the card is larger than {LARGEST:,} bytes")
    card = card.removeprefix("\ufeff").replace("\r\n", "\n")
    if "\0" in card:
        raise UserError(f"the card holds a NUL byte in line {card.count(chr(10), 0, card.index(chr(0))) + 1}")
    opening = _FENCE.search(card)
    if opening is None or card[: opening.start()].strip():
        return {}, card
    closing = _FENCE.search(card, opening.end())
    if closing is None:
        raise UserError("the card's front matter is not closed: no line `---` behind the first one")
    line = card.count("\n", 0, opening.end()) + 1
    return _front_matter(card[opening.end() : closing.start()], line), card[closing.end() :]


def _front_matter(text: str, line: int) -> dict[str, Any]:
    """Parse front matter that begins in a line of its card."""
    if len(text) > _LARGEST_FRONT_MATTER:
        raise UserError(f"the card's front matter has {len(text):,} characters, allowed are {_LARGEST_FRONT_MATTER:,}")
    try:
        loader = _loader()("\n" * (line - 1) + text)  # so that it counts the card's lines
        node = loader.get_single_node()
        data = {} if node is None else loader.construct_document(node)
    # Besides YAMLError: ValueError of a date that there is not, RecursionError of deep nesting, and the like.
    except Exception as error:
        raise UserError(f"the card's front matter is not YAML: {error or type(error).__name__}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(f"the card's front matter must be a mapping, found {type(data).__name__}")
    names: set[str] = set()
    for key, _ in node.value if node else ():
        at = f"in line {key.start_mark.line + 1}"
        if key.tag != "tag:yaml.org,2002:str":
            raise UserError(
                f"the card's front matter has a key {at} that is no text: {_excerpt(key)}; put it in quotes"
            )
        if key.value in names:
            raise UserError(f"the card's front matter has the key {key.value!r} twice, again {at}")
        names.add(key.value)
    return data


def _excerpt(key: Any) -> str:
    return repr(key.value[:60]) if isinstance(key.value, str) else f"a {key.id}"


@lru_cache(maxsize=1)
def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Takes no aliases: a few of them stand for any amount of data, and some for data that holds itself."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            """Compose a node that is none."""
            if self.check_event(yaml.AliasEvent):
                event = self.peek_event()
                raise UserError(f"*{event.anchor} is an alias, allowed is only what stands there itself")
            return super().compose_node(parent, index)

    return Loader


@lru_cache(maxsize=1)
def _dumper() -> Any:
    import yaml

    class Dumper(yaml.Dumper):
        """Writes the same thing out wherever it occurs."""

        def ignore_aliases(self, data: Any) -> bool:
            """Make no alias of anything."""
            return True

    def text(dumper: Dumper, value: str) -> Any:
        # These end a line where they are read back, and are written as they are unless in quotes.
        style = '"' if set(value) & set("\x85\u2028\u2029\ufeff") else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return Dumper


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
    return visible(" ".join(str(text).split())).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _fenced(text: object) -> str:
    """Return text that cannot end the code block it stands in, and that no block of the card is mistaken in."""
    return visible(str(text)).replace("```", "'''").replace("<!--", "<! --")
