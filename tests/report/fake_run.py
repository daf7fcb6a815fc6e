"""The folder of a run as its stages write it, built in code: two selection methods, three seeds each, SFT."""

import json
import math
from pathlib import Path

import datasets
import numpy as np

from deita_train.data.embeddings import write_embeddings

POOL_ROWS, BUDGET, THRESHOLD = 400, 80, 0.9
# Held-out losses by method and seed; the means are 2.30 and 2.40.
LOSSES = {"deita": [2.29, 2.30, 2.31], "random": [2.38, 2.40, 2.42]}
SOURCES = [
    {"hub": "org/pool", "revision": "c" * 40, "split": "train"},
    {"content": "d" * 64, "name": "mine_1.jsonl", "split": None},
]
TRAINED = {"global_batch_size": 8, "chat_template": "{{ messages }}", "seed": 7}
# What the manifests of real stages hold, as far as a report reads it.
CONFIGS = {
    "base": {"architecture": {"hidden_size": 32, "num_layers": 2}},
    "pool": {"sources": SOURCES},
    "preferences": {"source": {"hub": "org/pairs", "revision": "e" * 40, "split": None, "sample": 300}},
    "score": {"model": {"hub": "org/scorer", "revision": "f" * 40}},
    "train_scorer": {"model": {"hub": "org/base", "revision": "b" * 40}},
    "embed": {"model": {"content": "a" * 64}},
    "select": {"method": "deita", "budget": BUDGET, "threshold": THRESHOLD, "score": "evol", "center": True},
    "sft": {**TRAINED, "model": {"hub": "org/base", "revision": "b" * 40}, "trainer": {"learning_rate": 2e-5}},
    "dpo": {**TRAINED, "trainer": {"learning_rate": 5e-7, "beta": 0.05}},
}
SELECT_READS = {
    "deita": {"pool": "pool-0", "complexity": "score-complexity", "quality": "score-quality", "embed": "embed-0"},
    "random": {"pool": "pool-0"},
    "whole_pool": {"pool": "pool-0"},
}


def edit_json(path, change):
    """Replace a JSON file by what `change` makes of it; other links to the old file keep its content."""
    record = json.loads(path.read_text())
    change(record)
    path.unlink()
    path.write_text(json.dumps(record))


class FakeRun:
    """Writes the folders of a run as the stages do, and what the run keeps of its cells and failures."""

    def __init__(self, folder: Path):
        self.run_dir, self.store = folder / "runs" / "fake", folder / "store"
        self.run_dir.mkdir(parents=True)
        (self.run_dir / "recipe.resolved.yaml").write_text("name: fake  # <script>\nseed: 7\n")
        (self.run_dir / "recipe.stated.yaml").write_text("name: fake\n")
        self.started = 0
        self.nodes = {}

    def write_cells(self, cells):
        record = {"name": "fake <run>", "description": "Two methods & three seeds.", "seed": 7, "cells": cells}
        (self.run_dir / "stages.json").write_text(json.dumps(record | {"nodes": self.nodes}))

    def plan(self, artefact_id, kind, label, **parents):
        """Name an artefact without making it, as a run does with one that fails."""
        self.nodes[artefact_id] = {"label": label, "kind": kind, "config": {}, "parents": parents}
        return artefact_id

    def add(self, artefact_id, kind, label, wall_seconds=60.0, **metrics):
        self.nodes.setdefault(artefact_id, {"label": label, "kind": kind, "config": {}, "parents": {}})
        folder = self.store / artefact_id
        folder.mkdir(parents=True)
        self.started += 1
        rows_out = metrics.get("rows_out", metrics.get("train_rows", 1))
        manifest = {
            "id": artefact_id, "key": "k", "kind": kind, "label": label, "config": CONFIGS.get(kind, {}),
            "parents": self.nodes[artefact_id]["parents"], "rows_in": metrics.get("rows_in", rows_out),
            "rows_out": rows_out, "drops": metrics.get("drops", {}), "seed": 7,
            "content_digest": "0123456789abcdef" * 4,
            "versions": {"torch": "2.13.0", "trl": "1.16.0"}, "device": "cpu", "world_size": 1,
            "distributed_type": "NO", "threads": 1, "command": "deita-train run",
            "started": f"2026-01-01T00:{self.started:02d}:00Z", "wall_seconds": wall_seconds,
        }  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(manifest))
        (folder / "metrics.json").write_text(json.dumps(metrics))
        return artefact_id

    def add_training(self, artefact_id, kind, label, seed, **more):
        noise = np.random.default_rng(seed).normal(0, 0.03, 40)
        losses = 2.2 + 2.5 * np.exp(-np.arange(40) / 9) + noise
        history = [
            {"step": 5 * place, "epoch": place / 40, "loss": float(loss), "learning_rate": 1e-3}
            for place, loss in enumerate(losses)
        ]
        if kind == "dpo":
            for place, entry in enumerate(history):
                entry["loss"] = math.log(2) - 0.2 * place / 40 + float(noise[place]) / 2
                entry |= {"reward_margin": 0.02 * place + float(noise[place]), "reward_accuracy": 0.5 + place / 100}
        sizes = {"steps": 200, "parameters": 1_234_567, "train_rows": 80, "train_tokens": 40_960, "loss_tokens": 20_480}
        return self.add(artefact_id, kind, label, wall_seconds=212.0, history=history, **sizes, **more)

    def write_failures(self, failed):
        """A mistake of the user's for each failed SFT, a failure of ours for each failed DPO."""
        records = [
            {
                "artefact": f"{stage}-{method}-{budget}-{seed}", "label": stage, "user_error": stage == "sft",
                "message": f"{stage}: [Errno 12] <out> of memory | at step 7", "cells": [f"{method}, budget {budget}"],
            }
            for (method, budget, seed), stage in failed.items()
        ]  # fmt: skip
        (self.run_dir / "failures.json").write_text(json.dumps(records))

    def add_select(self, method, seed):
        rows = pool_rows(np.random.default_rng(5))
        order = np.argsort(-rows["evol_score"])
        if method == "random":
            order = np.random.default_rng(seed).permutation(POOL_ROWS)
        walked = walk(rows, order, method)
        artefact_id = f"select-{method}-{seed}" if method == "random" else "select-deita"
        if (self.store / artefact_id).exists():
            return artefact_id
        kept = walked["kept"]
        self.plan(artefact_id, "select", "select", **SELECT_READS[method])
        self.add(artefact_id, "select", "select", 3.2, **select_metrics(method, rows, walked))
        write_select_data(self.store / artefact_id, rows, walked, method)
        assert len(kept) == BUDGET
        return artefact_id


