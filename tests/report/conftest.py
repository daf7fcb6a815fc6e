"""A run's folder as the stages write it, built in code: two methods, three seeds each."""

import json
import math
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest

POOL_ROWS, BUDGET, THRESHOLD = 400, 80, 0.9
# Held-out losses by method and seed; the means are 2.30 and 2.40.
LOSSES = {"deita": [2.29, 2.30, 2.31], "random": [2.38, 2.40, 2.42]}


class FakeRun:
    """Writes the folders of a run as the stages do: two methods, three seeds each."""

    def __init__(self, folder: Path):
        self.run_dir, self.store = folder / "runs" / "fake", folder / "store"
        self.run_dir.mkdir(parents=True)
        (self.run_dir / "recipe.resolved.yaml").write_text("name: fake  # <script>\nseed: 7\n")
        self.started = 0

    def write_cells(self, cells, **other):
        record = {"name": "fake <run>", "description": "Two methods & three seeds.", "seed": 7, "cells": cells}
        (self.run_dir / "stages.json").write_text(json.dumps(record | other))

    def add(self, artefact_id, kind, label, wall_seconds=60.0, **metrics):
        folder = self.store / artefact_id
        folder.mkdir(parents=True)
        self.started += 1
        manifest = {
            "id": artefact_id, "key": "k", "kind": kind, "label": label, "config": {}, "parents": {}, "rows_in": 1,
            "rows_out": 1, "drops": {}, "content_digest": "0123456789abcdef" * 4, "seed": 7,
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
        sizes = {"steps": 200, "parameters": 1_234_567, "train_rows": 80, "train_tokens": 40_960, "loss_tokens": 20_480}
        return self.add(artefact_id, kind, label, wall_seconds=212.0, history=history, **sizes, **more)

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


def walk(rows, order, method):
    kept, similarity, blocked = [], {}, {}
    for row in order:
        if len(kept) == BUDGET:
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
        "rows_out": len(kept), "drops": {}, "seen": len(kept) + rejected, "rejected": rejected,
        "nearest_similarity": {}, "columns": columns,
        "duplicates": {"met": 20, "rejected": 19} if is_deita else None, "score_mean": means if is_deita else None,
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
        "messages": [
            [{"role": "user", "content": f"Row {row} asks | <b>for</b> help\nwith a list."}] for row in walked["kept"]
        ],
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
    for seed, name in enumerate(("complexity", "quality")):
        heldout = {"rows": 50, "rank_correlation": 0.91 - seed / 10, "mean_absolute_error": 0.31}
        shared[f"train_scorer.{name}"] = run.add_training(
            f"scorer-{name}", "train_scorer", f"train_scorer.{name}", seed + 2, dimension=name, heldout=heldout
        )
        counts = (300 * np.exp(-((centres - 3 - seed) ** 2) / 1.5)).astype(int).tolist()
        shared[f"score.{name}"] = run.add(
            f"score-{name}", "score", f"score.{name}", 31.0, dimension=name, rows=POOL_ROWS, turns=1600,
            scored=1598 + seed, nulls={"no digit token": 2 - seed}, shortened=12,
            histogram={"edges": np.linspace(1, 6, 26).tolist(), "counts": counts}, mean=3.0 + seed,
            digit_mass_mean=0.987, tokens=123_456, tokens_per_second=9000.0, real_token_share=0.93,
        )  # fmt: skip
    shared["embed"] = run.add(
        "embed-0", "embed", "embed", 44.0, rows=POOL_ROWS, dimensions=128, truncated=9, tokens=654_321
    )
    return shared


def write_fake_run(folder):
    run = FakeRun(folder)
    shared = add_upstream(run)
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
                tokens_per_second=2100.0,
            )
            stages["evaluate"] = run.add(
                f"evaluate-{name}", "evaluate", "evaluate", 5.0,
                heldout={"rows": 64, "tokens": 9000, "loss_per_token": loss, "perplexity": math.exp(loss)},
                before={"rows": 64, "tokens": 9000, "loss_per_token": 3.2, "perplexity": math.exp(3.2)},
            )  # fmt: skip
            settings = {"select.method": method, "select.seed": seed, "sft.seed": seed}
            cells.append({"label": name, "settings": settings, "base": not cells, "stages": stages})
    run.write_cells(cells)
    return run


@pytest.fixture(scope="session")
def published_run(tmp_path_factory):
    return write_fake_run(tmp_path_factory.mktemp("fake"))


@pytest.fixture
def run(published_run, tmp_path):
    """A copy of the fake run that a test may change."""
    shutil.copytree(published_run.run_dir, tmp_path / "run")
    shutil.copytree(published_run.store, tmp_path / "store")
    return tmp_path / "run", tmp_path / "store"
