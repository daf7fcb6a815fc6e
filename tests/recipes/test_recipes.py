"""Every shipped recipe is valid, can be planned, and says what its source says. Nothing here touches the network."""

import json
import re
from pathlib import Path

import pytest
from recipe_files import RECIPES, ROOT, commands, files_below, header, parsed
from tiny_recipe import data_lines
from transformers import LlamaConfig

from deita_train.data import sources
from deita_train.data.sources import SourceRow
from deita_train.errors import UserError
from deita_train.plan import inputs
from deita_train.plan.plan import make_plan
from deita_train.recipe.loading import load_recipe, trainings
from deita_train.stages import stage_model as stage_models
from deita_train.training.miniature import train_tokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"

MISTRAL, LLAMA1, LLAMA2 = "mistralai/Mistral-7B-v0.1", "huggyllama/llama-13b", "meta-llama/Llama-2-13b-hf"
SCORERS = ("hkust-nlp/deita-complexity-scorer", "hkust-nlp/deita-quality-scorer")
DEITA_6K, DEITA_10K = "hkust-nlp/deita-6k-v0", "hkust-nlp/deita-10k-v0"
POOL, PAIRS = "AndrewZeng/deita_sota_pool", "HuggingFaceH4/ultrafeedback_binarized"

# What the paper (App. A) and its public code (examples/train/) state, by hand. A trainer is compared whole.
MISTRAL_SFT = {
    "seed": 42,
    "sft.model": MISTRAL,
    "sft.chat_template": "vicuna_v1.1",
    "sft.global_batch_size": 512,
    "sft.launch": "zero2",
    "sft.seed": None,
    "sft.peft": None,
    "sft.trainer": {
        "learning_rate": 2e-5,
        "num_train_epochs": 6,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "max_length": 2048,
    },
}
LLAMA1_SFT = MISTRAL_SFT | {
    "sft.model": LLAMA1,
    "sft.global_batch_size": 128,
    "sft.launch": "zero3",
    "sft.trainer": MISTRAL_SFT["sft.trainer"] | {"learning_rate": 1e-5, "warmup_steps": 0.03},
}
LLAMA2_SFT = LLAMA1_SFT | {"sft.model": LLAMA2, "sft.trainer": MISTRAL_SFT["sft.trainer"]}
DPO = {
    "dpo.preferences.dataset": PAIRS,
    "dpo.preferences.split": "train_prefs",
    "dpo.preferences.sample": 10_000,
    "dpo.preferences.seed": 42,
    "dpo.global_batch_size": 32,
    "dpo.launch": "zero3",
    "dpo.trainer": {
        "beta": 0.1,
        "learning_rate": 5e-7,
        "num_train_epochs": 9,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.1,
        "max_length": 2048,
    },
}
SELECTION = {
    "pool.dataset": POOL,
    "scorers.complexity.model": SCORERS[0],
    "scorers.quality.model": SCORERS[1],
    "embedding.model": LLAMA1,
    "embedding.chat_template": "vicuna_v1.1",
    "embedding.max_length": 2048,
    "embedding.center": False,
    "select.method": "deita",
    "select.score": "evol",
    "select.threshold": 0.9,
}
PAPER = {
    "deita/deita-7b-v1.0-sft-6k.yaml": MISTRAL_SFT | {"sft.data.dataset": DEITA_6K},
    "deita/deita-7b-v1.0-sft-10k.yaml": MISTRAL_SFT | {"sft.data.dataset": DEITA_10K},
    "deita/deita-7b-v1.0.yaml": MISTRAL_SFT | {"sft.data.dataset": DEITA_6K} | DPO,
    "deita/deita-llama1-13b-sft.yaml": LLAMA1_SFT | {"sft.data.dataset": DEITA_10K},
    "deita/deita-llama2-13b-sft.yaml": LLAMA2_SFT | {"sft.data.dataset": DEITA_10K},
    "deita/deita-7b-v1.0-sft-6k-from-pool.yaml": MISTRAL_SFT | SELECTION | {"select.budget": 6000, "sft.data": None},
    "deita/deita-7b-v1.0-sft-10k-from-pool.yaml": MISTRAL_SFT | SELECTION | {"select.budget": 10_000, "sft.data": None},
    "deita/deita-7b-v1.0-from-pool.yaml": MISTRAL_SFT | SELECTION | {"select.budget": 6000, "sft.data": None} | DPO,
    "deita/deita-llama1-13b-sft-from-pool.yaml": LLAMA1_SFT | SELECTION | {"select.budget": 10_000, "sft.data": None},
    "budget_sweep.yaml": LLAMA1_SFT | SELECTION | {"select.budget": 1000, "select.seed": 1, "sft.seed": 1},
}
# MT-Bench and AlpacaEval of the row that a recipe stands for (Table 6).
REPORTED = {
    "deita/deita-7b-v1.0-sft-6k.yaml": ("7.22", "80.78"),
    "deita/deita-7b-v1.0-sft-10k.yaml": ("7.32", "81.67"),
    "deita/deita-7b-v1.0.yaml": ("7.55", "90.06"),
    "deita/deita-llama1-13b-sft.yaml": ("6.60", "78.01", "6.46", "77.08"),
    "deita/deita-llama2-13b-sft.yaml": ("6.79", "81.09", "6.65", "80.75"),
    "deita/deita-7b-v1.0-sft-6k-from-pool.yaml": ("7.22", "80.78"),
    "deita/deita-7b-v1.0-sft-10k-from-pool.yaml": ("7.32", "81.67"),
    "deita/deita-7b-v1.0-from-pool.yaml": ("7.55", "90.06"),
    "deita/deita-llama1-13b-sft-from-pool.yaml": ("6.60", "78.01", "6.46", "77.08"),
    "budget_sweep.yaml": ("6.46", "6.60", "6.03"),
}
OWN = (
    "compare_methods.yaml",
    "evolve.yaml",
    "own_data.yaml",
    "quickstart.yaml",
    "real_pool.yaml",
    "smoke.yaml",
    "sweep_demo.yaml",
)
FILES = sorted([*PAPER, *OWN])
SELECTING = ["pool", "score.complexity", "score.quality", "embed", "select"]
PREFERRING = ["dpo_data", "reference", "dpo"]
STAGES = {
    "deita/deita-7b-v1.0-sft-6k.yaml": ["sft_data", "sft"],
    "deita/deita-7b-v1.0-sft-10k.yaml": ["sft_data", "sft"],
    "deita/deita-7b-v1.0.yaml": ["sft_data", "sft", *PREFERRING],
    "deita/deita-llama1-13b-sft.yaml": ["sft_data", "sft"],
    "deita/deita-llama2-13b-sft.yaml": ["sft_data", "sft"],
    "deita/deita-7b-v1.0-sft-6k-from-pool.yaml": [*SELECTING, "sft"],
    "deita/deita-7b-v1.0-sft-10k-from-pool.yaml": [*SELECTING, "sft"],
    "deita/deita-7b-v1.0-from-pool.yaml": [*SELECTING, "sft", *PREFERRING],
    "deita/deita-llama1-13b-sft-from-pool.yaml": [*SELECTING, "sft"],
    "budget_sweep.yaml": [*SELECTING, "sft", "heldout_data", "evaluate.base", "evaluate.sft"],
}
# Rows in the columns of the published datasets.
CHAT = [{"from": "human", "value": "Name a colour."}, {"from": "gpt", "value": "Green."}]
TURNS = [{"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Green."}]
OTHER = [TURNS[0], {"role": "assistant", "content": "I will not."}]
SHAREGPT_ROWS = [{"id": f"row{number}", "conversations": CHAT, "source": "s"} for number in range(4)]
PAIR_ROWS = [
    {
        "prompt": "Name a colour.",
        "prompt_id": f"{number:064x}",
        "chosen": TURNS,
        "rejected": OTHER,
        "messages": TURNS,
        "score_chosen": 8.0,
        "score_rejected": 3.0,
    }
    for number in range(4)
]
PUBLISHED = {DEITA_6K: SHAREGPT_ROWS, DEITA_10K: SHAREGPT_ROWS, POOL: SHAREGPT_ROWS, PAIRS: PAIR_ROWS}


