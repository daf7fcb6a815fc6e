"""The folder of a sweep over budgets and methods with DPO, built in code; two of its cells fail."""

import numpy as np
from fake_run import (
    POOL_ROWS,
    SELECT_READS,
    FakeRun,
    add_upstream,
    heldout,
    pool_rows,
    select_metrics,
    walk,
    write_select_data,
)

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


def swept_select(run, method, budget, seed):
    """A selection's artefact."""
    artefact_id = f"select-{method}-{budget}" + (f"-{seed}" if method == "random" else "")
    if artefact_id in run.nodes:
        return artefact_id
    rows = pool_rows(np.random.default_rng(5))
    order = np.argsort(-rows["evol_score"]) if method == "deita" else np.random.default_rng(seed).permutation(POOL_ROWS)
    walked = walk(rows, order, method, budget or POOL_ROWS)
    run.plan(artefact_id, "select", "select", **SELECT_READS[method])
    run.add(artefact_id, "select", "select", 3.2, **select_metrics(method, rows, walked) | {"budget": budget})
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
    """Budgets and methods of ``losses`` and the whole pool, three seeds each; the base run is a cell."""
    run = FakeRun(folder)
    shared = add_upstream(run) | add_pairs(run)
    settings = [(method, budget, loss) for (method, budget), loss in losses.items()]
    settings = sorted(settings, key=lambda item: item[:2] != ("deita", 80))
    cells = []
    for method, budget, loss in (*settings, ("whole_pool", None, WHOLE_POOL_LOSS)):
        for seed in (1, 2, 3):
            stages = shared | {"select": swept_select(run, method, budget, seed)}
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
