"""Rows that a template cannot write: counted, up to a share left out, or written as text; and rows beyond positions."""

import json

import datasets
import pytest
import torch
from messages import assistant, system, user
from model_families import FAMILIES, make_tokenizer
from tiny_recipe import no_gpus  # noqa: F401
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig
from typer.testing import CliRunner

from deita_train.cli import app
from deita_train.errors import UserError
from deita_train.plan.plan import make_plan
from deita_train.run.child.stage_process import run_stage
from deita_train.store.atomic_io import read_json, write_json_atomically

pytestmark = pytest.mark.usefixtures("no_gpus")
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
ROWS = [
    {"id": "plain", "messages": [user("How are you?"), assistant("Fine.")]},
    {"id": "late", "messages": [user("Hello"), assistant("Hi"), system("Be brief."), user("Why?"), assistant("So.")]},
    {
        "id": "tool",
        "messages": [
            user("Weather?"),
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "Rain."},
            assistant("It rains."),
        ],
    },
    {"id": "thought", "messages": [user("2+2?"), {**assistant("4"), "reasoning_content": "two and two"}]},
]
PAIRS = [
    {"id": "good", "prompt": "Hello", "chosen": "Good morning", "rejected": "how"},
    {"id": "merging", "prompt": "Hello", "chosen": "\n\nGood", "rejected": "how"},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = make_tokenizer(FAMILIES["qwen2.5"], folder)
    shape = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(LlamaConfig(**shape)).save_pretrained(folder)
    return folder


def write_lines(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def recipe(folder, model, **sections):
    trainer = {"max_steps": 1, "max_length": 128, "learning_rate": 1e-3}
    pool = {"dataset": write_lines(folder / "pool.jsonl", ROWS)}
    pairs = {"dataset": write_lines(folder / "pairs.jsonl", PAIRS)}
    named = {"model": str(model), "chat_template": "zephyr"}
    data = {
        "name": "refused",
        "pool": pool,
        "embedding": {**named},
        "perplexity": {**named},
        "select": {"method": "perplexity", "budget": 1},
        "sft": {
            "data": pool,
            "model": str(model),
            "chat_template": "zephyr",
            "global_batch_size": 1,
            "trainer": trainer,
        },
        "dpo": {"preferences": pairs, "global_batch_size": 1, "trainer": trainer},
        "evaluate": {"heldout": pool},
    }
    for name, fields in sections.items():
        data[name] |= fields
    write_json_atomically(folder / "recipe.yaml", data)
    return folder / "recipe.yaml"


SECTIONS = ("embedding", "perplexity", "sft", "dpo", "evaluate")


def carried_out(folder, path, *labels):
    made = make_plan(path, (), folder / "runs")
    nodes = made.cells[0].nodes
    for node in made.nodes:
        if not labels or node.label in labels:
            run_stage(path, [], folder / "runs", node.id)
    return {label: made.store.path(node.id) for label, node in nodes.items()}


def manifest(artefact):
    return read_json(artefact / "manifest.json")


def test_they_are_counted_and_left_out_of_every_stage_that_renders(tmp_path, model):
    allowed = {name: {"max_refused_share": 0.75} for name in SECTIONS}
    made = carried_out(tmp_path, recipe(tmp_path, model, **allowed))
    refused = {"refused_by_template": 1, "fields_not_written": 1}
    for label in ("embed", "sft", "evaluate.base", "evaluate.sft", "evaluate.dpo"):
        found = manifest(made[label])
        assert (found["rows_in"], found["rows_out"], found["drops"]) == (4, 2, refused), label
    assert list(datasets.load_from_disk(str(made["embed"] / "data"))["id"]) == ["plain", "late"]
    measured = datasets.load_from_disk(str(made["perplexity"] / "data"))
    assert dict(zip(measured["id"], measured["reason"], strict=True)) == {
        "plain": None, "late": None, "tool": "refused_by_template", "thought": "fields_not_written",
    }  # fmt: skip
    # `</s>` is not one of this tokenizer's tokens, so zephyr's end of turn merges with nothing, and both pairs stand.
    assert manifest(made["dpo"])["rows_out"] == manifest(made["reference"])["rows_out"] == 2


def test_a_pair_that_merges_with_the_header_is_one_of_them(tmp_path, model):
    path = recipe(
        tmp_path, model, sft={"chat_template": "tokenizer", "max_refused_share": 1.0}, dpo={"max_refused_share": 0.5}
    )
    made = carried_out(tmp_path, path, "pool", "sft_data", "sft", "dpo_data", "reference", "dpo")
    for label in ("reference", "dpo"):
        found = manifest(made[label])
        assert (found["rows_in"], found["rows_out"], found["drops"]) == (2, 1, {"prompt_not_prefix": 1})
    assert list(datasets.load_from_disk(str(made["reference"] / "data"))["id"]) == ["good"]


def test_above_the_share_the_stage_fails_with_the_ids_the_reasons_and_the_ways_on(tmp_path, model, capsys):
    path = recipe(tmp_path, model)
    with pytest.raises(UserError) as caught:
        carried_out(tmp_path, path, "pool", "sft_data", "sft")
    assert "tool is left out: refused_by_template: the template says: this format knows" in capsys.readouterr().out
    problem = str(caught.value)
    assert problem.startswith("sft: the chat template cannot write 2 of 4 rows (")
    assert "above the share 0.01 of sft.max_refused_share" in problem and "thought: the template does not" in problem
    assert "state sft.unsupported_fields: text" in problem
    assert "The first of each reason: tool: " in problem and problem.count("thought: ") == problem.count("tool: ") == 1


def test_as_text_every_row_is_used(tmp_path, model):
    as_text = {name: {"unsupported_fields": "text"} for name in SECTIONS}
    made = carried_out(tmp_path, recipe(tmp_path, model, **as_text), "pool", "embed", "sft_data", "sft")
    assert manifest(made["embed"])["drops"] == manifest(made["sft"])["drops"] == {}
    assert manifest(made["sft"])["rows_out"] == 4
    for label in ("embed", "sft"):
        assert read_json(made[label] / "metrics.json")["rows_as_text"] == 2


@pytest.fixture
def gpt2(tmp_path):
    folder = tmp_path / "gpt2"
    tokenizer = make_tokenizer(FAMILIES["qwen2.5"], folder)
    (folder / "chat_template.jinja").unlink()
    shape = GPT2Config(vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=1, n_head=2)
    shape.eos_token_id = shape.bos_token_id = tokenizer.eos_token_id
    AutoModelForCausalLM.from_config(shape).save_pretrained(folder)
    return folder


def test_rows_are_cut_at_the_positions_that_a_model_has_learned(tmp_path, gpt2):
    short, long = [user("Hello"), assistant("Fine. " * 3)], [user("Hello"), assistant("Fine. " * 200)]
    rows = write_lines(tmp_path / "pool.jsonl", [{"messages": short}, {"messages": long}])
    sft = {"data": {"dataset": rows}, "model": str(gpt2), "chat_template": "chatml", "global_batch_size": 1}
    path = tmp_path / "recipe.yaml"
    data = {
        "name": "positions",
        "sft": {**sft, "trainer": {"max_steps": 2}},
        "evaluate": {"heldout": {"dataset": rows}},
    }
    write_json_atomically(path, data)
    found = CliRunner().invoke(app, ["validate", str(path), "--runs", str(tmp_path / "runs"), "--json"])
    report = json.loads(found.stdout)
    assert found.exit_code == 0 and report["valid"] and report["problems"] == []
    assert "sft: rows are cut at 64 tokens, the positions that the model has learned" in report["lines"]
    assert "evaluate.base: rows are cut at 64 tokens, the positions that the model has learned" in report["lines"]
    made = carried_out(tmp_path, path)
    assert read_json(made["sft"] / "metrics.json")["rows_truncated"] == 1
    assert read_json(made["evaluate.sft"] / "metrics.json")["truncated"] == 1
    write_json_atomically(path, {**data, "sft": {**sft, "trainer": {"max_steps": 2, "max_length": 65}}})
    with pytest.raises(UserError, match=r"sft\.trainer\.max_length: 65 tokens are more than the 64 positions"):
        make_plan(path, (), tmp_path / "runs")


def test_validate_tells_all_problems_at_once_and_exits_with_2(tmp_path, model):
    path = recipe(tmp_path, model, embedding={"chat_template": "llama3"})
    found = CliRunner().invoke(app, ["validate", str(path), "--runs", str(tmp_path / "runs"), "--json"])
    report = json.loads(found.stdout)
    assert (found.exit_code, report["valid"]) == (2, False)
    sections = [problem.partition(":")[0] for problem in report["problems"]]
    assert sections == ["embedding", "perplexity"]
    assert report["problems"][1].endswith(" The same holds for sft, evaluate.")
    assert "writes <|start_header_id|>" in report["problems"][0]
    plain = CliRunner().invoke(app, ["validate", str(path), "--runs", str(tmp_path / "runs")])
    assert plain.exit_code == 2 and "is valid" not in plain.stdout
    assert plain.stderr.count("error: ") == 2 and "pool: 4 rows read, 4 usable" in plain.stdout


TAKEN = "none of 2 rows {} (refused_by_template: 1, fields_not_written: 1). Choose another chat_template, or state"


def of_none(folder, model):
    """A recipe whose pool, held-out rows and pairs the template refuses to the last, as each section allows."""
    named = {"model": str(model), "chat_template": "zephyr", "max_refused_share": 1.0}
    rows = {"dataset": write_lines(folder / "none.jsonl", ROWS[2:])}
    trainer = {"max_steps": 1, "max_length": 128}
    pairs = {"dataset": write_lines(folder / "pairs.jsonl", PAIRS[1:])}
    read_as = {"tokenizer": str(model), "chat_template": "zephyr", "max_refused_share": 1.0}
    path = folder / "none.yaml"
    data = {
        "name": "none",
        "pool": rows,
        "embedding": named,
        "perplexity": named,
        "select": {"method": "random", "budget": {"tokens": 9}, "read_as": read_as},
        "sft": {**named, "data": rows, "global_batch_size": 1, "trainer": trainer},
        "evaluate": {"heldout": rows, "max_refused_share": 1.0},
    }
    write_json_atomically(path, data)
    dpo = {**named, "chat_template": "tokenizer", "preferences": pairs, "global_batch_size": 1, "trainer": trainer}
    write_json_atomically(folder / "pairs.yaml", {"name": "pairs", "dpo": dpo})
    return path, folder / "pairs.yaml"


def test_a_stage_that_is_left_without_a_row_says_what_took_them(tmp_path, model):
    path, of_pairs = of_none(tmp_path, model)
    carried_out(tmp_path, path, "pool", "sft_data", "heldout_data")
    left = {
        "embed": "is left to embed", "perplexity": "is left to measure", "lengths": "has a length",
        "sft": "has a token to learn from", "evaluate.base": "is left to measure",
    }  # fmt: skip
    for label, what in left.items():
        with pytest.raises(UserError) as caught:
            carried_out(tmp_path, path, label)
        assert TAKEN.format(what) in str(caught.value), label
    carried_out(tmp_path, of_pairs, "dpo_data")
    with pytest.raises(UserError, match=r"none of 1 rows is left to measure \(prompt_not_prefix: 1\)\. Choose another"):
        carried_out(tmp_path, of_pairs, "reference")


def test_validate_tells_that_no_row_is_usable(tmp_path, model):
    for path, sections in zip(
        of_none(tmp_path, model),
        (["embedding", "perplexity", "select.read_as", "sft", "evaluate"], ["dpo"]),
        strict=True,
    ):
        found = CliRunner().invoke(app, ["validate", str(path), "--runs", str(tmp_path / "runs"), "--json"])
        problems = json.loads(found.stdout)["problems"]
        assert found.exit_code == 2
        named = "".join(problem.partition(":")[0] + problem.partition("The same holds for")[2] for problem in problems)
        assert all(section in named for section in sections), problems
        assert all("rows is usable (" in problem for problem in problems)


def test_validate_tells_that_no_row_has_an_answer_within_max_length(tmp_path, model):
    path = recipe(tmp_path, model)
    write_lines(tmp_path / "pool.jsonl", ROWS[:1])
    data = {"name": "cut", "evaluate": {"model": str(model), "chat_template": "zephyr", "max_length": 3}}
    data["evaluate"]["heldout"] = {"dataset": str(tmp_path / "pool.jsonl")}
    write_json_atomically(path, data)
    found = CliRunner().invoke(app, ["validate", str(path), "--runs", str(tmp_path / "runs"), "--json"])
    assert json.loads(found.stdout)["problems"] == [
        "evaluate: none of 1 rows is usable (without_token: 1). Raise max_length as far as the model's context allows, "
        "or check the rows' answers."
    ]


def test_validate_tries_the_rows_of_a_selection_that_counts_tokens(tmp_path, model):
    path, _ = of_none(tmp_path, model)
    data = read_json(path)
    kept = {name: data[name] for name in ("name", "pool", "select")}
    kept["select"]["read_as"].pop("max_refused_share")
    write_json_atomically(path, kept)
    found = CliRunner().invoke(app, ["validate", str(path), "--runs", str(tmp_path / "runs"), "--json"])
    (problem,) = json.loads(found.stdout)["problems"]
    assert found.exit_code == 2 and problem.startswith("select.read_as: the chat template cannot write 2 of 2 rows")
