"""Checks after every stage, each against a failure that would otherwise pass silently."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch

from deita_train.data.rendering import load_tokenizer
from deita_train.errors import UserError
from deita_train.inference.forward import load_model
from deita_train.models.adapter_files import ADAPTER_CONFIG, placeless_text
from deita_train.models.published_files import unexpected_files
from deita_train.stages.context import StageContext
from deita_train.stages.kinds import STAGE_KINDS
from deita_train.stages.stage_model import model_path
from deita_train.store.atomic_io import read_json

_ROWS_PER_BATCH = 1000
# Text whose ids change when a tokenizer is re-saved carelessly: control tokens next to words, spaces, digits.
PROBES = ("Hello, world", "</s>USER: 12345", "  two  spaces\n\nand\ttabs", "naïve café 東京", "<s>ASSISTANT: 6</s>")


def check_artefact(context: StageContext, left: Mapping[str, Any]) -> None:
    """Run all checks that apply to a stage's result."""
    check_rows(context, left)
    check_finite(context.label, left["metrics"])
    if context.model_dir.exists():
        check_model(context.model_dir)
        source = _source_model(context)
        if source is not None:
            check_tokenizer(source, context.model_dir)
    assert context.data_dir.exists() or context.model_dir.exists(), f"{context.label} left neither table nor model"


def check_rows(context: StageContext, left: Mapping[str, Any]) -> None:
    """Rows in = rows out + drops; rows in = what the parent published; rows out = rows of the table."""
    label, dropped = context.label, sum(left["drops"].values())
    assert left["rows_in"] == left["rows_out"] + dropped, (
        f"{label}: {left['rows_in']} rows in, {left['rows_out']} out and {dropped} dropped"
    )
    for name in ("pool", "data"):
        if name in context.parents:
            published = read_json(context.parents[name] / "manifest.json")["rows_out"]
            assert left["rows_in"] == published, f"{label}: {left['rows_in']} rows in, the {name} has {published}"
    if context.data_dir.exists():
        written = len(datasets.load_from_disk(str(context.data_dir)))
        assert left["rows_out"] == written, f"{label}: {left['rows_out']} rows out, {written} in the table"


def check_finite(label: str, metrics: Mapping[str, Any]) -> None:
    """Raise :class:`UserError` if a number in the metrics is not finite."""
    for path, value in _leaves(metrics, ""):
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(
                f"{label}: {path.lstrip('.')} is {value}. Nothing is published; the logs show what came before."
            )


def check_model(model_dir: Path) -> None:
    """The folder holds only a model, which loads with plain transformers; weights and one forward pass are finite."""
    extra = unexpected_files(model_dir)
    assert not extra, f"a published model must not hold {extra}"
    model = load_model(str(model_dir), "float32", torch.device("cpu"), head=True)
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise UserError(f"the trained weight {name} is not finite: training diverged. Lower trainer.learning_rate.")
    ids = torch.arange(1, 9).remainder(model.config.get_text_config().vocab_size)[None]
    with torch.inference_mode():
        if not bool(torch.isfinite(model(input_ids=ids).logits).all()):
            raise UserError(
                "the trained model's logits are not finite: training diverged. Lower trainer.learning_rate."
            )


def check_tokenizer(source: Path, model_dir: Path) -> None:
    """The published tokenizer gives the same ids as the source's."""
    before, after = load_tokenizer(str(source)), load_tokenizer(str(model_dir))
    for probe in PROBES:
        assert before(probe)["input_ids"] == after(probe)["input_ids"], (
            f"the saved tokenizer changed the ids of {probe!r}"
        )


def content_digest(work_dir: Path) -> str:
    """SHA-256 over a stage's result: tables by their ordered rows and columns, models and files by their bytes."""
    digest = hashlib.sha256()
    for name in ("data", "trace"):
        if (work_dir / name).exists():
            digest.update(name.encode())
            _digest_table(datasets.load_from_disk(str(work_dir / name)), digest)
    for name in ("model", "files"):
        for path in sorted((work_dir / name).rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(work_dir)} {_file_digest(path)}\n".encode())
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    if path.name == ADAPTER_CONFIG:
        return hashlib.sha256(placeless_text(path).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_table(table: datasets.Dataset, digest: Any) -> None:
    """Columns in name order, rows in table order; float matrices by their bytes, the rest as JSON."""
    for name in sorted(table.column_names):
        digest.update(name.encode())
        column: pa.ChunkedArray = table.data.column(name)
        for start in range(0, len(column), _ROWS_PER_BATCH):
            part = column.slice(start, _ROWS_PER_BATCH)
            if pa.types.is_fixed_size_list(part.type):
                values = np.concatenate([chunk.flatten().to_numpy() for chunk in part.chunks])
                digest.update(values.tobytes())
            else:
                digest.update(json.dumps(part.to_pylist(), ensure_ascii=False, sort_keys=True).encode())


def _source_model(context: StageContext) -> Path | None:
    if STAGE_KINDS[context.kind].makes_base:
        return None
    return model_path(context)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}.{index}")
    else:
        yield path, value
