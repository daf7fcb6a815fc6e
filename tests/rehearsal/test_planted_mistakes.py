"""Mistakes that would stop a real run at its first step, each planted in a recipe that is otherwise right.

The rehearsal ends with the message of the real run, which is carried out beside it: model and data are small.
"""

import json
from io import StringIO

import pytest
from rehearsal_parts import chat, rehearsed, write_lines, write_own_model
from rich.console import Console
from tiny_recipe import no_gpus, put  # noqa: F401

from deita_train.errors import UserError
from deita_train.plan.plan import make_plan
from deita_train.run.children import Children
from deita_train.run.runner import run_plan
from deita_train.store.atomic_io import read_json

pytestmark = pytest.mark.usefixtures("offline", "no_gpus")
SFT = {
    "model": "my_model",
    "data": {"dataset": "my_pool.jsonl"},
    "global_batch_size": 8,
    "trainer": {"learning_rate": 1e-3, "num_train_epochs": 1, "max_length": 512},
}
PAIRS = [{"prompt": f"Name {one}.", "chosen": f"Yes {one}", "rejected": "No"} for one in range(30)]
DPO = {
    "model": "my_model",
    "preferences": {"dataset": "my_pairs.jsonl"},
    "global_batch_size": 4,
    "trainer": {"num_train_epochs": 1, "max_length": 512},
}
JUDGED = {
    "models": ["sft"],
    "judged": {"questions": {"builtin": "everyday", "rows": 1}, "judge": "judge", "max_new_tokens": 4},
}
SERVED = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "api_key_env": "A_KEY_NOBODY_SET"}


def recipe(**changes):
    data = {"name": "planted", "sft": json.loads(json.dumps(SFT))}
    for path, value in changes.items():
        put(data, path.split("__"), value)
    return data


# What is planted, and words of the message, by hand.
AT_ONCE = {
    "a batch that does not divide": (
        recipe(sft__launch="cpu_ddp", sft__global_batch_size=7),
        "sft.global_batch_size: 7 is not a multiple of 2 (2 ranks); nearest that fit: 6 or 8.",
    ),
    "a launch that nobody knows": (recipe(sft__launch="zero4"), "sft.launch: zero4 is unknown; allowed: "),
    "an adapter on an adapter": (
        {**recipe(sft__peft={"r": 4, "target_modules": "all-linear"}), "dpo": {**DPO, "model": None}},
        "sft.peft: sft leaves an adapter, and DPO starts from a whole model.",
    ),
}
IN_TRIALS = {
    "a LoRA target that matches nothing": (
        recipe(sft__peft={"r": 4, "target_modules": ["q_prooj"]}),
        "sft.peft: Target modules {'q_prooj'} not found",
    ),
    "an optimizer that is not installed": (recipe(sft__trainer__optim="grokadamw"), "sft.trainer.optim: "),
    "a schedule without what it needs": (
        recipe(sft__trainer__lr_scheduler_type="cosine_with_min_lr"),
        "sft.trainer.lr_scheduler_type: ",
    ),
    "an option that the model does not take": (
        recipe(sft__trainer__model_init_kwargs={"attn_implementation": "eager", "no_such_option": 3}),
        "sft.trainer.model_init_kwargs: ",
    ),
}
IN_STAGES = {
    "a template whose tokens the tokenizer lacks": (
        recipe(sft__model="my_plain_model", sft__chat_template="chatml"), "<|im_end|>"
    ),
    "a missing column": (recipe(sft__data__dataset="my_texts.jsonl"), "the columns 'text'"),
    "pairs without a rejected answer": (
        {"name": "planted", "dpo": {**DPO, "preferences": {"dataset": "my_half_pairs.jsonl"}}},
        "the columns 'prompt', 'chosen' fit no format of preference pairs",
    ),
    "a column that the method cannot find": (
        {
            "name": "planted",
            "pool": {"dataset": "my_pool.jsonl"},
            "select": {"method": "direct_score", "column": "rating", "budget": 5},
        },
        "rating",
    ),
    "a speaker without a role": (recipe(sft__data__dataset="my_strangers.jsonl"), "'narrator'"),
    "a model without its weights": (recipe(sft__model="my_half_model"), "holds no weights"),
    "a judge whose key is not set": (
        {**recipe(sft__trainer__max_steps=1, sft__trainer__num_train_epochs=None), "llm": {"judge": SERVED},
         "evaluate": JUDGED},
        "the environment variable A_KEY_NOBODY_SET is not set",
    ),
}  # fmt: skip
QUICK = ("a template whose tokens the tokenizer lacks", "a missing column")


