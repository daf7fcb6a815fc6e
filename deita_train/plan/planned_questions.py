"""Questions as far as a plan can read them at once: generated ones, and those of a small local JSON file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deita_train.data.conversations import UnusableRow, merge_roles
from deita_train.data.everyday import everyday_questions
from deita_train.data.question_formats import detect_question_format, to_question
from deita_train.data.quickstart.questions import make_questions
from deita_train.errors import UserError
from deita_train.plan.node import Node

Rows = list[dict[str, Any]]
# A plan answers at once.
_MOST_BYTES = 20_000_000


def planned_questions(node: Node) -> Rows | None:
    """The questions that a stage `questions` will hold, each with `turns`, `system`, `references` and `baseline`.

    Of drawn questions the first so many stand for those that are drawn.

    Returns:
        None where the plan does not read them: of the Hub, behind a URL, in several files, in other forms than JSON,
        of a part of the instructions, or in a file that cannot be used, of which `deita-train validate` says why.
    """
    source = node.identity["source"]
    if source["instruction_share"] is not None:
        return None
    rows = _generated(source) if "builtin" in source else _of_file(Path(node.runtime["source"]["dataset"]))
    if rows is None:
        return None
    draw = source.get("draw")
    references = _references(node.runtime.get("references"))
    found = _questions(rows, merge_roles(source["roles"]), references)
    return found if not draw or found is None else found[: draw["rows"]]


def _generated(source: Mapping[str, Any]) -> Rows:
    if source["builtin"] == "everyday":
        return everyday_questions()[: source["rows"]]
    return make_questions(source["rows"], source["seed"])


def _of_file(file: Path) -> Rows | None:
    if file.suffix not in (".json", ".jsonl") or not file.is_file() or file.stat().st_size > _MOST_BYTES:
        return None
    try:
        text = file.read_text("utf-8")
        listed = text.lstrip().startswith("[")
        rows = json.loads(text) if listed else [json.loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, ValueError):
        return None
    return rows if rows and all(isinstance(row, dict) for row in rows) else None


def _references(file: str | None) -> dict[str, Any]:
    """The texts of a file of references in FastChat's form, by question; nothing where it cannot be read."""
    rows = _of_file(Path(file)) if file is not None else None
    try:
        return {str(row["question_id"]): row["choices"][0]["turns"] for row in rows or ()}
    except (KeyError, IndexError, TypeError):
        return {}


def _questions(rows: Rows, roles: Mapping[str, str], references: Mapping[str, Any]) -> Rows | None:
    """The usable ones, in the form of the table."""
    try:
        form = detect_question_format(rows[0])
    except UserError:
        return None
    found = []
    for row in rows:
        try:
            question = to_question(row, form, roles)
            texts = references.get(str(row.get("question_id")), question.references)
            found.append({**vars(question), "references": texts})
        except UnusableRow:
            continue
    return found or None
