"""Runs' folders as the stages write them, built in code: two methods, and a sweep over budgets with DPO."""

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
# The mean held-out loss after SFT by method and budget; the seeds lie 0.01 below, at and above it.
SWEPT_LOSSES = {
    ("deita", 40): 2.50, ("deita", 80): 2.30, ("deita", 160): 2.25,
    ("random", 40): 2.70, ("random", 80): 2.45, ("random", 160): 2.35,
}  # fmt: skip
WHOLE_POOL_LOSS = 2.28
# Preference accuracy on held-out pairs by seed; DPO adds 6, 8 and 10 points, whatever the budget and method.
SFT_ACCURACIES, DPO_GAINS = (0.61, 0.62, 0.63), (0.06, 0.08, 0.10)
# Cells that fail, with the stage at which they do.
FAILED = {("random", 160, 3): "sft", ("deita", 40, 2): "dpo"}


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
    "deita": {"complexity": "score-complexity", "quality": "score-quality", "embed": "embed-0"},
    "random": {},
    "whole_pool": {},
}


class FakeRun:
    """Writes the folders of a run as the stages do, and what the run keeps of its cells and failures."""

    def __init__(self, folder: Path):
        self.run_dir, self.store = folder / "runs" / "fake", folder / "store"
        self.run_dir.mkdir(parents=True)
        (self.run_dir / "recipe.resolved.yaml").write_text("name: fake  # <script>\nseed: 7\n")
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
        manifest = {
            "id": artefact_id, "key": "k", "kind": kind, "label": label, "config": CONFIGS.get(kind, {}),
            "parents": self.nodes[artefact_id]["parents"], "rows_in": 1,
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
        "rows_out": len(kept), "drops": {}, "seen": len(kept) + rejected, "rejected": rejected,
        "nearest_similarity": {}, "columns": columns, "budget_wanted": BUDGET, "budget_found": len(kept),
        "budget_met": len(kept) == BUDGET,
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


def pairs(accuracy):
    return {"rows": 200, "accuracy": accuracy, "margin": 20 * accuracy - 15, "chosen_tokens": 9, "rejected_tokens": 8}


def add_pairs(run):
    """Preference pairs and the untuned model, shared by all cells."""
    shared = {"evaluate.base": run.add("evaluate-base", "evaluate", "evaluate.base", 5.0, heldout=heldout(3.2))}
    for label, rows in (("dpo_data", 300), ("heldout_pairs", 200)):
        shared[label] = run.add(
            label, "preferences", label, 1.0, rows_in=rows + 5, rows_out=rows, drops={"both answers <equal>": 5},
            examples={"both answers <equal>": ["Say <i>hi</i> | please"]},
        )  # fmt: skip
    shared["evaluate_pairs.base"] = run.add("pairs-base", "log_probs", "evaluate_pairs.base", 6.0, pairs=pairs(0.55))
    return shared


def swept_select(run, method, budget, seed, place):
    """A selection's artefact; rows and trace are written for the recipe as written only, as no other is read."""
    artefact_id = f"select-{method}-{budget}" + (f"-{seed}" if method == "random" else "")
    if artefact_id in run.nodes:
        return artefact_id
    rows = pool_rows(np.random.default_rng(5))
    order = np.argsort(-rows["evol_score"]) if method == "deita" else np.random.default_rng(seed).permutation(POOL_ROWS)
    walked = walk(rows, order, method, budget or POOL_ROWS)
    run.plan(artefact_id, "select", "select", **SELECT_READS[method])
    run.add(artefact_id, "select", "select", 3.2, **select_metrics(method, rows, walked) | {"budget": budget})
    if place == 0:
        write_select_data(run.store / artefact_id, rows, walked, method)
    return artefact_id


def add_tuned(run, name, stages, seed, loss, failed_at):
    """SFT, DPO and their evaluations; a stage from ``failed_at`` on is only named."""
    place, made = seed - 1, failed_at != "sft"
    more = {"rows_without_loss": 0, "rows_truncated": 4, "tokens_per_second_per_device": 2100.0, "mfu": None}

    def add(label, kind, parents, training=None, **metrics):
        artefact_id = run.plan(f"{label.replace('.', '-')}-{name}", kind, label, **parents)
        if made and training:
            run.add_training(artefact_id, kind, label, training, **metrics)
        elif made:
            run.add(artefact_id, kind, label, 5.0, **metrics)
        stages[label] = artefact_id
        return artefact_id

    sft = add("sft", "sft", {"data": stages["select"]}, seed + 10 * len(name), **more)
    add("reference", "log_probs", {"model": sft}, pairs=pairs(0.6))
    reference, sft_accuracy = stages["reference"], SFT_ACCURACIES[place]
    before = add("evaluate.sft", "evaluate", {"model": sft}, heldout=heldout(loss))
    pairs_before = add("evaluate_pairs.sft", "log_probs", {"model": sft}, pairs=pairs(sft_accuracy))
    made = made and failed_at != "dpo"
    dpo = add("dpo", "dpo", {"model": sft, "reference": reference}, seed + 20 * len(name), **more)
    add("evaluate.dpo", "evaluate", {"model": dpo, "before": before}, heldout=heldout(loss + 0.05))
    add(
        "evaluate_pairs.dpo", "log_probs", {"model": dpo, "before": pairs_before},
        pairs=pairs(sft_accuracy + DPO_GAINS[place]), rewards={"accuracy": 0.7 + place / 100, "margin": 0.4},
    )  # fmt: skip


def write_swept_run(folder, losses=SWEPT_LOSSES, failed=FAILED):
    """Budgets and methods of ``losses`` and the whole pool, three seeds each; the recipe as written is a cell."""
    run = FakeRun(folder)
    shared = add_upstream(run) | add_pairs(run)
    settings = [(method, budget, loss) for (method, budget), loss in losses.items()]
    settings = sorted(settings, key=lambda item: item[:2] != ("deita", 80))
    cells = []
    for method, budget, loss in (*settings, ("whole_pool", None, WHOLE_POOL_LOSS)):
        for seed in (1, 2, 3):
            stages = shared | {"select": swept_select(run, method, budget, seed, len(cells))}
            name = f"{method}-{budget}-{seed}"
            add_tuned(run, name, stages, seed, loss + (seed - 2) / 100, failed.get((method, budget, seed)))
            swept = {"select.method": method, "select.budget": budget, "select.seed": seed, "sft.seed": seed}
            label = f"{method}, budget {budget}, seed {seed}"
            if budget is None:
                swept.pop("select.budget")
                label = f"whole pool, seed {seed}"
            cells.append({"label": label, "settings": swept, "base": not cells, "stages": stages})
    run.write_cells(cells)
    run.write_failures(failed)
    return run


@pytest.fixture(scope="session")
def published_sweep(tmp_path_factory):
    return write_swept_run(tmp_path_factory.mktemp("swept"))


@pytest.fixture
def swept(published_sweep, tmp_path):
    """A copy of the swept run that a test may change."""
    shutil.copytree(published_sweep.run_dir, tmp_path / "swept")
    shutil.copytree(published_sweep.store, tmp_path / "swept-store")
    return tmp_path / "swept", tmp_path / "swept-store"


@pytest.fixture(scope="session")
def published_run(tmp_path_factory):
    return write_fake_run(tmp_path_factory.mktemp("fake"))


@pytest.fixture
def run(published_run, tmp_path):
    """A copy of the fake run that a test may change."""
    shutil.copytree(published_run.run_dir, tmp_path / "run")
    shutil.copytree(published_run.store, tmp_path / "store")
    return tmp_path / "run", tmp_path / "store"
