"""The `distill` command. Commands import what they need when they run, so that `--help` answers at once."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit import store_commands
from toolkit.disk_faults import REMEDY, disk_fault
from toolkit.errors import UserError
from toolkit.library_output import quiet_libraries
from toolkit.terminal_text import plain_streams

if TYPE_CHECKING:
    from toolkit.recipe import Builders, Recipe

_OVERRIDES = "KEY=VALUE with a dotted key, e.g. stages.0.training.learning_rate=1e-4"
_VERBOSE = "also show the warnings and progress bars of libraries"


def known_builders() -> Builders:
    """Return the builders of `dataset_builders` as `load_recipe` wants them; a builder is imported when it is named."""
    from dataset_builders import BUILDERS, load_builder
    from toolkit.recipe import Builders

    def find(name: str) -> tuple[type, dict[str, str]] | None:
        if name not in BUILDERS:
            return None
        builder = load_builder(name)
        return builder.SETTINGS, builder.view_columns()

    return Builders(tuple(BUILDERS), find)


def open_recipe(path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe against the builders there are.

    Raises:
        RecipeFaults: Anything is wrong with it.
    """
    from toolkit.recipe import load_recipe

    return load_recipe(path, overrides, known_builders())


def _validate(args: argparse.Namespace) -> None:
    from toolkit.recipe import RecipeFaults

    recipes, overrides = _told_apart(args.words)
    faults = []
    for path in recipes:
        try:
            recipe = open_recipe(path, overrides)
            recipe.check_files()
            print("\n".join([f"{path}: {recipe.summary()}", *(f"note: {note}" for note in recipe.notes)]))
        except RecipeFaults as found:
            faults += found.faults
    if faults:
        raise RecipeFaults(faults)


# A recipe is checked before what its command needs is imported: a mistake is told at once, not after torch has loaded.


def _explain(args: argparse.Namespace) -> None:
    recipe = _one_recipe(args)
    from toolkit.explain import explain

    explain(recipe, args.n, args.html)


def _build(args: argparse.Namespace) -> None:
    if args.retry_failed:
        args.words.append("dataset.config.collect.retry_failed=true")
    recipe = _one_recipe(args)
    recipe.check_files()
    from toolkit.pipeline import build

    build(recipe, args.dry_run, args.engine)


def _train(args: argparse.Namespace) -> None:
    recipe = _one_recipe(args)
    recipe.check_files()
    from toolkit.pipeline import train

    train(recipe)


def _evaluate(args: argparse.Namespace) -> None:
    recipe = _one_recipe(args)
    from toolkit.pipeline import evaluate

    evaluate(recipe)


def _card(args: argparse.Namespace) -> None:
    recipe = _one_recipe(args)
    from toolkit.card_drafts import render_cards

    render_cards(recipe, args.output)


def _reproduce(args: argparse.Namespace) -> int:
    from toolkit.reproducing import reproduce

    return reproduce(args.repo_id, args.revision, args.hub_dir, args.output, args.run_it, open_recipe)


def _publish(args: argparse.Namespace) -> None:
    recipe = _one_recipe(args)
    from toolkit.hub_remote import user
    from toolkit.publishing import publish, published_names

    publisher = user()  # who may not publish is told so first, and in a rehearsal
    # On the Hub a name without an organisation is its publisher's own.
    names = {key: name for key, name in published_names(recipe).items() if args.to or "/" not in name}
    if names:
        owner = args.to or publisher
        args.words += [f"{key}={owner}/{name.rpartition('/')[2]}" for key, name in names.items()]
        recipe = _one_recipe(args)
    options = {"private": args.private, "dry_run": args.dry_run, "yes": args.yes, "collection": args.collection}
    publish(recipe, args.kinds, **options)


def _compare(args: argparse.Namespace) -> None:
    recipes, overrides = _told_apart(args.words)
    from toolkit.compare import Order, compare

    order = Order(recipes, overrides, args.seeds, args.baseline, args.tokens, args.output)
    compare(order, open_recipe)


def _told_apart(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return recipes and overrides; a file may have an equals sign in its name."""
    overrides = [word for word in words if "=" in word and not os.path.exists(word)]
    recipes = [word for word in words if word not in overrides]
    if not recipes:
        raise UserError(f"found {' '.join(overrides)}, but no recipe; name its file first")
    return recipes, overrides


def _one_recipe(args: argparse.Namespace) -> Recipe:
    recipes, overrides = _told_apart(args.words)
    if len(recipes) > 1:
        raise UserError(f"found {len(recipes)} recipes ({', '.join(recipes)}), allowed one; overrides are {_OVERRIDES}")
    return open_recipe(recipes[0], overrides)


def _name(text: str) -> str:
    """Return a name; an empty one, as of a variable of the shell that is not set, is no name left out."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed a name; without one leave the option away")
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed a whole number >= 1")
    return int(text)


