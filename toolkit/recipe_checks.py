"""What must agree between the parts of a recipe, checked on plain data.

A part that is wrong in itself is passed over here: `recipe_faults.shape_faults` tells of it, and one faulty section
must not hide what is wrong in the others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from toolkit.errors import UserError, nearest
from toolkit.held_out import validation_faults
from toolkit.problem import QUESTION_COLUMNS
from toolkit.recipe_faults import Path
from toolkit.student_checks import student_faults
from toolkit.training_fields import tracker_fault
from toolkit.transform_settings import Transform, check_order
from toolkit.views import columns as columns_of
from toolkit.views import parse_each

_TRANSFORMS = TypeAdapter(list[Transform])

Found = Iterator[tuple[Path, str]]


def meaning_faults(data: Mapping[str, Any], builders: Collection[str], columns: Mapping[str, str] | None) -> Found:
    """Give path and text of everything that is well-formed and still cannot be meant.

    Args:
        data: The recipe as plain data.
        builders: Names of the dataset builders.
        columns: Dotted paths of the columns that views may use, each with the builder's setting that would have to ask
            for it, empty where the column is there; or None where they are not known.
    """
    yield from _dataset(_mapping(data.get("dataset")), builders)
    yield from student_faults(data)
    views = _views_by_name(data.get("stages"))
    yield from _stages(("stages",), data.get("stages"), columns)
    references = _mapping(data.get("references"))
    theirs = {name: _views_by_name(_mapping(one).get("stages")) or views for name, one in references.items()}
    yield from _decode(("decode",), data.get("decode"), views, theirs, columns)
    yield from _beside(data)
    if data.get("evaluation") is not None and data.get("decode") is None:
        yield ("decode",), "missing: `evaluation` needs to know how answers are got, at least decode.view"
    called = [stage.get("name") for stage in _listed_mappings(data.get("stages"))]
    for name, reference in references.items():
        reference = _mapping(reference)
        path: Path = ("references", name)
        if name in called:
            yield path, f"found {name!r}, the name of stage {called.index(name)} already, whose student is called by it"
        yield from _stages((*path, "stages"), reference.get("stages"), columns)
        own = theirs[name]
        if reference.get("decode") is not None:
            yield from _decode((*path, "decode"), reference["decode"], own, theirs, columns)
        else:
            for turn in _turns(_mapping(data.get("decode"))):
                inherited = str(turn.get("view"))
                if inherited in views and inherited not in own:
                    yield path, f"decode missing: the recipe's decode.view {inherited!r} is not one of {_listed(own)}"


def _dataset(dataset: Mapping[str, Any], builders: Collection[str]) -> Found:
    builder = dataset.get("builder")
    if isinstance(builder, str) and builder not in builders:
        yield (
            ("dataset", "builder"),
            f"found {builder!r}, allowed {_listed(builders)}{nearest(builder, builders)}, "
            "or null for a dataset that is published already",
        )
    if builder is None and dataset.get("config") is not None:
        yield ("dataset", "config"), "found a builder's settings, but dataset.builder names no builder"
    revision = dataset.get("revision")
    if builder is not None and isinstance(revision, str) and len(revision) == 40 and "." not in revision:
        yield ("dataset", "revision"), f"found {revision!r}, allowed a version tag like 'v1.2.3' for what is built here"


# --- stages


def _stages(path: Path, stages: Any, columns: Mapping[str, str] | None) -> Found:
    seen: dict[str, int] = {}
    for index, stage in enumerate(stages if isinstance(stages, list) else []):
        if not isinstance(stage, Mapping):
            continue
        name = stage.get("name")
        if isinstance(name, str) and seen.setdefault(name, index) != index:
            yield (*path, index, "name"), f"found {name!r}, the name of stage {seen[name]} already"
        yield from _views((*path, index, "views"), _mapping(stage.get("views")), columns)
        training = _mapping(stage.get("training"))
        yield from _balanced((*path, index), _mapping(stage.get("views")), training)
        if training.get("bf16") is True and training.get("fp16") is True:
            yield (*path, index, "training", "fp16"), "found beside bf16, allowed is one of the two"
        told = training.get("report_to")
        for number, tracker in enumerate(told if isinstance(told, list) else [told]):
            if isinstance(tracker, str) and (text := tracker_fault(tracker)):
                where = ("report_to", number) if isinstance(told, list) else ("report_to",)
                yield (*path, index, "training", *where), text
        for key, text in validation_faults(stage, training):
            yield (*path, index, *key.split(".")), text


def _balanced(path: Path, views: Mapping[str, Any], training: Mapping[str, Any]) -> Found:
    """Views that see another record in every epoch need the sequences one by one, and the order to themselves."""
    for name, view in views.items():
        if _mapping(_mapping(view).get("select")).get("draw") != "balanced":
            continue
        if _mapping(view).get("each") is not None:
            yield (*path, "views", name, "select"), "found draw balanced beside `each`, allowed is one of the two"
        for key in ("packing", "train_sampling_strategy"):
            if training.get(key):
                yield (
                    (*path, "training", key),
                    f"found beside a balanced view ({name}), whose records change each epoch",
                )


def _views(path: Path, views: Mapping[str, Any], columns: Mapping[str, str] | None) -> Found:
    keyed = [name for name, view in views.items() if _mapping(view).get("token_weights") == "key_steps"]
    if len(keyed) not in (0, 2):
        yield path, f"found token_weights key_steps on {_listed(keyed)}, allowed on two views of a stage or on none"
    elif keyed and _mapping(views[keyed[0]]).get("select") != _mapping(views[keyed[1]]).get("select"):
        yield (
            (*path, keyed[1], "select"),
            f"found other records than {keyed[0]} has, whose chains these are aligned with",
        )
    for name in keyed:
        if _mapping(views[name]).get("each") is not None:
            yield (*path, name, "each"), "found beside token_weights key_steps, which align one chain with one other"
    if views and all(_mapping(view).get("coefficient", 1) == 0 for view in views.values()):
        yield path, "found coefficient 0 on every view, nothing would be learnt"
    for name, view in views.items():
        yield from _view((*path, name), _mapping(view), columns)


def _view(path: Path, view: Mapping[str, Any], columns: Mapping[str, str] | None) -> Found:
    # `steps[].question` of a builder is the column of a list: all of it, or with `each` that of one item.
    shown = None if columns is None else {column.replace("[]", ""): needs for column, needs in columns.items()}
    item, listed = _each(view)
    if not _each_is_known(view, columns):
        shown = None  # what its items would have is not known, and one fault is enough
    if item is not None and columns is not None:
        fields = [column.removeprefix(f"{listed}[].") for column in columns if column.startswith(f"{listed}[].")]
        lists = sorted({column.partition("[].")[0] for column in columns if "[]." in column})
        if not fields:
            yield (*path, "each"), f"found the list {listed!r}, allowed {_listed(lists)}{nearest(str(listed), lists)}"
        elif shown is not None:
            shown |= dict.fromkeys([*(f"{item}.{field}" for field in fields), "before"], "")
    if view.get("before") is not None:
        if view.get("each") is None:
            yield (*path, "before"), "found without `each`: there are no earlier items to show"
        yield from _template((*path, "before"), view["before"], shown)
    prompt = view.get("prompt")
    if isinstance(prompt, str) and prompt and not prompt.strip():
        yield (*path, "prompt"), "found white space alone, allowed text or a column"
    yield from _template((*path, "prompt"), prompt, shown)
    for key, column in (("row_weight", view.get("row_weight")), ("select", _mapping(view.get("select")))):
        for named in (column.get("where"), column.get("text")) if isinstance(column, Mapping) else (column,):
            if isinstance(named, str):
                yield from _template((*path, key), "{" + named + "}", shown)
    if isinstance(view.get("target"), list):
        yield from _target(path, view["target"], shown, columns)


def _target(path: Path, target: list[Any], shown: Mapping[str, str] | None, columns: Mapping[str, str] | None) -> Found:
    """Check a view's target; `shown` are the columns that its templates may take."""
    for index, piece in enumerate(target):
        if not isinstance(piece, Mapping):
            if piece == "":
                yield (*path, "target", index), "found an empty text, allowed a template"
            yield from _template((*path, "target", index), piece, shown)
            continue
        if piece.get("text") == "":
            yield (*path, "target", index, "text"), "found an empty text, allowed a template"
        yield from _template((*path, "target", index, "text"), piece.get("text"), shown)
        if piece.get("transform"):
            yield from _transform((*path, "target", index), piece, shown)
        if piece.get("soft_targets") is not None:
            yield from _soft_targets((*path, "target", index, "soft_targets"), piece, columns)
    if all(isinstance(piece, Mapping) and piece.get("weight", 1) == 0 for piece in target):
        yield (*path, "target"), "found no segment with a weight other than 0, nothing of it would be learnt"
        return
    scored = [piece for piece in target if not isinstance(piece, Mapping) or piece.get("weight", 1) != 0]
    texts = [piece.get("text") if isinstance(piece, Mapping) else piece for piece in scored]
    if any(texts) and all(isinstance(text, str) and not text.strip() for text in texts):
        yield (*path, "target"), "found white space alone in the segments with a weight, nothing of it would be learnt"


