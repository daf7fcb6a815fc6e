"""What a plan says of its cost: rows and tokens, hours, memory, what fits, and where selecting first pays."""

import io
import json
import re
import socket

import pytest
from rich.console import Console
from tiny_recipe import dpo_recipe, no_gpus, plan, recipe, write  # noqa: F401
from typer.testing import CliRunner

from deita_train.cli import app
from deita_train.commands.results import print_cost
from deita_train.cost.gpus import GPUS, named_gpu
from deita_train.cost.shape import sizes_of
from deita_train.errors import UserError
from deita_train.plan.cost.break_even import BreakEven
from deita_train.plan.cost.costs import plan_cost, run_cost
from deita_train.plan.cost.rows import COUNTED, ESTIMATED, TABLE, PlannedRows
from deita_train.plan.cost.samples import length_of, sample_files
from deita_train.plan.cost.setups import setup_of
from deita_train.plan.launch import CONFIG_DIRS
from deita_train.plan.models import model_of
from deita_train.plan.plan import make_plan, planned_stages

RECIPES = CONFIG_DIRS[0].parent / "recipes"
FROM_POOL = RECIPES / "deita" / "deita-7b-v1.0-from-pool.yaml"
SCORER = 6_738_423_808


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    """The Hub refuses every connection, and nothing is in its cache."""
    from huggingface_hub import constants

    with socket.socket() as taken:  # bound and not listening
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        yield


def shown(runs, *arguments):
    answer = CliRunner().invoke(app, ["plan", *map(str, arguments), "--runs", str(runs)])
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def as_json(runs, *arguments):
    return json.loads(shown(runs, *arguments, "--json"))


def costs(made, gpu=None):
    stages = planned_stages(made)
    cost = plan_cost(made, stages, gpu)
    return cost, {stage.node.label: cost.stages[stage.node.key] for stage in stages}


