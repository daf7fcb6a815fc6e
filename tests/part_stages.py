"""What the tests of parts share: a recipe with the stages that are made in parts, and processes that do them."""

import json
import time
from functools import partial

import torch
from pass_stages import conversations, make_model

from deita_train.plan.plan import make_plan
from deita_train.run.child.part_process import run_part
from deita_train.run.child.stage_process import run_stage
from deita_train.stages.inference import batched_pass as passes

# The stages that are made in parts, and what they read.
DIVIDED = ("score.quality", "embed", "perplexity", "evaluate.base", "evaluate_pairs.base")
READ = ("pool", "heldout_data", "heldout_pairs")
BATCH_TOKENS = 400


def write_recipe(folder, rows=61):
    """The recipe over so many conversations, with a miniature beside it."""
    make_model(folder / "model")
    (folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in conversations(rows)))
    model = {"model": str(folder / "model"), "max_batch_tokens": BATCH_TOKENS}
    recipe = {
        "name": "parts",
        "seed": 3,
        "pool": {"dataset": str(folder / "pool.jsonl")},
        "scorers": {"quality": {**model, "min_digit_mass": 0}},
        "embedding": model,
        "perplexity": model,
        "select": {"method": "random", "budget": 10},
        "sft": {"model": str(folder / "model"), "global_batch_size": 8, "trainer": {"max_steps": 1}},
        "evaluate": {
            "heldout": {"builtin": "quickstart_heldout", "rows": 20},
            "preferences": {"builtin": "quickstart_heldout_preferences", "rows": 20},
            "max_batch_tokens": BATCH_TOKENS,
        },
    }
    path = folder / "recipe.json"
    path.write_text(json.dumps(recipe))
    return path


def make_read(recipe, runs):
    """Make the stages that the divided ones read."""
    for label in READ:
        run_stage(recipe, [], runs, label)


def node_of(recipe, runs, label, *sets):
    """The stage with its store."""
    plan = make_plan(recipe, sets, runs)
    return plan.store, plan.node(label)


def digest(recipe, runs, label):
    """Of the published content."""
    store, node = node_of(recipe, runs, label)
    return store.manifest(node.id).content_digest


def do_part(recipe, runs, label, part, sets=(), slow=0.0):
    """Target of a child, and a call in this process: one part, with a shard after every batch; slowly if asked.

    Gives the number of the batches that it computed.
    """
    torch.set_num_threads(1)
    was, tick, computed = passes.Pass, passes._Watch.tick, []
    passes.Pass = partial(passes.Pass, flush_seconds=0.0)
    passes._Watch.tick = lambda watch: (computed.append(watch), time.sleep(slow), tick(watch))
    try:
        run_part(recipe, list(sets), runs, label, part, None)
    finally:
        passes.Pass, passes._Watch.tick = was, tick
    return len(computed)
