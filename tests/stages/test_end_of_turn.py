"""What ends a turn by a template, and models that stop there when they generate."""

import json
import shutil
from importlib.resources import files

import datasets
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from deita_train.data.rendering import load_tokenizer, render_pair
from deita_train.stages.checks import check_artefact
from deita_train.stages.context import Progress, StageContext
from deita_train.stages.training import dpo, sft
from deita_train.stages.training.stop_tokens import keep_end_of_turn
from deita_train.training.end_of_turn import stop_at
from deita_train.training.miniature import train_tokenizer

CONTROL = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
ENDS = {
    "vicuna_v1.1": "</s>",
    "llama2": "</s>",
    "mistral_instruct": "</s>",
    "zephyr": "</s>",
    "llama3": "<|eot_id|>",
    "chatml": "<|im_end|>",
}
LAUNCH = {"config_file": "cpu", "num_processes": 1, "distributed_type": "NO", "use_cpu": True}
HI = [{"role": "user", "content": "Hi"}]


def template(name):
    return files("deita_train.data").joinpath(f"templates/{name}.jinja").read_text(encoding="utf-8")


def make_base(folder, says="<|im_end|>"):
    """A model with the control tokens of all formats that says one token and nothing else, whatever it reads."""
    tokenizer = train_tokenizer(["Hi there USER: ASSISTANT: user assistant"] * 3, 300, template("vicuna_v1.1"), folder)
    tokenizer.add_special_tokens({"additional_special_tokens": CONTROL})
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=4, tie_word_embeddings=False, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    torch.manual_seed(3)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 20.0
        model.lm_head.weight[tokenizer.convert_tokens_to_ids(says), 0] = 20.0
    model.save_pretrained(folder)
    return tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "base" / "model"
    make_base(folder)
    return folder


def ends_of(base, text, folder, pairs=False):
    """What a stage finds, by name; a first row has no answer."""
    tokenizer = load_tokenizer(str(base), text)
    answered = [*HI, {"role": "assistant", "content": "there"}]
    if pairs:
        rows = [{"id": "a", "prompt": HI, "chosen": "there", "rejected": "Hi"}]
    else:
        rows = [{"id": "a", "messages": HI}, {"id": "b", "messages": [*answered, *answered]}]
    config = {"chat_template": text, "end_of_turn": True}
    made = StageContext("sft", "sft", config, {}, {"model": base.parent}, folder, 0, 1, Progress(None))
    made.prepared_dir.mkdir(parents=True)
    keep_end_of_turn(made, datasets.Dataset.from_list(rows))
    found = json.loads((made.prepared_dir / "end_of_turn.json").read_text())
    assert list(found.values()) == tokenizer.convert_tokens_to_ids(list(found))
    return list(found)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(("name", "end"), ENDS.items())
def test_what_ends_a_turn_by_the_shipped_templates(base, tmp_path, name, end, pairs):
    assert ends_of(base, template(name), tmp_path, pairs) == [end]


WHOLE = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}ANSWER{% endfor %}"
MARKED = "{% generation %}{{ m.content ENDS }}{% endgeneration %}"


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ("+ '<|im_end|>' + '\\n'", ["<|im_end|>"]),
        ("+ '<|im_end|>' + eos_token", ["</s>"]),
        ("+ ('</s>' if loop.last else '<|eot_id|>')", ["<|eot_id|>", "</s>"]),
        ("+ '###'", []),
    ],
)
def test_what_ends_a_turn_by_other_templates(base, tmp_path, ends, expected):
    answer = "{% if m.role == 'assistant' %}" + MARKED.replace("ENDS", ends) + "{% else %}{{ m.content }}{% endif %}"
    assert ends_of(base, WHOLE.replace("ANSWER", answer), tmp_path) == expected


def test_of_a_template_without_marks_it_is_the_last_one_after_the_prompt(base, tmp_path):
    text = WHOLE.replace("ANSWER", "{{ m.content + '<|im_end|>\\n' }}")
    assert ends_of(base, text, tmp_path, pairs=True) == ["<|im_end|>"]


@pytest.mark.parametrize(
    ("own", "token_ids", "expected"),
    [
        ({"eos_token_id": 1}, [7], [1, 7]),
        ({"eos_token_id": [1, 9]}, [7, 9, 8], [1, 9, 7, 8]),
        ({}, [7], [5, 7]),  # config.json says 5
        ({"eos_token_id": None}, [5, 7], [5, 7]),
    ],
)
def test_stops_are_added_to_the_models_own(tmp_path, own, token_ids, expected):
    (tmp_path / "config.json").write_text('{"eos_token_id": 5}')
    (tmp_path / "generation_config.json").write_text(
        json.dumps({**own, "_from_model_config": True, "temperature": 0.7})
    )
    stop_at(tmp_path, token_ids)
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {
        "eos_token_id": expected,
        "temperature": 0.7,
    }


