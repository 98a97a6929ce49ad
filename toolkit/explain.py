"""`distill explain`: a few records as the loss sees them, every token coloured by its weight.

Green is made likelier, red less likely, grey is seen and not scored; the deeper, the heavier. What is underlined is to
be what a teacher thought likely there. What is shown is what `encoding` gives the trainer, not a second rendering.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.encoding import Softened, encode_record
from toolkit.stage_views import StageViews
from toolkit.terminal_text import escaped, raw_stream, visible
from toolkit.tokenized_views import TokenizedView

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from toolkit.recipe import Recipe, Stage


@dataclass(frozen=True)
class ShownView:
    """One view of one record as the loss sees it.

    Attributes:
        title: Stage, view and record.
        about: Coefficient, reduction and counts, in words.
        tokens: (text, weight, is in the prompt) of each token.
        soft: By position what a teacher thought likely in a token's place: (text, probability), the likeliest first.
    """

    title: str
    about: str
    tokens: list[tuple[str, float, bool]]
    soft: dict[int, list[tuple[str, float]]] = field(default_factory=dict)

    @property
    def scale(self) -> float:
        """Largest absolute weight, 1 where there is none."""
        return max((abs(weight) for _, weight, _ in self.tokens), default=0.0) or 1.0


def shown_views(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict[str, Any]],
    stages: Sequence[Stage],
    prompt_format: str,
    n: int,
) -> Iterator[ShownView]:
    """Yield every view of every stage for the first `n` records that the stage trains on."""
    for stage in stages:
        views = StageViews(stage, rows)
        names = list(stage.views)
        all_shown = ((row, encode_record(tokenizer, views, index, prompt_format)) for index, row in enumerate(rows))
        for row, encoded in islice(((row, encoded) for row, encoded in all_shown if encoded), n):
            for tokenized, sequence in encoded:
                name = names[sequence.views[0]]
                view = stage.views[name]
                weighted = sum(weight != 0 for weight in sequence.weights)
                target = int((tokenized.segments >= 0).sum())
                about = (
                    f"coefficient {view.coefficient:g}, token weights {view.token_weights}, reduction by "
                    f"{stage.reduction.by} over {stage.reduction.over}; {len(sequence.input_ids)} tokens, "
                    f"{target} in the target, {weighted} weighted{_softened(tokenized)}"
                )
                yield ShownView(
                    f"stage {stage.name} / view {name} / record {row.get('id', '?')}",
                    about,
                    [
                        (text, weight, segment < 0)
                        for text, weight, segment in zip(
                            _token_texts(tokenizer, sequence.input_ids),
                            sequence.weights,
                            tokenized.segments,
                            strict=True,
                        )
                    ],
                    _soft_texts(tokenizer, tokenized),
                )


def _softened(tokenized: TokenizedView) -> str:
    """Return how many tokens have a teacher's distribution, in words; nothing where none was to have one."""
    counted = Softened()
    counted.add(tokenized)
    if not counted.tokens:
        return ""
    return (
        f"; {counted.aligned} of {counted.tokens} tokens with soft targets are the teacher's too, and keep "
        f"{counted.mass:.2f} of its probability ({counted.unmapped:.2f} has no token)"
    )


def _soft_texts(tokenizer: PreTrainedTokenizerBase, tokenized: TokenizedView) -> dict[int, list[tuple[str, float]]]:
    return {
        position: sorted(
            ((str(tokenizer.decode([token])), prob) for token, prob in zip(target.ids, target.probs, strict=True)),
            key=lambda one: -one[1],
        )
        for position, target in enumerate(tokenized.soft)
        if target is not None
    }