@pytest.fixture
def hub(monkeypatch):
    """A Hub that has one commit of everything; returns what was asked for."""
    asked = set()

    def resolve(kind, name, revision):
        asked.add((kind, name, revision))
        return COMMIT

    monkeypatch.setattr(inputs, "resolve_commit", resolve)
    return asked


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The working folder, with the files of the user's own that the recipes and their commands name."""
    judged = [
        {"id": f"{question}-{system}", "conversations": _answer(question, system), "win_probability": system / 10}
        for question in range(60)
        for system in range(6)
    ]
    for name, rows in {
        "real_pool_sharegpt": judged,
        "my_pool": SHAREGPT_ROWS,
        "my_heldout": SHAREGPT_ROWS,
        "my_seeds": SHAREGPT_ROWS,
    }.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = train_tokenizer([], 259, "", tmp_path / "my_model")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.save_pretrained(tmp_path / "my_model")
    for name in ("my_model", "my_encoder"):
        LlamaConfig().save_pretrained(tmp_path / name)
    (tmp_path / "my_encoder" / "modules.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _answer(question, system):
    texts = {"human": f"What is {question} and {question}?", "gpt": f"{2 * question}, says system {system}."}
    return [{"from": speaker, "value": text} for speaker, text in texts.items()]


def planned(file, folder, gpus, *sets):
    return make_plan(RECIPES / file, sets, folder / "runs", planned_gpus=gpus)


def value_at(recipe, dotted):
    value = recipe
    for name in dotted.split("."):
        value = getattr(value, name)
    return value


def test_every_file_is_known_here():
    elsewhere = [*files_below("paper"), *files_below("modern"), "deita/deita-7b-v1.0-from-seeds.yaml"]
    assert files_below(".") == sorted([*FILES, *elsewhere])
    assert (len(FILES), len(elsewhere)) == (17, 20 + 9 + 1)  # test_paper_tables.py and test_modern.py have these
    assert set(STAGES) == set(PAPER) == set(REPORTED)


def test_names_are_those_of_the_files():
    names = {file: load_recipe(RECIPES / file).recipe.name for file in files_below(".")}
    assert names == {file: Path(file).stem for file in names}


@pytest.mark.parametrize("file", FILES)
def test_it_is_planned_on_any_usual_number_of_gpus_with_the_same_keys(file, hub, data):
    plans = [planned(file, data, gpus) for gpus in (1, 2, 4, 8)]
    assert len({tuple(node.id for node in plan.nodes) for plan in plans}) == 1
    for gpus, plan in zip((1, 2, 4, 8), plans, strict=True):
        models = [node for node in plan.nodes if node.kind != "select"]
        launches = [node.runtime["launch"] for node in models if "launch" in node.runtime]
        assert launches and all(launch["num_processes"] == gpus for launch in launches)


@pytest.mark.parametrize("file", OWN)
def test_our_own_need_no_gpu_and_no_hub(file, hub, data):
    plan = planned(file, data, 0)
    assert all(node.runtime["launch"]["use_cpu"] for node in plan.nodes if "launch" in node.runtime)
    assert not hub


@pytest.mark.parametrize("file", PAPER)
def test_the_paper_s_need_gpus_and_say_so(file, hub, data):
    with pytest.raises(UserError, match=r"sft\.launch: zero[23] needs GPUs .* --gpus N"):
        planned(file, data, 0)


def test_the_hub_is_asked_for_these_and_no_others(hub, data):
    for file in FILES:
        planned(file, data, 8)
    models = {("model", name, None) for name in (MISTRAL, LLAMA1, LLAMA2, *SCORERS)}
    assert hub == models | {("dataset", name, None) for name in PUBLISHED}


@pytest.mark.parametrize("file", STAGES)
def test_the_stages_are_these(file, hub, data):
    base = planned(file, data, 8).cells[0]
    assert list(base.nodes) == STAGES[file]


@pytest.mark.parametrize("file", FILES)
def test_its_data_is_read_as_the_run_will(file, hub, data, monkeypatch, tmp_path):
    read = []
    train_tokenizer([], 259, "", tmp_path)
    LlamaConfig().save_pretrained(tmp_path)
    monkeypatch.setattr(stage_models, "hub_folder", lambda *named, **how: tmp_path)

    def published(dataset, *, revision, split, config, data_files, streaming):
        assert (config, data_files, streaming) == (None, (), False)
        read.append((dataset, revision, split))
        for number, row in enumerate(PUBLISHED[dataset]):
            yield SourceRow(number, f"{dataset}, row {number}", row)

    monkeypatch.setattr(sources, "hub_rows", published)
    sets = ["dpo.preferences.sample=2"] if "dpo" in STAGES.get(file, []) else []
    if load_recipe(RECIPES / file).recipe.select is not None:
        sets.append("select.allow_fewer=true")  # the pools here are far smaller than the budgets
    lines = data_lines(planned(file, data, 8, *sets))
    # Of a row with a conversation and a pair, one is read and the other kept.
    expected = ("  not_sampled", "  note: Column", "  note: Columns")
    assert lines and not any(line.startswith(" ") and not line.startswith(expected) for line in lines)
    values = PAPER.get(file, {})
    wanted = {(values[path], COMMIT, None) for path in ("pool.dataset", "sft.data.dataset") if path in values}
    wanted |= {(PAIRS, COMMIT, "train_prefs")} if "dpo" in STAGES.get(file, []) else set()
    wanted |= {(PAIRS, COMMIT, "test_prefs")} if file == "budget_sweep.yaml" else set()
    assert set(read) == wanted


def test_the_recipe_with_a_chat_model_states_its_calls_and_their_cost(data, monkeypatch):
    def told(*sets):
        lines = data_lines(planned("evolve.yaml", data, 0, "select.allow_fewer=true", *sets))
        return [line for line in lines if "calls to" in line]

    # Of four seeds: five steps and one ranking, which may be asked three times; 1,024 tokens an answer at most.
    expected = [
        ("evolve.complexity", "20 calls to llm.own for 4 seeds; at most 20,480 tokens of answers and about "),
        ("rank.complexity", "4 calls to llm.own for 4 seeds, 12 at most; at most 12,288 tokens of answers and about "),
        ("evolve.quality", "20 calls to llm.own for 4 seeds; at most 20,480 tokens of answers and about "),
        ("rank.quality", "4 calls to llm.own for 4 seeds, 12 at most; at most 12,288 tokens of answers and about "),
    ]
    for line, (label, words) in zip(told(), expected, strict=True):
        assert line.startswith(f"{label}: {words}") and "cost" not in line
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match=r"llm\.hosted: the environment variable OPENAI_API_KEY is not set"):
        told("evolve.llm=hosted")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdef")
    # 20,480 tokens at 0.60 for a million are 0.0123, and the prompts cost something, too.
    costs = [float(re.search(r"which cost about ([\d.]+) at most$", line)[1]) for line in told("evolve.llm=hosted")]
    assert 0.0123 < costs[0] < 0.02 and 0.0074 < costs[1] < 0.02