@pytest.fixture
def files(own_files):
    write_lines(own_files / "my_pairs.jsonl", PAIRS)
    write_lines(own_files / "my_half_pairs.jsonl", [{k: v for k, v in row.items() if k != "rejected"} for row in PAIRS])
    write_lines(own_files / "my_texts.jsonl", [{"text": "Name a colour. Green."}] * 20)
    strangers = [{"conversations": [{**turn, "from": "narrator"} for turn in chat("a", "b")]}] * 20
    write_lines(own_files / "my_strangers.jsonl", strangers)
    write_own_model(own_files / "my_plain_model")
    half = own_files / "my_half_model"
    half.mkdir()
    for file in (own_files / "my_model").iterdir():
        if file.suffix != ".safetensors":
            (half / file.name).write_bytes(file.read_bytes())
    return own_files


def real_message(path, folder):
    """What the real run says."""
    with pytest.raises(UserError) as caught:
        plan = make_plan(path, [], folder / "runs")
        outcome = run_plan(plan, Console(file=StringIO()))
        raise outcome.error
    return str(caught.value)


def check(files, data, words):
    path = files / "planted.yaml"
    path.write_text(json.dumps(data, indent=1))
    with pytest.raises(UserError) as caught:
        _, done = rehearsed(path, files / "runs")
        raise done.outcome.error
    told, real = str(caught.value), real_message(path, files)
    assert words in real
    assert told == real


def test_there_are_ten_and_more():
    assert len(AT_ONCE) + len(IN_TRIALS) + len(IN_STAGES) == 14


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_mistake_of_the_plan_is_told_as_the_real_run_would(name, files):
    check(files, *AT_ONCE[name])


@pytest.mark.parametrize(("dataset", "named"), [("my_pol.jsonl", "my_pol.jsonl"), ("", "''")])
def test_a_missing_file_is_told_before_stand_ins_are_made_for_a_model_of_the_hub(files, monkeypatch, dataset, named):
    monkeypatch.setattr(Children, "stand_ins", lambda *_: pytest.fail("stand-ins are made"))
    path = files / "planted.yaml"
    path.write_text(json.dumps(recipe(sft__model="someone/far-away", sft__data__dataset=dataset), indent=1))
    with pytest.raises(UserError, match=rf"planted.yaml:\d+: sft.data.dataset: {named} does not exist"):
        rehearsed(path, files / "runs")


@pytest.mark.parametrize("name", IN_TRIALS)
def test_a_mistake_of_the_trainer_is_told_as_the_real_run_would(name, files):
    check(files, *IN_TRIALS[name])


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.faults) for name in IN_STAGES]
)
def test_a_mistake_of_a_stage_is_told_as_the_real_run_would(name, files):
    check(files, *IN_STAGES[name])


def test_the_recipe_without_a_mistake_passes_and_says_what_stood_in(files):
    path = files / "right.yaml"
    path.write_text(json.dumps(recipe(), indent=1))
    _, done = rehearsed(path, files / "runs")
    assert done.outcome.error is None
    assert done.plan.run_dir == files / "runs" / "rehearsals" / "planted" / "REHEARSAL-planted"
    page = done.outcome.page.read_text()
    assert "REHEARSAL, no result" in page and "What stood in for what" in page
    tables = read_json(done.plan.run_dir / "report" / "result.json")
    assert tables and all(table["title"].startswith("REHEARSAL") for table in tables)
