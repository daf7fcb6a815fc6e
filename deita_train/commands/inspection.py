"""`deita-train inspect`: one row of a stage as the model sees it, with the stage's tokenizer."""

import difflib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deita_train.data.shipped_templates import parity_pairs_template
from deita_train.errors import UserError
from deita_train.plan.chat_templates import DEFAULT_CHAT_TEMPLATE
from deita_train.plan.node import Node
from deita_train.plan.plan import Plan
from deita_train.stages.inspection.row_view import TokenSequence
from deita_train.stages.kinds import STAGE_KINDS, ShownRows, stage_module

if TYPE_CHECKING:
    from deita_train.stages.inspection.row_sequences import InspectedStage

_NAMED = 3


@dataclass(frozen=True)
class Inspection:
    """One row of one stage; `verb` is what is done with the marked tokens: trained, measured, or nothing if empty."""

    facts: tuple[tuple[str, str], ...]
    sequences: tuple[TokenSequence, ...]
    max_length: int | None
    verb: str


@dataclass(frozen=True)
class _Rows:
    """The rows that a stage reads, with their ids in the same order."""

    described: str
    ids: Sequence[str]
    rows: Any

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return zip(self.ids, self.rows, strict=True)


def inspect_row(plan: Plan, label: str | None, row_id: str | None) -> Inspection:
    """A row of the base run: the one with `row_id`, else the first that has a loss.

    Raises:
        UserError: there is no such stage or row, or the model with the tokenizer is not made yet.
    """
    node = choose_stage(plan, label)
    shown = _shown(node)
    stage, tokenizer_from = _stage(plan, node)
    rows = _rows(plan, node)
    found_id, row, chosen = _find(stage, node, rows, row_id)
    from deita_train.stages.inspection.row_sequences import has_loss, refusal, sequences

    facts = [("stage", f"{node.label}: {shown.note}"), ("row", f"{found_id}{_source(row)}{chosen}")]
    facts += [("data", rows.described), ("tokenizer", tokenizer_from), _rendering(node)]
    if _is_held_out(plan, node, rows, found_id):
        facts.append(("note", "parity: true holds this row out, as the public code would: it is not trained on"))
    refused = refusal(stage, row)
    if refused is not None:
        facts.append(("note", f"the row is left out: {refused}"))
        return Inspection(tuple(facts), (), stage.max_length, shown.verb)
    if not has_loss(stage, row):
        facts.append(("note", _without_loss(node)))
    return Inspection(tuple(facts), tuple(sequences(stage, row)), stage.max_length, shown.verb)


def _shown(node: Node) -> ShownRows:
    rows = STAGE_KINDS[node.kind].rows
    assert rows is not None
    return rows


def choose_stage(plan: Plan, label: str | None) -> Node:
    """The stage with that label; without a label sft, else dpo, else the first that can be shown.

    Raises:
        UserError: there is none.
    """
    shown = {name: node for name, node in plan.cells[0].nodes.items() if _can_be_shown(node)}
    if not shown:
        raise UserError(f"{plan.loaded.path} has no stage that gives rows to a model; there is nothing to inspect.")
    if label is None:
        label = next((name for name in ("sft", "dpo") if name in shown), next(iter(shown)))
    if label not in shown:
        raise UserError(f"--stage {label}: {plan.loaded.path} has no such stage to inspect; it has {', '.join(shown)}.")
    return shown[label]


def _can_be_shown(node: Node) -> bool:
    """Whether the stage asks about seeds, or gives rows to a model by a template that is known here; no server's is."""
    kind = STAGE_KINDS[node.kind]
    return kind.asks_about_seeds or (kind.rows is not None and "endpoint" not in node.runtime)


def _stage(plan: Plan, node: Node) -> tuple["InspectedStage", str]:
    """The stage with its tokenizer, and where the tokenizer comes from in words."""
    folder, described = _tokenizer(plan, node)
    from transformers.utils import logging

    from deita_train.data.rendering import load_tokenizer
    from deita_train.stages.inspection.row_sequences import InspectedStage
    from deita_train.stages.row_limit import Readable, row_limit
    from deita_train.stages.stage_model import trusts_code

    logging.set_verbosity_error()  # it warns of rows that are longer than the model's context, which are shown as cut
    tokenizer = load_tokenizer(str(folder), _template(node), trust_code=trusts_code(node.identity))
    limit = row_limit(node.identity, Readable.by(folder, trust_code=trusts_code(node.identity)))
    return InspectedStage(node.kind, {**node.identity, "max_length": limit.tokens}, tokenizer), described


def _tokenizer(plan: Plan, node: Node) -> tuple[Path, str]:
    """The folder of the tokenizer, and where it comes from in words.

    A trained model keeps the tokenizer of the model that it starts from, so the nearest published one serves.
    """
    at = node if STAGE_KINDS[node.kind].makes_base else node.parents.get("model")
    named = node
    while at is not None:
        if plan.store.has(at.id):
            return plan.store.path(at.id) / "model", f"of {at.label}, {at.id}"
        if STAGE_KINDS[at.kind].makes_base:
            if at is node:
                raise UserError(f"{node.label} trains its own tokenizer, and {_make_it(plan, at)}")
            raise _not_made(plan, node, "takes the tokenizer of", at)
        named, at = at, at.parents.get("model")
    from deita_train.stages.stage_model import tokenizer_path

    identity, location = named.identity["model"], named.runtime["model"]
    return tokenizer_path(identity, location, node.label), f"of {location}{_at(identity)}"