def _each(view: Mapping[str, Any]) -> tuple[str | None, str | None]:
    try:
        return parse_each(str(view.get("each"))) if view.get("each") is not None else (None, None)
    except UserError:
        return None, None


def _each_is_known(view: Mapping[str, Any], columns: Collection[str] | None) -> bool:
    """Whether the view repeats over a list that records have, as far as that can be said, or over nothing."""
    _, listed = _each(view)
    if listed is None:
        return view.get("each") is None
    return columns is None or any(column.startswith(f"{listed}[].") for column in columns)


def _transform(path: Path, piece: Mapping[str, Any], columns: Mapping[str, str] | None) -> Found:
    try:
        held = columns_of(str(piece.get("text")))
    except UserError:
        return
    if len(held) != 1:
        yield (
            (*path, "transform"),
            f"found on a segment with the columns {_listed(held)}, allowed on one with one column",
        )
    given = piece["transform"]
    try:
        transforms = _TRANSFORMS.validate_python(given if isinstance(given, list) else [given])
        check_order(transforms)
    except ValidationError:
        return
    except UserError as error:
        yield (*path, "transform"), str(error).removeprefix("transform: ")
        return
    for transform in transforms:
        for key in ("label", "answer"):
            if column := getattr(transform, key, None):
                yield from _template((*path, "transform"), "{" + column + "}", columns)