def pool_rows(rng):
    """A pool of which every fourth row is a near-copy of the row before it."""
    near = np.arange(POOL_ROWS) % 4 == 3
    evol = rng.gamma(4, 3, POOL_ROWS)
    return {
        "id": np.array([f"pool:{row}" for row in range(POOL_ROWS)]),
        "evol_score": np.where(near, np.roll(evol, 1) - 0.01, evol),
        "near_duplicate": near,
        "true_quality": rng.normal(3, 1, POOL_ROWS),
        "num_turns": rng.geometric(0.25, POOL_ROWS),
        "num_chars": (np.exp(rng.normal(7, 1, POOL_ROWS))).astype(int),
        "similarity": rng.beta(8, 4, POOL_ROWS) * 0.9,
    }


def conversation(row):
    return [
        {"role": "user", "content": f"Row {row} asks | <b>for</b> help\nwith a list."},
        {"role": "assistant", "content": "Here \x1b it is. " * 40},
    ]


def walk(rows, order, method, budget=BUDGET):
    kept, similarity, blocked = [], {}, {}
    for row in order:
        if len(kept) == budget:
            break
        twin = row - 1
        if method == "deita" and rows["near_duplicate"][row] and twin in kept:
            similarity[row], blocked[row] = 0.93 + 0.05 * (row % 7) / 7, rows["id"][twin]
            continue
        if method == "deita" and kept:
            similarity[row] = float(rows["similarity"][row])
        kept.append(int(row))
    return {"kept": kept, "similarity": similarity, "blocked": blocked}


def select_metrics(method, rows, walked):
    kept, rejected = walked["kept"], len(walked["blocked"])
    columns = {
        name: {"selected": float(rows[name][kept].mean()), "pool": float(rows[name].mean())}
        for name in ("true_quality", "near_duplicate")
    }
    is_deita = method == "deita"
    means = {"selected": float(rows["evol_score"][kept].mean()), "pool": float(rows["evol_score"].mean())}
    return {
        "method": method, "budget": BUDGET, "threshold": THRESHOLD if is_deita else None, "rows_in": POOL_ROWS,
        "rows_out": len(kept), "drops": {"not_selected": POOL_ROWS - len(kept)}, "seen": len(kept) + rejected,
        "rejected": rejected,
        "nearest_similarity": {}, "columns": columns, "budget_wanted": BUDGET, "budget_found": len(kept),
        "budget_met": len(kept) == BUDGET,
        "score_mean": means if is_deita else None,
    }  # fmt: skip


