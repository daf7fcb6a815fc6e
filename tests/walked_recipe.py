"""A recipe of which the walk of `deita` reads the embeddings alone: conversations, scores of a file, a miniature."""

import json

import numpy as np
from pass_stages import conversations, make_model
from tiny_recipe import plan, recipe, write

from deita_train.data.embeddings import embedded_ids, embeddings_of
from deita_train.run.child.stage_process import run_stage
from deita_train.stages.inference import walk_order, walked_embedding

# So few rows are planned together that a small pool has many groups.
GROUP_ROWS = 8


def small_groups(monkeypatch):
    """Let the walk go through a small pool in several blocks."""
    for module in (walk_order, walked_embedding):
        monkeypatch.setattr(module, "GROUP_ROWS", GROUP_ROWS)


def walked_recipe(folder, rows=120, seed=3, **changes):
    """The recipe as plain data; whole numbers as scores give ties."""
    if not (folder / "model").exists():
        make_model(folder / "model")
    rng = np.random.default_rng(seed)
    pool = conversations(rows)
    for name in ("complexity", "quality"):
        scores = [rng.integers(1, 6, len(row["messages"]) // 2).astype(float).tolist() for row in pool]
        table = [{"id": row["id"], f"{name}_scores": of} for row, of in zip(pool, scores, strict=True)]
        _write(folder / f"{name}-{rows}.jsonl", table)
    _write(folder / f"pool-{rows}.jsonl", pool)
    place = {name: str(folder / f"{name}-{rows}.jsonl") for name in ("pool", "complexity", "quality")}
    return recipe(
        "base", "scorers", "sft", "evaluate", pool={"dataset": place["pool"]},
        scores={"complexity": place["complexity"], "quality": place["quality"]},
        embedding={"model": str(folder / "model"), "max_batch_tokens": 200},
        select={"method": "deita", "budget": 12, "threshold": 0.98}, **changes,
    )  # fmt: skip


def carried_out(folder, data):
    """The plan of a recipe whose stages were all carried out in this process."""
    folder.mkdir(exist_ok=True)
    made = plan(folder, data)
    for node in made.nodes:
        run_stage(write(folder, data), [], folder / "runs", node.id)
    return made


def with_rows(data, rows):
    """The recipe with `embedding.rows`."""
    return {**data, "embedding": {**data["embedding"], "rows": rows}}


def vectors(made, cell=0):
    """The vector of each embedded row of a cell, by id."""
    folder = made.store.path(made.cells[cell].nodes["embed"].id) / "data"
    ids = embedded_ids(folder)
    return dict(zip(ids, embeddings_of(folder, ids), strict=True))


def _write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
