"""Model cards: for each tuned model a README.md in the Hub's format, from the run's manifests and metrics alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deita_train.report.cards.card_facts import (
    NOT_MEASURED,
    CardTable,
    Origin,
    data_label,
    kept_table,
    method_table,
    origin_of,
    read_text,
    result_table,
    scores_read,
    selection_table,
    source_table,
    training_sources,
)
from deita_train.report.cards.card_names import FOLDER, PLACE, card_file
from deita_train.report.results.quantities import TUNED
from deita_train.report.results.summary import Artefact, Cell, RunSummary
from deita_train.report.tables.formats import plural

_DEFAULTS = "What is not stated here has the defaults of deita-train and trl in the versions below."


@dataclass(frozen=True)
class Part:
    """A part of a card in its order: title, paragraphs, tables, and a block of code with its language."""

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[CardTable, ...] = ()
    language: str = ""
    code: str = ""


@dataclass(frozen=True)
class Card:
    """One model's card: the file's name, the front matter as YAML lines, the title, the parts."""

    file: str
    title: str
    front: tuple[str, ...]
    parts: tuple[Part, ...]


def cards_of(summary: RunSummary) -> list[Card]:
    """A card for each model that SFT or DPO left; those of the recipe as written first."""
    cells = sorted(summary.cells, key=lambda cell: not cell.base)
    found: dict[str, Card] = {}
    for cell in cells:
        for label in TUNED:
            item = cell.stages.get(label)
            if item is not None and item.id not in found:
                found[item.id] = _card(summary, cell, label, item)
    return list(found.values())


def _card(summary: RunSummary, cell: Cell, label: str, item: Artefact) -> Card:
    origin = origin_of(cell, item)
    is_adapter = "frozen_parameters" in item.metrics and not item.manifest["config"]["merge_adapter"]
    parts = (
        _what(summary, cell, label, item, origin),
        *_data(cell, label),
        Part("Method", (_DEFAULTS,), (method_table(label, item),)),
        _results(cell, label),
        Part("Limits", tuple(_limits(cell, label, origin))),
        _loading(label, origin, is_adapter),
        _versions(item),
        Part("Recipe", ("The recipe as written, every default filled in.",), language="yaml", code=summary.recipe_text),
    )
    front = tuple(_front(cell, label, origin, is_adapter))
    return Card(card_file(label, item.id, is_written=cell.base), f"{summary.name}, {TUNED[label]}", front, parts)


def _front(cell: Cell, label: str, origin: Origin, is_adapter: bool) -> Iterator[str]:
    """The YAML lines that the Hub reads; what the run does not know, such as a licence, is not there."""
    if origin.hub is not None:
        yield f"base_model: {json.dumps(origin.hub)}"
        yield f"base_model_relation: {'adapter' if is_adapter else 'finetune'}"
    yield f"library_name: {'peft' if is_adapter else 'transformers'}"
    yield "pipeline_tag: text-generation"
    done = list(TUNED)[: list(TUNED).index(label) + 1]  # what comes after it in the recipe is not in this model
    yield f"tags: {json.dumps(['deita', 'trl', *(name for name in done if name in cell.stages or name == label)])}"
    hubs = [source["hub"] for source in training_sources(cell, label) if "hub" in source]
    if hubs:
        yield f"datasets: {json.dumps(list(dict.fromkeys(hubs)))}"


def _what(summary: RunSummary, cell: Cell, label: str, item: Artefact, origin: Origin) -> Part:
    texts = [summary.description.strip()] if summary.description.strip() else []
    texts.append(
        f"A language model tuned by {TUNED[label]} with deita-train, from {origin.words}. Every number below was "
        "read from the manifests and metrics of the run that made it."
    )
    if not cell.base:
        settings = ", ".join(f"{name}: {value}" for name, value in cell.settings.items())
        texts.append(f"It belongs to the cell {cell.label} of a sweep, which sets {settings}.")
    texts.append(f"Artefact {item.id}, content digest {item.manifest['content_digest']}.")
    return Part("What it is", tuple(texts))


def _data(cell: Cell, label: str) -> Iterator[Part]:
    """The data of this training, and before DPO that of the SFT."""
    if label == "dpo":
        pairs = cell.stages["dpo_data"]
        yield Part("Preference data", (read_text("pair", pairs),), (source_table(pairs),))
        if "sft" not in cell.stages:
            return
    data = cell.stages[data_label(cell, "sft")]
    tables = [source_table(data)]
    texts = [read_text("row", data)]
    select = cell.stages.get("select") if "sft_data" not in cell.stages else None
    if select is not None:
        means = kept_table(select)
        tables += [selection_table(cell, select), *([means] if means is not None else [])]
    else:
        texts.append("No rows were selected: the training took all that were usable.")
    yield Part("Data" if label == "sft" else "Data of the SFT before it", tuple(texts), tuple(tables))


def _results(cell: Cell, label: str) -> Part:
    table = result_table(cell, label)
    if table is None:
        return Part("Results", (f"Held-out loss and preference accuracy: {NOT_MEASURED} in this run.",))
    sources = [cell.stages[name] for name in ("heldout_data", "heldout_pairs") if name in cell.stages]
    text = (
        "Measured once, on rows that the recipe names as held out; whether they overlap with other data is not checked."
    )
    return Part("Results", (text,), (table, *map(source_table, sources)))


def _limits(cell: Cell, label: str, origin: Origin) -> Iterator[str]:
    if origin.is_miniature:
        yield "The base is a miniature made for trying the pipeline; its answers are of no use."
    unknown = "the quality and truth of answers, safety, bias, languages"
    if result_table(cell, label) is not None:
        yield f"Nothing beyond the table of results is measured: {unknown}."
    else:
        yield f"Nothing of what the model can do is measured: losses on held-out rows, {unknown}."
    if "select" in cell.stages and scores_read(cell.stages["select"]):
        yield "The rows were chosen by scores of a model; what that model rates wrongly is chosen wrongly."
    yield "The licence is not known to the run: those of the base model and of the data decide."


def _loading(label: str, origin: Origin, is_adapter: bool) -> Part:
    lines = ["from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    if is_adapter:
        base = origin.hub or "path/to/the/base/model"
        revision = f', revision="{origin.revision}"' if origin.revision else ""
        lines[:1] = ["from peft import PeftModel", lines[0]]
        load = [
            f'base = AutoModelForCausalLM.from_pretrained("{base}"{revision})',
            "model = PeftModel.from_pretrained(base, place)",
        ]
    else:
        load = ["model = AutoModelForCausalLM.from_pretrained(place)"]
    lines += [
        f'place = "{PLACE}"',
        "tokenizer = AutoTokenizer.from_pretrained(place)",
        *load,
        'messages = [{"role": "user", "content": "Name three primary colours."}]',
        'as_asked = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}',
        "inputs = tokenizer.apply_chat_template(messages, **as_asked)",
        "output = model.generate(**inputs, max_new_tokens=100)",
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))',
    ]
    return Part("How to load it", language="python", code="\n".join(lines))


def _versions(item: Artefact) -> Part:
    versions: Mapping[str, Any] = item.manifest["versions"]
    return Part("Versions", (", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + ".",))


def card_links(cards: list[Card]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """A sentence for the report, and the links to the cards of the recipe as written."""
    written = tuple((card.file.removesuffix(".md"), f"{FOLDER}/{card.file}") for card in cards if _is_written(card))
    others = len(cards) - len(written)
    text = "What each tuned model is, as a README.md for the Hub; deita-train push uploads a model with it."
    if others:
        text += f" Those of {plural(others, 'model')} of the sweep's other cells lie beside them, named by artefact."
    return text, written


def _is_written(card: Card) -> bool:
    return card.file.removesuffix(".md") in TUNED