def _token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Return the text that each token adds; a character written in several tokens stands at its last one."""
    texts: list[str] = []
    said, start = "", 0
    for end in range(1, len(ids) + 1):
        now = str(tokenizer.decode(list(ids[start:end]), clean_up_tokenization_spaces=False))
        incomplete = now.endswith("\N{REPLACEMENT CHARACTER}") and end < len(ids)
        texts.append("" if incomplete else now[len(said) :])
        said = said if incomplete else now
        if said.endswith("\n"):  # keeps the decoded text short: decoding from the start again would be quadratic
            said, start = "", end
    return texts


def as_terminal_text(view: ShownView) -> Any:
    """Return a view as `rich` text."""
    from rich.text import Text

    text = Text(visible(f"{view.title}\n"), style="bold").append(visible(f"{view.about}\n"), style="dim not bold")
    for position, (token, weight, in_prompt) in enumerate(view.tokens):
        shown = visible(token).replace("\n", "↵\n")
        line = " underline" if position in view.soft else ""
        if weight:
            strength = 60 + int(140 * abs(weight) / view.scale)
            colour = f"rgb(0,{strength},0)" if weight > 0 else f"rgb({strength},0,0)"
            text.append(shown, style=f"white on {colour} not bold{line}")
        else:
            text.append(shown, style="dim italic not bold" if in_prompt else "bright_black not bold")
    return text.append("\n")


def as_html(views: Sequence[ShownView]) -> str:
    """Return the views as an HTML fragment with its own style sheet."""
    parts = [_STYLE, _LEGEND]
    for view in views:
        parts.append(f'<section class="view"><h3>{escaped(view.title)}</h3><p>{escaped(view.about)}</p><pre>')
        for position, (token, weight, in_prompt) in enumerate(view.tokens):
            shown = escaped(token).replace("\n", "<i>↵</i>\n")
            if weight:
                share = 0.25 + 0.75 * abs(weight) / view.scale
                hue = 130 if weight > 0 else 5
                likely = view.soft.get(position, [])
                told = "".join(f", {escaped(repr(text))} {prob:.3f}" for text, prob in likely)
                mark = ' class="soft"' if likely else ""
                parts.append(
                    f'<b title="weight {weight:.6g}{told}" style="background:hsla({hue},65%,45%,{share:.2f})"{mark}>'
                    f"{shown}</b>"
                )
            else:
                parts.append(f'<span class="{"prompt" if in_prompt else "context"}">{shown}</span>')
        parts.append("</pre></section>")
    return "".join(parts)


_STYLE = """<style>
.view pre{white-space:pre-wrap;overflow-wrap:anywhere;font:14px/1.7 ui-monospace,Menlo,Consolas,monospace;
background:#fff;border:1px solid #ddd;border-radius:6px;padding:.8em}
.view b{font-weight:inherit;border-radius:2px;padding:1px 0}.view i{opacity:.45;font-style:normal}
.view .soft{text-decoration:underline}.view p{color:#555;margin:.2em 0}.view h3{margin:1.4em 0 .2em;font-size:1.05em}
.prompt{color:#888;font-style:italic}.context{color:#666}
.key span,.key b{padding:1px 6px;border-radius:3px;margin-right:1em;font-weight:normal}
</style>"""
_LEGEND = """<p class="key"><span class="prompt">prompt</span><span class="context">target without weight</span>
<b style="background:hsla(130,65%,45%,.8)">made likelier</b><b style="background:hsla(5,65%,45%,.8)">made less
likely</b> the deeper, the heavier within its view; the weight stands under the pointer, and where a token is underlined
what the teacher thought likely in its place</p>"""


def page(title: str, body: str) -> str:
    """Return a self-contained HTML page."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escaped(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><style>'
        "body{font:16px/1.5 system-ui,sans-serif;"
        "max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fafafa}</style></head><body>"
        f"<h1>{escaped(title)}</h1>{body}</body></html>\n"
    )


def explain(recipe: Recipe, n: int = 3, html_path: Path | None = None) -> None:
    """Show `n` records of the built dataset in the terminal and, where asked, as a self-contained page.

    Asks no teacher, builds and publishes nothing: what a tokenizer is trained for is forgotten again.

    Raises:
        UserError: The recipe has no stages, or its dataset is not built.
    """
    from rich.console import Console

    from toolkit.pipeline import built_rows, student_tokenizer

    rows = built_rows(recipe)
    tokenizer = student_tokenizer(recipe, rows)
    prompt_format = recipe.student.prompt_format if recipe.student else "plain"
    views = list(shown_views(tokenizer, rows, recipe.stages, prompt_format, n))
    console = Console(file=raw_stream(sys.stdout), highlight=False)
    for view in views:
        console.print(as_terminal_text(view))
    if html_path:
        html_path.parent.mkdir(parents=True, exist_ok=True)
        html_path.write_text(page(f"{recipe.recipe.name}: what the loss sees", as_html(views)), encoding="utf-8")
        print(f"page: {html_path}")
