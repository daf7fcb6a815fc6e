"""Makes the stand-ins of a rehearsal, inside a child that has imported everything."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deita_train.errors import UserError

# Rows of generated text on which a tokenizer is trained that stands in for one that is not at hand.
_ROWS_OF_TEXT = 200


def make_stand_ins(request: Mapping[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    """Make the models and files of a request below `folder`; what was made, by the request's keys.

    Raises:
        UserError: every model and dataset that can be reached and is not what a stage could use, each on its line.
    """
    problems: list[str] = []
    models = _made(request["models"], lambda place, wanted: _model(wanted, folder / "models" / place), problems)
    data = _made(request["data"], lambda place, wanted: _rows(wanted, folder / "data" / place), problems)
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    return {"models": models, "data": data, "tables": _tables(request, data, folder)}


def _made(wanted: Mapping[str, Any], make: Any, problems: list[str]) -> dict[str, Any]:
    """One thing after another, numbered; what cannot be made is told with the others."""
    made = {}
    for number, (key, one) in enumerate(wanted.items()):
        try:
            made[key] = make(str(number), one)
        except UserError as error:
            problems.append(str(error))
    return made


def _model(wanted: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    from deita_train.data.quickstart import make_pool
    from deita_train.models.miniatures import make_miniature

    rows = make_pool(_ROWS_OF_TEXT, 0)
    texts = [message["content"] for row in rows for message in row["messages"]]
    place = Path(wanted["name"]).expanduser()
    name = str(place.resolve()) if place.is_dir() else wanted["name"]
    try:
        made = make_miniature(name, wanted["commit"], wanted["where"], texts, folder, trust_code=wanted["trust_code"])
    except UserError as error:
        raise UserError(f"{wanted['label']}: {error}") from error
    return {"name": name, **asdict(made)}


def _rows(wanted: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    from deita_train.data.first_rows import WantedRows, write_first_rows

    share = wanted["instruction_share"]
    rows = WantedRows(**{**wanted, "instruction_share": None if share is None else (share[0], share[1])})
    return {"name": wanted["dataset"], **asdict(write_first_rows(rows, folder))}


def _tables(request: Mapping[str, Any], data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The user's tables, cut to the rows of the small pool.

    Raises:
        UserError: the pool is out of reach, so that nothing belongs to its rows.
    """
    from deita_train.data.first_rows import write_matching_rows

    if not request["tables"]:
        return {}
    pools = [data[key] for key in request["pools"] if key in data]
    if not pools or not all(pool["is_own"] for pool in pools):
        named = ", ".join(request["tables"])
        raise UserError(
            f"{named}: belongs to the rows of a pool that cannot be reached here. Rehearse where the pool is at hand."
        )
    ids = [one for pool in pools for one in pool["ids"]]
    return {
        path: {"name": file, **asdict(write_matching_rows(file, ids, folder / "tables" / str(number)))}
        for number, (path, file) in enumerate(request["tables"].items())
    }