def _soft_targets(path: Path, piece: Mapping[str, Any], columns: Mapping[str, str] | None) -> Found:
    try:
        held = columns_of(str(piece.get("text")))
    except UserError:
        return
    if len(held) != 1:
        yield path, f"found on a segment with the columns {_listed(held)}, allowed on one with one column"
    if piece.get("transform"):
        yield path, "found beside transform: the teacher's tokens are those of the text as it wrote it"
    if piece.get("weight", 1) == 0:
        yield path, "found on a segment of weight 0, which the student is never scored on"
    if columns is None:
        return
    # What marks the log-probabilities of a text among the lists: tokens with what was likely in their place.
    mark = "[].top[].token"
    named = piece["soft_targets"]
    known = {column.removesuffix(mark): needs for column, needs in columns.items() if column.endswith(mark)}
    if named not in known:
        yield path, f"found the column {named!r}, allowed {_listed(known)}{nearest(str(named), known)}"
    elif known[named]:
        yield path, _unasked(named, known[named])


def _unasked(column: str, setting: str) -> str:
    return f"found the column {column!r}, which the dataset has only with dataset.config.{setting}"


def _template(path: Path, template: Any, columns: Mapping[str, str] | None) -> Found:
    if not isinstance(template, str):
        return
    try:
        used = columns_of(template)
    except UserError as error:
        yield path, str(error)
        return
    for column in dict.fromkeys(used if columns is not None else ()):
        if column not in columns:  # type: ignore[operator]
            some = _listed(sorted(columns)) if len(columns) <= 12 else "one of the builder's"  # type: ignore[arg-type]
            yield path, f"found the column {column!r}, allowed {some}{nearest(column, columns)}"  # type: ignore[arg-type]
        elif setting := columns[column]:  # type: ignore[index]
            yield path, _unasked(column, setting)


# --- decode


def _views_by_name(stages: Any) -> dict[str, Mapping[str, Any]]:
    """Return the views of some stages, of one name the first stage's."""
    found: dict[str, Mapping[str, Any]] = {}
    for stage in stages if isinstance(stages, list) else []:
        for name, view in _mapping(_mapping(stage).get("views")).items():
            found.setdefault(name, _mapping(view))
    return found


