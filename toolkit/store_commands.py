"""`distill store`: looks into stores of completions, moves them, checks them and mends them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.store_files import MergeReport

Run = Callable[[argparse.Namespace], int | None]


def declare(commands: Any) -> None:
    """Add `store` and its subcommands to the commands of `distill`."""
    about = "inspect, export, import, merge, verify, recover and prune stores of completions"
    store = commands.add_parser("store", help=about, description=about[0].upper() + about[1:] + ".")
    kinds = store.add_subparsers(dest="store_command", required=True, metavar="COMMAND")

    def command(name: str, run: Run, about: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = kinds.add_parser(
            name, help=about, description=about[0].upper() + about[1:] + "."
        )
        added.add_argument("store", metavar="STORE", type=Path, help="file of a store")
        added.set_defaults(run=run)
        return added

    command("inspect", _inspect, "say what a store holds, and who is collecting into it")
    to_file = command("export", _export, "write all of a store to a file that others can read")
    to_file.add_argument("file", metavar="FILE", type=Path, help="ends in .parquet or .jsonl; is replaced")
    from_file = command("import", _import, "bring the rows of an exported file into a store; exit code 1 if any is bad")
    from_file.add_argument("file", metavar="FILE", type=Path, help="what `export` wrote")
    merge = command("merge", _merge, "bring other stores into this one; in a conflict the first answer stays")
    merge.add_argument("sources", metavar="SOURCE", type=Path, nargs="+", help="stores, which stay as they are")
    command("verify", _verify, "check every page and row; exit code 1 where anything is damaged")
    recover = command("recover", _recover, "copy every healthy row of a damaged store into a new one")
    recover.add_argument("new", metavar="NEW", type=Path, help="the new store")
    prune = command("prune", _prune, "drop completions, or failures, so that they are asked again")
    prune.add_argument("--failures", action="store_true", help="drop failures instead of completions")
    prune.add_argument("--model", metavar="NAME", help="only what was asked of this model")
    prune.add_argument("--before", metavar="DAY", type=_day, help="only what was stored before this day (UTC)")
    prune.add_argument("--yes", action="store_true", help="do it; without it, only say what would be dropped")


def _inspect(args: argparse.Namespace) -> None:
    from toolkit.store_files import contents

    found = contents(args.store)
    row = "{:32} {:>11} {:>13} {:>11} {:>17} {:>9}"
    print(row.format("model", "completions", "prompt tokens", "cached", "completion tokens", "batched"))
    for model, counts in found.models.items():
        print(row.format(_plain(model), *(f"{count:,}" for count in counts)))
    for reason, is_permanent, count in found.failures[:10]:
        again = "asked again with retry_failed" if is_permanent else "asked again"
        print(f"failed {count:,}x, {again}: {_plain(reason)}")
    if others := found.failures[10:]:
        print(f"failed {sum(count for _, _, count in others):,}x for {len(others):,} other reasons")
    if found.first:
        print(f"stored from {found.first} to {found.last}")
    if found.holder:
        print(f"{found.holder} is collecting into it")
    _print_damage(found.damage, args.store)
    completions = sum(count for count, *_ in found.models.values())
    failures = sum(count for _, _, count in found.failures)
    print(f"{args.store}: {_rows(completions, failures)}, {_size(found.size)}")


def _export(args: argparse.Namespace) -> None:
    from toolkit.store_exports import export

    report = export(args.store, args.file)
    print(
        f"{args.file}: {_rows(report.completions, report.failures)}, {_size(report.size)}; "
        f"next: `distill store import NEW {args.file}` wherever it is wanted"
    )


def _import(args: argparse.Namespace) -> int:
    from toolkit.store_exports import import_rows

    report = import_rows(args.store, args.file)
    for fault in report.faults:
        print(f"refused {fault}")
    if more := report.refused - len(report.faults):
        print(f"refused {more:,} more")
    print(f"{args.store}: {_added(report)}, {report.refused:,} refused; next: `distill store inspect {args.store}`")
    return 1 if report.refused else 0


def _merge(args: argparse.Namespace) -> None:
    from toolkit.store_files import merge

    report = merge(args.store, args.sources)
    print(f"{args.store}: {_added(report)}; next: `distill store inspect {args.store}`")


def _verify(args: argparse.Namespace) -> int:
    from toolkit.store_files import verify

    report = verify(args.store)
    for line in report.damage:
        print(f"damaged: {line}")
    rows = _rows(report.completions, report.failures)
    if report.damage:
        print(f"{args.store}: damaged, {rows} readable and healthy; next: `distill store recover {args.store} NEW`")
        return 1
    print(f"{args.store}: nothing damaged, {rows}; next: `distill store inspect {args.store}`")
    return 0


def _recover(args: argparse.Namespace) -> None:
    from toolkit.store_files import recover

    report = recover(args.store, args.new)
    lost = "how many are lost cannot be told" if report.lost is None else f"{report.lost:,} lost"
    print(
        f"{args.new}: {_rows(report.added, report.failures)} saved, {lost}; "
        f"next: put it in the place of {args.store} and its -wal and -shm"
    )


def _prune(args: argparse.Namespace) -> None:
    from toolkit.store_files import prune

    report = prune(args.store, failures=args.failures, model=args.model, before=args.before, dry=not args.yes)
    what = "failures" if args.failures else "completions"
    _print_damage(report.damage, args.store)
    if not args.yes:
        print(f"{args.store}: would drop {report.dropped:,} {what}; next: the same command with --yes")
        return
    print(
        f"{args.store}: dropped {report.dropped:,} {what}, {_size(report.bytes_before)} before, "
        f"{_size(report.bytes_after)} now; next: `distill build`, which asks for what it misses"
    )


def _plain(text: str) -> str:
    """Return what somebody else wrote as a terminal may have it."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _print_damage(damage: Sequence[str], store: Path) -> None:
    for line in damage:
        print(f"damaged: {line}")
    if damage:
        print(f"`distill store verify {store}` looks at every row")


def _rows(completions: int, failures: int) -> str:
    return f"{completions:,} completions and {failures:,} failures"


def _added(report: MergeReport) -> str:
    return f"{_rows(report.added, report.failures)} added, {report.known:,} known, {report.conflicts:,} conflicts"


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed a day like 2026-01-31") from None