@pytest.mark.parametrize("file", PAPER)
def test_the_values_are_the_paper_s(file):
    recipe = load_recipe(RECIPES / file).recipe
    assert {path: value_at(recipe, path) for path in PAPER[file]} == PAPER[file]
    assert (recipe.dpo is not None) == ("dpo.trainer" in PAPER[file])
    assert (recipe.pool is not None) == ("pool.dataset" in PAPER[file])


def sections(file):
    return [section for section, _ in trainings(load_recipe(RECIPES / file).recipe)]


def test_the_checked_sections_are_all_there_are():
    found = {file: sections(file) for file in FILES}
    assert {file: found[file] for file in PAPER} == {
        file: ["sft", "dpo"] if "dpo.trainer" in PAPER[file] else ["sft"] for file in PAPER
    }
    assert found["real_pool.yaml"] == ["base.pretrain", "scorers.quality.train", "sft"]
    assert found["own_data.yaml"] == ["sft"]
    assert found["evolve.yaml"] == ["scorers.complexity.train", "scorers.quality.train"]
    assert found["quickstart.yaml"][:4] == [
        "base.pretrain",
        "scorers.complexity.train",
        "scorers.quality.train",
        "sft",
    ]


# Each of these must be refused in every section: what was loaded above was really held against the installed trl.
BROKEN = {
    "lerning_rate=1e-5": "did you mean learning_rate?",
    "warmup_ratio=0.1": "write warmup_steps",
    'learning_rate="2e-5"': "expected a number",
    "num_train_epochs=no": "expected a number",
    "max_steps=1.5": "expected a whole number",
    "lr_scheduler_type=cosin": "did you mean cosine?",
    "bf16=no": "expected true or false or null",
    "output_dir=here": "set by the framework",
}