def _not_made(plan: Plan, node: Node, reads: str, other: Node) -> UserError:
    return UserError(f"{node.label} {reads} {other.label}, which {_make_it(plan, other)}")


def _make_it(plan: Plan, node: Node) -> str:
    command = shlex.join(["deita-train", "run", *plan.arguments(), "--until", node.label])
    return f"is not made yet. Make it first: {command}"


def _at(identity: Mapping[str, Any]) -> str:
    return f" at {identity['revision']}" if "hub" in identity else ""


def _rows(plan: Plan, node: Node) -> _Rows:
    if _shown(node).form == "labelled":
        return _labelled_rows(plan, node)
    data, name = node.parents.get("data") or node.parents.get("questions") or node.parents["pool"], ""
    while _is_to_be_drawn(plan, data):
        data, name = data.parents.get("pool") or data.parents["data"], f" ({data.label} is not made yet)"
    if plan.store.has(data.id):
        import datasets

        table, origin = datasets.load_from_disk(str(plan.store.path(data.id) / "data")), data.id
    else:
        table, _ = stage_module(data.kind).read_rows(data.identity, data.runtime)
        origin = "read from its source"
    return _Rows(f"{data.label}{name}, {origin}, {len(table):,} rows", list(table["id"]), table)


def _is_to_be_drawn(plan: Plan, data: Node) -> bool:
    """Whether the rows are some of a pool's, or of pairs, and it is not yet known which."""
    return bool(data.parents) and not plan.store.has(data.id)


def _labelled_rows(plan: Plan, node: Node) -> _Rows:
    from deita_train.stages.intake.scorer_data import read_scorer_data

    identity, labels = node.identity["data"], None
    if "evolve" in identity:
        made_by = node.parents["labels"]
        if not plan.store.has(made_by.id):
            raise _not_made(plan, node, "is trained on the labels of", made_by)
        labels = plan.store.path(made_by.id)
        name = f"{made_by.label}, {made_by.id}"
    else:
        name = identity["builtin"] if "builtin" in identity else node.runtime["data"]["dataset"]
    examples = read_scorer_data(node.identity, node.runtime, "data", labels)
    return _Rows(f"{name}, {len(examples):,} labelled rows", [example.where for example in examples], examples)


def _find(stage: "InspectedStage", node: Node, rows: _Rows, row_id: str | None) -> tuple[str, Any, str]:
    """The row's id, the row, and how it was chosen."""
    if row_id is not None:
        if row_id not in rows.ids:
            raise UserError(
                f"--row {row_id}: {node.label} has no such row. Its rows: {rows.described}; "
                f"{nearest_ids(row_id, rows.ids)}."
            )
        return row_id, rows.rows[rows.ids.index(row_id)], ""
    from deita_train.stages.inspection.row_sequences import has_loss, refusal

    refused = ""
    for found_id, row in rows:
        if has_loss(stage, row):
            return found_id, row, _first(node)
        refused = refused or refusal(stage, row) or ""
    if refused:
        raise UserError(f"{node.label}: no row has a token to learn from or to measure; the chat template: {refused}.")
    raise UserError(
        f"{node.label}: no row has a token to learn from or to measure within max_length {stage.max_length} "
        f"({rows.described}). Raise max_length, or check the rows' answers; --row ID shows a row anyway."
    )


def _is_held_out(plan: Plan, node: Node, rows: _Rows, row_id: str) -> bool:
    """Whether `parity` holds the row out; unknown, and so no, before `select` is made: the rows are the pool's."""
    data = node.parents.get("data")
    if data is None or not node.identity.get("parity") or _is_to_be_drawn(plan, data):
        return False
    from deita_train.training.parity import public_split

    return rows.ids.index(row_id) in public_split(len(rows.ids))[1]


def _first(node: Node) -> str:
    shown = _shown(node)
    if shown.form == "pair":
        return " (the first whose answers differ)"
    return " (the first with a loss)" if shown.form in ("text", "conversation") and shown.verb else " (the first)"


def nearest_ids(row_id: str, ids: Sequence[str]) -> str:
    """The ids most like one that is not there, or else the first ones, in words."""
    near = difflib.get_close_matches(row_id, ids, n=_NAMED)
    named = "; ".join(near or ids[:_NAMED])
    return f"the nearest are {named}" if near else f"the first are {named}"


def _source(row: Any) -> str:
    source = row.get("source") if isinstance(row, Mapping) else None
    return f", source {source}" if source else ""


def _template(node: Node) -> str | None:
    """The chat template with which a stage renders its rows; None for a scorer."""
    text: str | None = node.identity.get("pairs_template") or node.identity.get("chat_template")
    return text


def _rendering(node: Node) -> tuple[str, str]:
    template = _template(node)
    if template is None:
        return "prompt", f"the {node.identity['dimension']} scorer's"
    if template == parity_pairs_template():
        return "template", "vicuna_v1.1 with its roles in lower case (dpo.parity)"
    return "template", str(node.runtime.get("template", DEFAULT_CHAT_TEMPLATE))


def _without_loss(node: Node) -> str:
    shown = _shown(node)
    if shown.form == "pair":
        return "within max_length the answers are equal, or one has no token left: " + (
            f"{node.label} leaves this pair out"
            if shown.verb == "trained"
            else "there is nothing to tell them apart by"
        )
    return "no token has a loss: " + ("nothing is measured" if shown.verb == "measured" else "the row is left out")
