"""The one rule of where rows are cut, by hand and in whole stages."""

import json
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from messages import assistant, user
from model_families import FAMILIES, make_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from deita_train.commands.validation import validate_data
from deita_train.plan.plan import make_plan
from deita_train.run.child.stage_process import run_stage
from deita_train.stages.row_limit import Readable, row_limit


def of_training(max_length, *, stated):
    return {"trainer": {"max_length": max_length}, "cut_at_context": not stated}


def of_pass(max_length):
    return {"max_length": max_length, "max_length_limit": 2048}


@pytest.mark.parametrize(
    ("identity", "readable", "tokens", "note"),
    [
        (of_training(2048, stated=False), Readable(4096), 2048, None),
        (of_training(2048, stated=False), Readable(512), 512, "rows are cut at 512 tokens, the model's context"),
        (of_training(2048, stated=False), Readable(None), 2048, None),
        (
            of_training(2048, stated=True), Readable(512), 2048,
            "rows of up to 2,048 tokens are read, beyond the model's context of 512, as max_length states",
        ),
        (
            of_training(None, stated=True), Readable(512), None,
            "rows of any length are read, beyond the model's context of 512, as max_length states",
        ),
        (of_training(100, stated=True), Readable(512), 100, None),
        (
            of_training(2048, stated=True), Readable(1024, 1024), 1024,
            "rows are cut at 1,024 tokens, the positions that the model has learned",
        ),
        (
            of_training(None, stated=True), Readable(1024, 1024), 1024,
            "rows are cut at 1,024 tokens, the positions that the model has learned",
        ),
        (of_pass(None), Readable(32_768), 2048, None),
        (of_pass(None), Readable(220), 220, "rows are cut at 220 tokens, the model's context"),
        (
            of_pass(4096), Readable(220), 4096,
            "rows of up to 4,096 tokens are read, beyond the model's context of 220, as max_length states",
        ),
        # Of artefacts from before the rule, with the default that they imply.
        ({"max_length": 2048}, Readable(512), 512, "rows are cut at 512 tokens, the model's context"),
        # A scorer that matches the public code shortens nothing and scores no prompt beyond the context.
        ({**of_pass(None), "parity": True}, Readable(32_768), 32_768, None),
        ({**of_pass(None), "parity": True}, Readable(None), sys.maxsize, None),
    ],
)  # fmt: skip
def test_the_rule_by_hand(identity, readable, tokens, note):
    limit = row_limit(identity, readable)
    assert (limit.tokens, limit.note) == (tokens, note)
    assert limit.context == readable.context


LENGTHS = st.none() | st.integers(1, 5000)


@given(LENGTHS, st.booleans(), LENGTHS, st.booleans())
def test_the_limit_is_never_longer_than_anything_that_holds(wanted, stated, context, is_learned):
    positions = context if is_learned else None
    limit = row_limit(of_training(wanted, stated=stated), Readable(context, positions)).tokens
    holds = [wanted, positions, None if stated else context]
    assert limit == min((length for length in holds if length is not None), default=None)


SHAPE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
CONTEXT, ROWS = 160, 6


@pytest.fixture
def folder(tmp_path):
    write_model(tmp_path, "llama")
    # Of the six, three have answers that reach beyond the context.
    rows = [{"messages": [user("How are you?"), assistant("1+1? " * (2 if n % 2 else 60))]} for n in range(ROWS)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    answers = [f"{n} " + "yes 2! " * (1 if n % 2 else 60) for n in range(ROWS)]
    pairs = [{"prompt": "Hi", "chosen": answer, "rejected": "no"} for answer in answers]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    return tmp_path


def write_model(folder, name):
    tokenizer = make_tokenizer(FAMILIES["qwen2.5"], folder / "model")
    torch.manual_seed(1)
    tokens = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(name, vocab_size=len(tokenizer), max_position_embeddings=CONTEXT, **SHAPE, **tokens)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")


def planned(folder, trainer, **evaluate):
    data = {"dataset": str(folder / "rows.jsonl")}
    pairs = {"dataset": str(folder / "pairs.jsonl")}
    model = str(folder / "model")
    steps = {"max_steps": 1, **trainer}
    recipe = {
        "name": "limits",
        "pool": data,
        "perplexity": {"model": model},
        "embedding": {"model": model},
        "scorers": {"quality": {"model": model, "min_digit_mass": 0.0, "max_unscored_share": 1.0}},
        "sft": {"model": model, "data": data, "global_batch_size": 2, "trainer": steps},
        "dpo": {"preferences": pairs, "global_batch_size": 2, "trainer": steps},
        "evaluate": {"heldout": data, "preferences": pairs, **evaluate},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return make_plan(path, (), folder / "runs")


def metrics(made, *labels):
    """Of these stages, carried out with everything that they read."""
    of = made.cells[0].nodes
    needed = {node.id: node for label in labels for node in (*of[label].ancestors(), of[label])}
    for node in needed.values():
        run_stage(made.loaded.path, [], made.runs_dir, node.id)
    return {label: json.loads((made.store.path(of[label].id) / "metrics.json").read_text()) for label in labels}


@pytest.mark.parametrize(
    ("name", "reason"), [("llama", "the model's context"), ("gpt2", "the positions that the model has learned")]
)
def test_rows_beyond_the_context_are_cut_and_counted_in_every_stage(folder, name, reason):
    write_model(folder, name)
    made = planned(folder, {})
    found = validate_data(made)
    assert found.problems == []
    told = [line for line in found.lines if reason in line]
    assert {line.split(": ")[0] for line in told} == {
        "perplexity", "embed", "score.quality", "sft", "dpo", "reference", "evaluate.base",
    }  # fmt: skip
    assert all(line.split(": ")[1] == f"rows are cut at {CONTEXT} tokens, {reason}" for line in told)
    assert any(line.startswith("sft: 6 of 6") and line.endswith(f", 3 cut at {CONTEXT} tokens") for line in found.lines)
    of = metrics(made, "perplexity", "embed", "dpo", "reference", "sft", "evaluate.base")
    assert (of["sft"]["rows_truncated"], of["dpo"]["rows_truncated"]) == (3, 3)
    assert [of[label]["truncated"] for label in ("perplexity", "embed", "reference", "evaluate.base")] == [3] * 4
    assert of["sft"]["rows_beyond_context"] == 0


def test_a_longer_length_that_is_stated_holds(folder):
    made = planned(folder, {"max_length": 999}, max_length=999)
    lines = [line for line in validate_data(made).lines if line.startswith("sft:")]
    assert lines[0] == (
        f"sft: rows of up to 999 tokens are read, beyond the model's context of {CONTEXT}, as max_length states"
    )
    of = metrics(made, "sft", "evaluate.base")
    assert (of["sft"]["rows_truncated"], of["sft"]["rows_beyond_context"]) == (0, 3)
    assert of["evaluate.base"]["truncated"] == 0


def test_what_is_stated_counts_in_the_key(folder):
    plain, stated = (
        planned(folder, {"max_length": length} if length else {}, **evaluate).cells[0].nodes
        for length, evaluate in ((None, {}), (2048, {"max_length": 2048}))
    )
    for label in ("sft", "dpo", "reference", "evaluate.base"):
        assert plain[label].key != stated[label].key