def _turns(decode: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    then = decode.get("then")
    return [decode, *(_mapping(turn) for turn in (then if isinstance(then, list) else []))]


def _decode(
    path: Path,
    decode: Any,
    views: Mapping[str, Mapping[str, Any]],
    others: Mapping[str, Mapping[str, Mapping[str, Any]]],
    columns: Mapping[str, str] | None,
) -> Found:
    decode = _mapping(decode)
    known = set(QUESTION_COLUMNS)
    # A column that no record has is a fault of its view's and told there.
    of_records: Collection[str] | None = None if columns is None else {column.replace("[]", "") for column in columns}
    repeats = False
    for number, turn in enumerate(_turns(decode)):
        where = path if not number else (*path, "then", number - 1)
        name = turn.get("view")
        if not isinstance(name, str):
            continue
        if name not in views:
            has = f"allowed {_listed(views)}{nearest(name, views)}" if views else "but no stage has views"
            yield (*where, "view"), f"found {name!r}, {has}"
            of_records = frozenset()  # what it would have written is not known
            continue
        if not _each_is_known(views[name], columns):
            of_records = frozenset()
        repeats |= views[name].get("each") is not None
        yield from _turn(where, turn, views[name], known, of_records)
    beside = _mapping(decode.get("beside"))
    if isinstance(beside.get("view"), str):
        theirs = others.get(str(beside.get("student")), views)
        if beside["view"] not in theirs:
            hint = nearest(beside["view"], theirs)
            yield (*path, "beside", "view"), f"found {beside['view']!r}, allowed {_listed(theirs)}{hint}"
        else:
            known = set(QUESTION_COLUMNS)
            yield from _turn((*path, "beside"), beside, theirs[beside["view"]], known, of_records)
        if beside["view"] == decode.get("view"):
            yield (*path, "beside", "view"), f"found {beside['view']!r}, allowed another view than the first way's"
    for number, turn in enumerate(_turns(decode)[:-1]):
        if turn.get("run") is not None:
            where = path if not number else (*path, "then", number - 1)
            yield (*where, "run"), "found on a turn that another follows, allowed on the last one, which answers"
    if decode.get("until") is not None and not repeats:
        yield (*path, "until"), "found, but no turn's view has `each`, so that nothing is repeated"
    samples, temperature = decode.get("samples"), decode.get("temperature", 0)
    if isinstance(samples, int) and samples > 1 and temperature == 0:
        yield (*path, "samples"), f"found {samples}, allowed 1 at temperature 0, where all samples are the same"


def _beside(data: Mapping[str, Any]) -> Found:
    """Two ways need another reference to be another student's, and questions on which to find out whom to trust."""
    references = _mapping(data.get("references"))
    decodes: list[tuple[Path, Any]] = [(("decode",), data.get("decode"))]
    decodes += [(("references", name, "decode"), _mapping(one).get("decode")) for name, one in references.items()]
    for path, decode in decodes:
        beside = _mapping(decode).get("beside")
        if beside is None:
            continue
        student = _mapping(beside).get("student")
        if isinstance(student, str) and student not in references:
            hint = nearest(student, references)
            yield (*path, "beside", "student"), f"found {student!r}, allowed {_listed(references)}{hint}"
        if _mapping(data.get("evaluation")).get("development") is None:
            yield (*path, "beside"), "found without evaluation.development, where it is found which way wins a tie"


def _turn(
    path: Path,
    turn: Mapping[str, Any],
    view: Mapping[str, Any],
    known: set[str],
    of_records: Collection[str] | None,
) -> Found:
    """Check one turn against what is known when it begins, and add what it writes."""
    target = view.get("target")
    target = target if isinstance(target, list) else []
    pieces = [piece if isinstance(piece, Mapping) else {"text": piece} for piece in target]
    forced = turn.get("forced", 0)
    forced = forced if isinstance(forced, int) else 0
    if forced >= len(pieces) > 0:
        yield (
            (*path, "forced"),
            f"found {forced}, allowed less than the {len(pieces)} segments of view {turn['view']!r}",
        )
        forced = 0
    item, listed = _each(view)
    try:
        taken = columns_of(str(view.get("prompt")))
        taken += [column for piece in pieces[:forced] for column in columns_of(str(piece.get("text")))]
        written = [column for piece in pieces[forced:] for column in columns_of(str(piece.get("text")))]
    except UserError:
        return
    if item is not None:
        # What an item's name leads to is what was written of the whole list.
        known |= {f"{item}.{column.removeprefix(f'{listed}.')}" for column in known if column.startswith(f"{listed}.")}
        known.add("before")
    for column in dict.fromkeys(taken):
        in_records = f"{listed}.{column.removeprefix(f'{item}.')}" if column.startswith(f"{item}.") else column
        if column not in known and (of_records is None or in_records in of_records):
            yield (
                (*path, "view"),
                f"found {turn['view']!r}, whose prompt takes {column!r}, but no earlier turn writes it, and a question "
                f"has only {_listed(sorted(QUESTION_COLUMNS))}",
            )
    known.update(written)
    if item is not None:
        known |= {f"{listed}.{column.removeprefix(f'{item}.')}" for column in written if column.startswith(f"{item}.")}


def _listed_mappings(value: Any) -> list[Mapping[str, Any]]:
    return [_mapping(item) for item in value] if isinstance(value, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words) or "nothing"