def write_select_data(folder, rows, walked, method):
    rank = {row: place for place, row in enumerate(walked["kept"])}
    trace = {
        "id": list(rows["id"]),
        "source": ["pool"] * POOL_ROWS,
        "evol_score": list(rows["evol_score"]),
        "selection_rank": [rank.get(row) for row in range(POOL_ROWS)],
        "nearest_similarity": [walked["similarity"].get(row) for row in range(POOL_ROWS)],
        "blocked_by": [walked["blocked"].get(row) for row in range(POOL_ROWS)],
        "num_turns": list(rows["num_turns"]),
        "num_chars": list(rows["num_chars"]),
    }
    if method == "random":
        for name in ("evol_score", "nearest_similarity", "blocked_by"):
            del trace[name]
    datasets.Dataset.from_dict(trace).save_to_disk(str(folder / "trace"))
    kept = {
        "id": [rows["id"][row] for row in walked["kept"]],
        "messages": list(map(conversation, walked["kept"])),
        "near_duplicate": [bool(rows["near_duplicate"][row]) for row in walked["kept"]],
        "true_quality": [float(rows["true_quality"][row]) for row in walked["kept"]],
    }
    datasets.Dataset.from_dict(kept).save_to_disk(str(folder / "data"))


def add_upstream(run):
    """Everything before the selection, shared by all cells."""
    centres = np.linspace(1, 6, 26)[:-1] + 0.1
    shared = {"base": run.add_training("base-0", "base", "base", 1)}
    shared["pool"] = run.add(
        "pool-0", "pool", "pool", 1.5, rows_in=430, rows_out=POOL_ROWS, drops={"empty reply": 20, "no user turn": 10},
        examples={"empty reply": ["Name a <script>alert(1)</script> tag", "Second"], "no user turn": ["x " * 300]},
        columns_left_out=["lang"], mean_turns=3.96,
    )  # fmt: skip
    rows = {"id": [f"pool:{row}" for row in range(POOL_ROWS)], "messages": list(map(conversation, range(POOL_ROWS)))}
    datasets.Dataset.from_dict(rows).save_to_disk(str(run.store / "pool-0" / "data"))
    for seed, name in enumerate(("complexity", "quality")):
        heldout = {
            "rows": 50, "rank_correlation": 0.91 - seed / 10, "mean_absolute_error": 0.31, "bias": -0.125 - seed,
            "calibration_slope": 1.5, "calibration_intercept": -0.75,
            "by_label": [{"label": 1, "rows": 30, "mean_score": 1.25}, {"label": 4, "rows": 20, "mean_score": 3.5}],
        }  # fmt: skip
        shared[f"train_scorer.{name}"] = run.add_training(
            f"scorer-{name}", "train_scorer", f"train_scorer.{name}", seed + 2, dimension=name, heldout=heldout
        )
        counts = (300 * np.exp(-((centres - 3 - seed) ** 2) / 1.5)).astype(int).tolist()
        shared[f"score.{name}"] = run.add(
            f"score-{name}", "score", f"score.{name}", 31.0, dimension=name, rows=POOL_ROWS, turns=1600,
            scored=1598 + seed, nulls={"no digit token": 2 - seed}, shortened=12,
            histogram={"edges": np.linspace(1, 6, 26).tolist(), "counts": counts}, mean=3.0 + seed,
            digit_mass_mean=0.987, wrong_model_suspected=False, tokens=123_456, tokens_per_second=9000.0,
            real_token_share=0.93,
        )  # fmt: skip
    shared["embed"] = run.add(
        "embed-0", "embed", "embed", 44.0, rows=POOL_ROWS, dimensions=128, truncated=9, tokens=654_321
    )
    vectors = np.random.default_rng(6).normal(size=(POOL_ROWS, 128)).astype(np.float32)
    write_embeddings(run.store / "embed-0" / "data", [f"pool:{row}" for row in range(POOL_ROWS)], vectors)
    return shared


def write_fake_run(folder):
    run = FakeRun(folder)
    shared = add_upstream(run)
    shared["evaluate.base"] = run.add("evaluate-base", "evaluate", "evaluate.base", 5.0, heldout=heldout(3.2))
    cells = []
    for method, losses in LOSSES.items():
        for seed, loss in enumerate(losses, start=1):
            name = f"{method}-{seed}"
            stages = shared | {"select": run.add_select(method, seed)}
            stages["sft"] = run.add_training(
                f"sft-{name}",
                "sft",
                "sft",
                seed + 10 * len(method),
                rows_without_loss=0,
                rows_truncated=4,
                tokens_per_second_per_device=2100.0,
                mfu=None,
            )
            stages["evaluate.sft"] = run.add(f"evaluate-{name}", "evaluate", "evaluate.sft", 5.0, heldout=heldout(loss))
            settings = {"select.method": method, "select.seed": seed, "sft.seed": seed}
            cells.append({"label": name, "settings": settings, "base": not cells, "stages": stages})
    run.write_cells(cells)
    return run


def heldout(loss):
    return {"rows": 64, "tokens": 9000, "loss_per_token": loss, "perplexity": math.exp(loss)}


def keep_stages(run_dir, *labels, cells=1):
    """Cut the run down to some stages of its first cells."""

    def change(record):
        record["cells"] = record["cells"][:cells]
        for cell in record["cells"]:
            cell["stages"] = {label: cell["stages"][label] for label in labels}

    edit_json(run_dir / "stages.json", change)