def _seed_or_word(text: str) -> int | str:
    """Return a seed; a word behind the seeds is left for `_parsed`, a wrong seed is refused."""
    if text.isdecimal():
        return int(text)
    if re.fullmatch(r"[-+.\d]+", text):
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed whole numbers >= 0")
    return text


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    distill = argparse.ArgumentParser(prog="distill", description="Distil reasoning from large models into small ones.")
    commands = distill.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        more = "RECIPE|KEY=VALUE" if name in ("validate", "compare") else "KEY=VALUE"
        added.add_argument("recipe", metavar="RECIPE", help="file of a recipe")
        added.add_argument("words", nargs="*", metavar=more, help=f"overrides are {_OVERRIDES}")
        added.add_argument("--verbose", action="store_true", help=_VERBOSE)
        added.set_defaults(run=run)
        return added

    command("validate", _validate, "check recipes and list every fault, without loading torch")
    explain = command("explain", _explain, "show a few records as the loss sees them, tokens coloured by weight")
    explain.add_argument("--n", type=_positive, default=3, help="records to show (default: 3)")
    explain.add_argument("--html", type=Path, metavar="FILE", help="also write a self-contained page")
    build = command("build", _build, "ask the teacher and publish the dataset")
    build.add_argument("--dry-run", action="store_true", help="say what would be asked and written, and do neither")
    build.add_argument("--retry-failed", action="store_true", help="ask again what failed for good in an earlier run")
    build.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ask and judge in this process, or on all machines of a Ray cluster (default: local)",
    )
    command("train", _train, "train the student, resuming an interrupted run; `accelerate launch toolkit/train.py` too")
    command("evaluate", _evaluate, "score a trained student")
    card = command("card", _card, "render the cards of the dataset and the trained student, and publish nothing")
    card.add_argument("--output", type=Path, metavar="FOLDER", help="where they go (default: beside the recipe's runs)")
    publish = command("publish", _publish, "upload the dataset and the trained student to the Hub, and tag them")
    only = publish.add_mutually_exclusive_group()
    only.add_argument("--dataset", dest="kinds", action="store_const", const=["dataset"], help="only the dataset")
    only.add_argument("--student", dest="kinds", action="store_const", const=["model"], help="only the student")
    publish.set_defaults(kinds=[])
    publish.add_argument(
        "--to", type=_name, metavar="ORG", help="organisation or user (default: the recipe's, or else your own)"
    )
    publish.add_argument(
        "--collection", type=_name, metavar="TITLE", help="also put both into this collection of the same owner"
    )
    publish.add_argument("--private", action="store_true", help="make new repositories private ones")
    publish.add_argument(
        "--dry-run", action="store_true", help="make the folders, read the Hub, check, and send nothing"
    )
    publish.add_argument("--yes", action="store_true", help="do not ask before sending")
    compare = command(
        "compare", _compare, "train and score several recipes with several seeds, and show them on one page"
    )
    compare.add_argument("--baseline", metavar="NAME", help="recipe to test the others against (default: the first)")
    compare.add_argument("--seeds", nargs="+", type=_seed_or_word, default=[0], metavar="SEED", help="default: 0")
    compare.add_argument("--tokens", type=_positive, metavar="N", help="have every recipe train on so many tokens")
    compare.add_argument("--output", type=Path, metavar="FOLDER", help="where the page goes")
    about = "say what makes a published student or dataset again, or do it and compare"
    again = commands.add_parser("reproduce", help=about, description=about[0].upper() + about[1:] + ".")
    again.add_argument("repo_id", metavar="REPO_ID", help="name in the local hub, or else on the Hub")
    again.add_argument("--revision", metavar="TAG", help="version (default: the newest)")
    again.add_argument("--hub-dir", type=Path, default=Path("hub"), metavar="FOLDER", help="local hub (default: hub)")
    again.add_argument("--run", dest="run_it", action="store_true", help="build, train and compare, in a new folder")
    again.add_argument("--output", type=Path, metavar="FOLDER", help="that folder (default: reproduced/NAME-TAG)")
    again.add_argument("--verbose", action="store_true", help=_VERBOSE)
    again.set_defaults(run=_reproduce)
    store_commands.declare(commands)
    return distill


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; overrides may also stand behind an option."""
    distill = parser()
    args, rest = distill.parse_known_args(argv)
    if unknown := [word for word in rest if word.startswith("-")]:
        distill.error(f"unrecognized arguments: {' '.join(unknown)}")
    if args.command in ("store", "reproduce"):
        if rest:
            distill.error(f"unrecognized arguments: {' '.join(rest)}")
        args.words = []
        return args
    args.words = [args.recipe, *args.words, *rest]
    if args.command == "compare":
        args.words += [word for word in args.seeds if isinstance(word, str)]
        args.seeds = [seed for seed in args.seeds if isinstance(seed, int)]
    return args


def check_words(argv: Sequence[str]) -> None:
    """Check the words of a command about one recipe, and the recipe, without doing anything.

    Raises:
        RecipeFaults: Anything is wrong with the recipe.
    """
    _one_recipe(_parsed(argv)).check_files()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0; 1 where `store` found damage or `reproduce` a difference; 2 after a user's mistake or where the disk refuses;
        130 after an interruption.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show a character is no error
    with plain_streams():
        return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    """Run a command; as of `main`."""
    args = _parsed(argv)
    try:
        # `store` has no such option: no library that speaks is at work in it.
        with nullcontext() if getattr(args, "verbose", False) else quiet_libraries():
            code = args.run(args) or 0
        sys.stdout.flush()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:  # `distill ... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        told = disk_fault(error)
        if told is not None:
            print(f"{told}. {REMEDY}", file=sys.stderr)
        elif isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
            print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        else:
            raise
        return 2
    except KeyboardInterrupt:
        print(f"interrupted; `distill {args.command}` with the same words goes on from here", file=sys.stderr)
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