@pytest.mark.parametrize("own", ['{"eos_token_id":1}', '{"eos_token_id":  [7, 1]}'])
def test_where_all_are_there_no_byte_changes(tmp_path, own):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "generation_config.json").write_text(own)
    stop_at(tmp_path, [1])
    assert (tmp_path / "generation_config.json").read_text() == own


@pytest.fixture
def store(base, tmp_path):
    shutil.copytree(base.parent, tmp_path / "base")
    rows = [{"id": name, "messages": [*HI, {"role": "assistant", "content": "there"}]} for name in "ab"]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "rows" / "data"))
    pairs = [{"id": name, "prompt": HI, "chosen": "there", "rejected": "Hi"} for name in "ab"]
    datasets.Dataset.from_list(pairs).save_to_disk(str(tmp_path / "pairs" / "data"))
    for name in ("rows", "pairs"):
        (tmp_path / name / "manifest.json").write_text('{"rows_out": 2}')
    return tmp_path


def make_reference(store, text):
    """What the reference left of the pairs, with log-probabilities of nothing."""
    pair = render_pair(load_tokenizer(str(store / "base" / "model"), text), HI, "there", "Hi", None)
    row = {"chosen_tokens": len(pair.chosen_ids), "rejected_tokens": len(pair.rejected_ids)}
    row |= {"chosen_log_prob": -1.0, "rejected_log_prob": -2.0}
    datasets.Dataset.from_list([{"id": name, **row} for name in "ab"]).save_to_disk(str(store / "reference" / "data"))
    return store / "reference"


def carry_out(module, store, kind, name, **config):
    """Train with a learning rate of nothing, up to publishing; the folder and the metrics."""
    trainer = {"learning_rate": 0.0, "num_train_epochs": 1, "lr_scheduler_type": "constant", "max_length": 64}
    common = {"chat_template": template(name), "global_batch_size": 2, "seed": 7, "trainer": trainer, "max_length": 64}
    config = {**common, **config}
    parents = {"model": store / "base", "data": store / {"sft": "rows", "dpo": "pairs"}[kind]}
    if kind == "dpo":
        parents["reference"] = make_reference(store, config["chat_template"])
    settings = {"trainer": {}, "launch": LAUNCH, "packing": False, "checkpoint_minutes": 30.0}
    made = StageContext(kind, kind, config, settings, parents, store / "work", 0, 1, Progress(None))
    made.prepared_dir.mkdir(parents=True)
    module.prepare(made)
    result = module.run(made)
    left = {part: getattr(result, part) for part in ("rows_in", "rows_out", "drops", "metrics")}
    metrics = module.finish(made)
    check_artefact(made, left)
    return made.model_dir, metrics


def new_tokens(folder, **options):
    """What anybody's `generate` adds to a prompt."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(HI, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    made = model.generate(**prompt, max_new_tokens=5, do_sample=False, **options)
    return tokenizer.convert_ids_to_tokens(made[0, prompt["input_ids"].shape[1] :])


def test_a_model_tuned_with_chatml_stops_where_an_answer_ends(store):
    assert new_tokens(store / "base" / "model") == ["<|im_end|>"] * 5
    folder, metrics = carry_out(sft, store, "sft", "chatml", end_of_turn=True)
    assert new_tokens(folder) == ["<|im_end|>"]
    assert metrics == {"end_of_turn": ["<|im_end|>"]}
    end = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<|im_end|>")
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [1, end]


def test_a_merged_adapter_stops_there_too(store):
    config = {"end_of_turn": True, "peft": {"r": 2}, "merge_adapter": True}
    folder, metrics = carry_out(sft, store, "sft", "chatml", **config)
    assert new_tokens(folder) == ["<|im_end|>"] and metrics["end_of_turn"] == ["<|im_end|>"]


def test_an_adapter_stops_where_its_base_does_or_it_is_reported(store):
    config = {"end_of_turn": True, "peft": {"r": 2}, "merge_adapter": False}
    folder, metrics = carry_out(sft, store, "sft", "chatml", **config)
    assert not (folder / "generation_config.json").exists() and metrics == {"end_of_turn": ["<|im_end|>"]}
    assert new_tokens(folder) == ["<|im_end|>"] * 5
    end = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<|im_end|>")
    assert new_tokens(folder, eos_token_id=[1, end]) == ["<|im_end|>"]


@pytest.mark.parametrize("marked", [True, False])
def test_a_model_tuned_on_pairs_stops_there_too(store, marked):
    text = template("chatml")
    text = text if marked else text.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
    folder, metrics = carry_out(dpo, store, "dpo", "chatml", chat_template=text, end_of_turn=True)
    assert new_tokens(folder) == ["<|im_end|>"] and metrics == {"end_of_turn": ["<|im_end|>"]}


def test_with_the_models_own_end_nothing_changes(store):
    folder, metrics = carry_out(sft, store, "sft", "zephyr")
    assert metrics == {}
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == 1