@pytest.mark.parametrize("file", FILES)
def test_trainer_fields_are_checked_by_name_and_type(file):
    for section in sections(file):
        for setting, problem in BROKEN.items():
            with pytest.raises(UserError) as caught:
                load_recipe(RECIPES / file, [f"{section}.trainer.{setting}"])
            assert problem in str(caught.value), (section, setting)
            assert f"{section}.trainer.{setting.partition('=')[0]}" in str(caught.value)


@pytest.mark.parametrize("file", FILES)
def test_a_broken_copy_is_refused_at_its_line(file, tmp_path):
    lines = (RECIPES / file).read_text().splitlines()
    name = "threshold" if file == "compare_methods.yaml" else "learning_rate"
    number = next(number for number, line in enumerate(lines) if f"{name}:" in line and not line.startswith("#"))
    lines[number] = lines[number].replace(f"{name}:", f"{name}s:")
    copy = tmp_path / "copy.yaml"
    copy.write_text("\n".join(lines))
    with pytest.raises(UserError) as caught:
        load_recipe(copy)
    assert str(caught.value).startswith(f"{copy}:{number + 1}: ")
    assert f"did you mean {name}?" in str(caught.value)


@pytest.mark.parametrize("file", FILES)
def test_the_commands_of_its_header_can_be_given(file, hub, data, monkeypatch):
    found = commands(file)
    assert found and found[0][1] == "run"
    if file in PAPER:
        assert found[0] == ["deita-train", "run", f"recipes/{file}"]
        assert found[1][:3] == ["deita-train", "plan", f"recipes/{file}"]
    for words in found:
        recipe, sets, until, gpus = parsed(words, monkeypatch)
        assert (ROOT / recipe).samefile(RECIPES / file)
        assert (gpus is not None) == (words[1] == "plan")
        assert make_plan(ROOT / recipe, sets, data / "runs", until, gpus or 8).nodes