def jsonl(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def chat(*texts):
    return {"messages": [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]}


@pytest.mark.usefixtures("no_network")
def test_a_released_recipe_is_planned_without_a_network(tmp_path):
    text = shown(tmp_path, FROM_POOL, "--gpu", "h100", "--gpus", 4)
    lines = [line.split() for line in text.splitlines()]
    table = {words[0]: words[1:] for words in lines if len(words) > 5 and words[1].startswith(("~", "6,000"))}
    assert set(table) == {"score.complexity", "score.quality", "embed", "sft", "reference", "dpo"}
    assert table["sft"][0] == "6,000" and table["embed"][0] == "~300,000" and table["dpo"][0] == "~10,000"
    for words in (
        "hours of one H100 SXM, ", "Disk for checkpoints and models: at most 348 GB",
        "the commit of the model mistralai/Mistral-7B-v0.1 at main", "selecting first is cheaper",
        "~ from a table", "docs/performance.md",
    ):  # fmt: skip
        assert words in text, words
    assert "will not fit" not in text and not any("score-" in line for line in text.splitlines())
    assert not (tmp_path / "deita-7b-v1.0-from-pool" / "revisions.json").exists()


@pytest.mark.usefixtures("no_network")
def test_the_hours_by_hand(tmp_path):
    found = as_json(tmp_path, FROM_POOL, "--gpu", "h100", "--gpus", 4)
    stages = {stage["label"]: stage["cost"] for stage in found["stages"]}
    tokens = 300_000 * 2048
    trunk = SCORER - 2 * 32_001 * 4096
    assert (stages["score.quality"]["tokens"], stages["score.quality"]["at_most"]) == (tokens, True)
    assert stages["score.quality"]["operations"] == 2.0 * trunk * tokens
    assert stages["score.quality"]["gpu_hours"] == pytest.approx(2 * trunk * tokens / (0.63 * 989e12) / 3600)
    # Six for each weight that is multiplied, and two for the layers once more.
    mistral, head = 7_241_732_096, 32_000 * 4096
    each = 6 * (mistral - head) + 2 * (mistral - 2 * head)
    assert stages["sft"]["operations"] == 6000 * 2048 * 6 * each
    assert found["total"]["gpu_hours"] == pytest.approx(sum(of["gpu_hours"] or 0 for of in stages.values()))
    assert found["total"]["wall_hours"] == pytest.approx(found["total"]["gpu_hours"] / 4)
    halved = as_json(tmp_path, FROM_POOL, "--gpu", "h100", "--gpus", 4, "--share", "0.315")
    again = {stage["label"]: stage["cost"] for stage in halved["stages"]}
    assert again["score.quality"]["gpu_hours"] == pytest.approx(2 * stages["score.quality"]["gpu_hours"])
    assert all(stage["key"] is None and stage["status"] == "to run" for stage in found["stages"])


@pytest.mark.usefixtures("no_network")
def test_what_does_not_fit_is_said_with_what_would(tmp_path):
    text = shown(tmp_path, FROM_POOL, "--gpu", "4090", "--gpus", 4)
    assert "warning: embed will not fit: 27.0 GB on each GPU, and RTX 4090 has 24.0 GB. What would: --gpu " in text
    (line,) = [line for line in text.splitlines() if line.startswith("warning: sft will not fit: ")]
    assert "launch: zero3_offload" in line and "8 GPUs with launch: zero3" in line
    offloaded = as_json(tmp_path, FROM_POOL, "--gpu", "4090", "--gpus", 4, "--set", "sft.launch=zero3_offload")
    assert {stage["label"]: stage["cost"]["fits"] for stage in offloaded["stages"]}["sft"] is True
    eight = as_json(tmp_path, FROM_POOL, "--gpu", "4090", "--gpus", 8, "--set", "sft.launch=zero3")
    assert {stage["label"]: stage["cost"]["fits"] for stage in eight["stages"]}["sft"] is True


@pytest.mark.usefixtures("no_network")
def test_what_is_run_still_needs_the_network(tmp_path):
    for command in (["run"], ["validate"], ["plan", "--stages"]):
        answer = CliRunner().invoke(app, [*command, str(FROM_POOL), "--runs", str(tmp_path)])
        assert answer.exit_code != 0
        said = answer.output + str(answer.exception)
        assert "is not a local path, and the Hub does not answer" in said


@pytest.mark.usefixtures("no_network")
def test_a_models_own_template_may_be_unresolved(tmp_path):
    data = recipe("base", "scorers", "embedding", "select", "pool", "evaluate", sft__model="Qwen/Qwen3-0.6B")
    data["sft"]["data"] = {"builtin": "quickstart", "rows": 20}
    found = as_json(tmp_path, write(tmp_path, data))
    assert "the chat template of Qwen/Qwen3-0.6B" in found["unresolved"]
    (sft,) = [stage for stage in found["stages"] if stage["label"] == "sft"]
    assert sft["key"] is None and sft["cost"]["from_table"] and sft["cost"]["operations"] > 0
    (pool,) = [stage for stage in found["stages"] if stage["label"] == "sft_data"]
    assert pool["key"] is not None and pool["artefact"].startswith("pool-")


@pytest.mark.usefixtures("no_network")
def test_a_model_that_nobody_knows_leaves_its_cost_unknown(tmp_path):
    data = recipe("base", "scorers", "embedding", "select", "pool", "evaluate", sft__model="org/model")
    data["sft"] |= {"data": {"builtin": "quickstart", "rows": 20}, "chat_template": "vicuna_v1.1"}
    text = shown(tmp_path, write(tmp_path, data))
    assert "Cost of sft: unknown, because org/model is not here yet." in text


def test_keys_are_shown_on_request(tmp_path):
    path = write(tmp_path, recipe())
    with_keys, without = shown(tmp_path, path, "--keys"), shown(tmp_path, path)
    ids = [stage["artefact"] for stage in as_json(tmp_path, path)["stages"]]
    assert all(f" {one} " in with_keys and one not in without for one in ids) and len(ids) == 13


def test_a_kind_alone_is_one_gpu(tmp_path):
    found = as_json(tmp_path, write(tmp_path, recipe()), "--gpu", "H100")
    launches = [stage["launch"] for stage in found["stages"] if stage["label"] == "sft"]
    assert launches[0]["num_processes"] == 1 and not launches[0]["use_cpu"]
    assert found["gpu"]["title"] == "H100 SXM"
    with pytest.raises(UserError, match="--gpu h1000: unknown; give one of 3090, 4090"):
        named_gpu("h1000")


def test_without_gpus_there_are_no_hours(tmp_path):
    text = shown(tmp_path, write(tmp_path, recipe()))
    assert "GPU hours" not in text and "GFLOP" in text


def test_a_local_file_is_counted_and_measured(tmp_path):
    rows = [chat("a" * 400, "b" * 4000), chat("a" * 40, "b" * 360)]
    file = jsonl(tmp_path / "pool.jsonl", rows * 150)
    sample = sample_files([file])
    assert (sample.rows, sample.counted) == (300, True)
    assert [length.tokens for length in sample.lengths[:2]] == [1100, 100]
    assert [length.of_user for length in sample.lengths[:2]] == [100, 10]
    made = plan(tmp_path, recipe(pool={"dataset": str(file)}, embedding__max_length=500, select__budget=75))
    rows = PlannedRows(made.store)
    nodes = made.cells[0].nodes
    assert rows.of(nodes["pool"]).number == 300 and rows.of(nodes["pool"]).how == COUNTED
    _, by_label = costs(made)
    # A miniature's tokenizer makes twice as many. The template adds 30 tokens of a system message and 10 of a turn.
    assert by_label["embed"].tokens == 300 * (500 + 2 * 140) // 2
    assert by_label["score.complexity"].tokens == 2 * (300 * (100 + 10) // 2 + 300 * 30)
    assert by_label["score.quality"].tokens == 2 * (300 * (1100 + 100) // 2 + 300 * 41)
    # The quarter that is kept may be the longest rows; they are cut at 2,048.
    assert by_label["sft"].tokens == 75 * 2048
    assert by_label["embed"].sampled and by_label["embed"].at_most  # it ends where the selection does


def test_a_large_file_is_estimated_by_its_size(tmp_path, monkeypatch):
    from deita_train.plan.cost import samples

    monkeypatch.setattr(samples, "_COUNTED_BYTES", 1000)
    sample = sample_files([jsonl(tmp_path / "p.jsonl", [chat("x" * 50, "y" * 50)] * 3000)])
    assert not sample.counted and sample.rows == pytest.approx(3000, rel=0.01)
    made = plan(tmp_path, recipe(pool={"dataset": str(tmp_path / "p.jsonl")}))
    assert PlannedRows(made.store).of(made.cells[0].nodes["pool"]).how == ESTIMATED


def test_every_form_of_rows_has_a_length():
    assert length_of({"conversations": [{"from": "human", "value": "a" * 8}, {"from": "gpt", "value": "b" * 12}]}) == (
        length_of(chat("a" * 8, "b" * 12))
    )
    assert length_of({"instruction": "a" * 8, "input": "", "output": "b" * 12, "id": "c" * 999}).tokens == 5
    pair = {name: chat("a" * 8, text * 4)["messages"] for name, text in (("chosen", "b"), ("rejected", "cc"))}
    # The prompt counts in both sequences, and once more beside them not at all.
    assert length_of({"prompt": "a" * 8, **pair}).tokens == (8 + 4 + 8 + 8) // 4


def test_a_pairs_prompt_counts_in_both_sequences():
    prompt = [{"role": "user", "content": "a" * 8}]
    apart = length_of({"prompt": prompt, "chosen": "b" * 4, "rejected": "c" * 8, "score_chosen": "d" * 99})
    assert (apart.tokens, apart.of_user, apart.turns) == (7, 4, 2)
    assert length_of({"prompt": "a" * 8, "chosen": "b" * 4, "rejected": "c" * 8}) == apart


def test_rows_of_formats(tmp_path):
    rows = [chat("a" * 40, "b" * 40)] * 7
    (tmp_path / "list.json").write_text(json.dumps(rows))
    jsonl(tmp_path / "lines.json", rows)  # as the released 6K are
    (tmp_path / "t.csv").write_text("instruction,output\n" + "abcd,efgh\n" * 7)
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.Table.from_pylist(rows), tmp_path / "p.parquet")
    for name, tokens in (("list.json", 20), ("lines.json", 20), ("t.csv", 2), ("p.parquet", 20)):
        sample = sample_files([tmp_path / name])
        assert (sample.rows, sample.counted, sample.lengths[0].tokens) == (7, True, tokens), name
    assert sample_files([tmp_path / "list.json", tmp_path / "lines.json"]).rows == 14
    (tmp_path / "broken.jsonl").write_text("{")
    assert sample_files([tmp_path / "broken.jsonl"]) is None


def test_pairs_are_two_sequences_and_epochs_count(tmp_path):
    made = plan(tmp_path, dpo_recipe(dpo__trainer__num_train_epochs=4))
    _, by_label = costs(made)
    pairs = by_label["reference"]
    assert pairs.rows == 30 and by_label["dpo"].tokens == 4 * pairs.tokens
    steps = plan(tmp_path, dpo_recipe(dpo__trainer__max_steps=15, dpo__trainer__num_train_epochs=None))
    # 15 steps of 8 pairs read the 30 pairs four times.
    assert costs(steps)[1]["dpo"].tokens == 4 * pairs.tokens


def test_budgets_of_every_form_have_rows(tmp_path):
    chats = {"dataset": str(jsonl(tmp_path / "p.jsonl", [chat("a" * 40, "b" * 40)] * 60))}

    def rows_and_total(budget, **changes):
        made = plan(tmp_path, recipe(pool=chats, select__budget=budget, **changes))
        found = PlannedRows(made.store).of(made.cells[0].nodes["select"])
        return found.number, found.total

    assert rows_and_total(10) == (10, None) and rows_and_total(999) == (60, None)
    assert rows_and_total({"share": 0.2}) == (12, None)
    assert rows_and_total({"tokens": 5000}) == (None, 5000)
    assert rows_and_total(None, select__method="whole_pool") == (60, None)


def test_where_selecting_first_pays_by_hand():
    point = BreakEven(selecting=30.0, selected=10.0, whole=50.0, epochs=2.0, parameters=1000, at_most=False)
    # A training saves 40 of 50; three quarters of it pay for the selection.
    assert point.pays and point.break_even_epochs == 1.5 and point.break_even_parameters == 750
    dear = BreakEven(selecting=90.0, selected=10.0, whole=50.0, epochs=2.0, parameters=1000, at_most=False)
    assert not dear.pays and dear.break_even_epochs == 4.5
    never = BreakEven(selecting=9.0, selected=50.0, whole=50.0, epochs=2.0, parameters=1000, at_most=False)
    assert not never.pays and never.break_even_epochs is None


def test_the_point_of_a_recipe_counts_what_only_the_selection_reads(tmp_path):
    made = plan(tmp_path, recipe())
    cost, by_label = costs(made)
    read = ("train_scorer.complexity", "score.complexity", "train_scorer.quality", "score.quality", "embed")
    assert cost.point.selecting == pytest.approx(sum(by_label[label].operations for label in read))
    assert cost.point.selected == by_label["sft"].operations
    alone = recipe("pool", "scorers", "embedding", "select", "evaluate")
    alone["sft"]["data"] = {"builtin": "quickstart", "rows": 20}
    assert costs(plan(tmp_path, alone))[0].point is None


@pytest.mark.parametrize(
    ("launch", "sharding", "offloads"),
    [
        ("single_gpu", "none", (False, False)), ("ddp", "ddp", (False, False)), ("zero1", "zero1", (False, False)),
        ("zero2", "zero2", (False, False)), ("zero3_offload", "zero3", (True, True)), ("fsdp1", "fsdp", (False, False)),
    ],
)  # fmt: skip
def test_a_launch_file_says_what_ranks_divide(tmp_path, launch, sharding, offloads):
    data = recipe("scorers", "embedding", "select", "pool", "evaluate", sft__launch=launch)
    data["sft"]["data"] = {"builtin": "quickstart", "rows": 20}
    made = make_plan(write(tmp_path, data), [], tmp_path, planned_gpus=4)
    node = made.cells[0].nodes["sft"]
    sizes = sizes_of(model_of(made.store, node).config)
    of = setup_of(node, sizes, int(80e9))
    assert (of.sharding, (of.offloads_optimizer, of.offloads_weights)) == (sharding, offloads)
    assert (of.ranks, of.half, of.checkpointing, of.length) == (1 if launch == "single_gpu" else 4, True, True, 2048)
    assert (of.micro_batch, of.accumulates) == (8 // of.ranks, False)


def test_deepspeeds_own_file_states_its_buffer(tmp_path):
    zero = {"stage": 2, "reduce_bucket_size": 1e6, "offload_optimizer": {"device": "cpu"}}
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": zero, "gradient_clipping": "auto"}))
    launch = tmp_path / "mine.yaml"
    launch.write_text(f"distributed_type: DEEPSPEED\ndeepspeed_config: {{deepspeed_config_file: {tmp_path}/ds.json}}\n")
    data = recipe("scorers", "embedding", "select", "pool", "evaluate", sft__launch=str(launch))
    data["sft"]["data"] = {"builtin": "quickstart", "rows": 20}
    made = make_plan(write(tmp_path, data), [], tmp_path, planned_gpus=4)
    node = made.cells[0].nodes["sft"]
    of = setup_of(node, sizes_of(model_of(made.store, node).config), None)
    assert (of.sharding, of.bucket, of.offloads_optimizer, of.offloads_weights) == ("zero2", 1_000_000, True, False)


def test_the_head_of_a_run_says_what_it_costs(tmp_path):
    console = Console(file=io.StringIO(), width=200)
    made = plan(tmp_path, recipe())
    print_cost(console, made, run_cost(made))
    lines = console.file.getvalue().splitlines()
    assert lines[0].startswith("tiny: 13 stages to run, ") and lines[0].endswith("FLOP.")


def test_the_head_of_a_run_names_how_many_stages_the_sum_leaves_out(tmp_path):
    """An adapter whose layers only the loaded model tells: of SFT, and of DPO on its merged model."""
    data = recipe(sft__peft={"target_modules": ["q_proj"], "rank_pattern": {"q_proj": 2}}, sft__merge_adapter=True)
    console = Console(file=io.StringIO(), width=200)
    made = plan(tmp_path, data)
    print_cost(console, made, run_cost(made))
    assert re.match(r"tiny: 13 stages to run, \S+ .FLOP without 1 stage of unknown cost\.", console.file.getvalue())


def test_every_gpu_has_a_source_and_finds_itself_by_its_name():
    assert len(GPUS) > 10
    for name, gpu in GPUS.items():
        assert named_gpu(name) is gpu and gpu.source and gpu.memory >= 24e9 and 7e13 <= gpu.peak_flops <= 3e15
    assert named_gpu("RTX-4090") is GPUS["4090"]


@pytest.mark.usefixtures("no_network")
def test_rows_of_a_known_dataset_are_from_the_table(tmp_path):
    made = make_plan(FROM_POOL, [], tmp_path, planned_gpus=1, may_be_unresolved=True)
    rows = PlannedRows(made.store).of(made.cells[0].nodes["pool"])
    assert (rows.number, rows.how) == (300_000, TABLE)