def test_a_command_that_cannot_be_given_is_noticed(monkeypatch):
    with pytest.raises(AssertionError, match="No such option"):
        parsed(["deita-train", "run", "recipes/smoke.yaml", "--gpu", "8"], monkeypatch)


def test_the_headers_have_as_many_commands_as_by_hand():
    counts = {file: len(commands(file)) for file in FILES}
    assert counts == {
        "budget_sweep.yaml": 5,
        "compare_methods.yaml": 1,
        "deita/deita-7b-v1.0-from-pool.yaml": 3,
        "deita/deita-7b-v1.0-sft-10k-from-pool.yaml": 3,
        "deita/deita-7b-v1.0-sft-10k.yaml": 2,
        "deita/deita-7b-v1.0-sft-6k-from-pool.yaml": 3,
        "deita/deita-7b-v1.0-sft-6k.yaml": 2,
        "deita/deita-7b-v1.0.yaml": 3,
        "deita/deita-llama1-13b-sft-from-pool.yaml": 5,
        "deita/deita-llama1-13b-sft.yaml": 3,
        "deita/deita-llama2-13b-sft.yaml": 4,
        "evolve.yaml": 3,
        "own_data.yaml": 1,
        "quickstart.yaml": 1,
        "real_pool.yaml": 1,
        "smoke.yaml": 1,
        "sweep_demo.yaml": 1,
    }


def test_what_recipes_share_is_one_artefact(hub, data):
    ids = {
        file: {label: node.id for label, node in planned(file, data, 8).cells[0].nodes.items()}
        for file in FILES
        if file in PAPER
    }
    for suffix in ("", "-from-pool"):
        alone, with_dpo = ids[f"deita/deita-7b-v1.0-sft-6k{suffix}.yaml"], ids[f"deita/deita-7b-v1.0{suffix}.yaml"]
        assert alone.items() <= with_dpo.items()
    selections = [of for of in ids.values() if "select" in of]
    assert len(selections) == 5
    for label in SELECTING[:-2]:
        assert len({of[label] for of in selections}) == 1
    for label in SELECTING[-2:]:  # as far as the walks to 1,000, 6,000 and 10,000 rows go
        assert len({of[label] for of in selections}) == 3


def test_the_budget_sweep_has_these_trainings(hub, data):
    plan = planned("budget_sweep.yaml", data, 8)
    kinds = [node.kind for node in plan.nodes]
    # 2 methods x 6 budgets x 3 seeds and 3 on the whole pool; the base run is one of them.
    assert (len(plan.cells), kinds.count("sft")) == (1 + 36 + 3, 39)
    assert kinds.count("select") == 6 + 6 * 3 + 1  # DEITA's do not depend on the seed
    assert {kind: kinds.count(kind) for kind in ("score", "embed")} == {"score": 2, "embed": 6}
    trained_on = {
        (cell.nodes["select"].identity["method"], cell.nodes["select"].identity["budget"]) for cell in plan.cells
    }
    budgets = (1000, 3000, 6000, 10_000, 30_000, 100_000)
    assert trained_on == {(method, size) for method in ("deita", "random") for size in budgets} | {("whole_pool", None)}


@pytest.mark.parametrize("file", files_below("."))
def test_the_readme_lists_it(file):
    assert f"recipes/{file}" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("file", PAPER)
def test_its_header_says_what_a_reader_needs(file):
    text = "\n".join(header(file))
    for label in ("Reproduces", "Reported", "Hardware", "Not known", "Sources"):
        assert re.search(rf"^ {label}\s", text, re.MULTILINE), label
    assert all(score in text for score in REPORTED[file])
