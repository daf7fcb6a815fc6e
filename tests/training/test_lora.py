"""Adapters against the base that they leave alone, against plain peft, and against their own merged model."""

from importlib.resources import files

import datasets
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Olmo2Config

from deita_train.data.rendering import load_tokenizer, render_pair
from deita_train.errors import UserError
from deita_train.models.adapter_files import name_base
from deita_train.models.published_files import num_parameters
from deita_train.training.arguments import TrainingSettings
from deita_train.training.lora import lora_config, merge_adapter, try_adapter
from deita_train.training.miniature import make_model, train_tokenizer
from deita_train.training.rows import LabelledRow, PairRow, write_pair_rows, write_training_rows
from deita_train.training.trainer_run import train

TEMPLATE = files("deita_train.data").joinpath("templates/vicuna_v1.1.jinja").read_text(encoding="utf-8")
TEXTS = [f"{n} plus {n} is {2 * n}, and twice that is {4 * n}." for n in range(16)]
IDS = torch.tensor([[1, 40, 7, 99, 3, 120, 55, 8, 200, 61]])
FIELDS = {"learning_rate": 2e-2, "num_train_epochs": 3, "save_steps": 2, "logging_steps": 1}
PEFT = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "lora_dropout": 0.1}
TINY = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": None, "eos_token_id": 2,
}  # fmt: skip


def ignore(*told):
    pass


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tokenizer = train_tokenizer(TEXTS, 400, TEMPLATE, folder)
    make_model(tokenizer, hidden_size=32, num_layers=2, num_heads=2, context_length=512, seed=3, folder=folder)
    return folder


@pytest.fixture(scope="module")
def rows(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    tokenizer = load_tokenizer(str(base))
    encoded = [tokenizer(text)["input_ids"] for text in TEXTS]
    write_training_rows([LabelledRow(str(n), ids, ids) for n, ids in enumerate(encoded)], folder / "rows")
    return datasets.load_from_disk(str(folder / "rows"))


def settings(peft=PEFT, kind="sft", **fields):
    return TrainingSettings({**FIELDS, **fields}, 8, 7, 1, "NO", True, kind=kind, peft=peft)


def trained(base, rows, folder, how, on_progress=ignore):
    """The outcome, with the adapter in `folder`/adapter."""
    tokenizer = load_tokenizer(str(base))
    return train(str(base), tokenizer, rows, how, folder / "checkpoints", folder / "adapter", on_progress, ignore)


@pytest.fixture(scope="module")
def straight(base, rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    before = (base / "model.safetensors").read_bytes()
    outcome = trained(base, rows, folder, settings())
    assert (base / "model.safetensors").read_bytes() == before
    name_base(folder / "adapter", str(base), None)
    return folder / "adapter", outcome


def logits(model):
    with torch.inference_mode():
        return model.eval()(input_ids=IDS).logits


def plain_base(base):
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def test_the_loss_falls_and_only_the_adapter_is_saved(straight):
    adapter, outcome = straight
    losses = [entry["loss"] for entry in outcome.history]
    assert len(losses) == outcome.steps == 6
    assert losses[-1] < losses[0] - 0.1
    assert {path.suffix for path in adapter.iterdir() if "model" in path.name} == {".safetensors"}
    # Rank 4, per layer: q, k, v and o 32 -> 32; gate and up 32 -> 96; down 96 -> 32.
    assert num_parameters(adapter) == 2 * 4 * (4 * 64 + 3 * 128)
    assert all(".lora_A." in name or ".lora_B." in name for name in load_file(adapter / "adapter_model.safetensors"))


def test_without_its_adapter_the_trained_model_is_the_base(straight, base):
    adapted = PeftModel.from_pretrained(plain_base(base), straight[0])
    assert not torch.allclose(logits(adapted), logits(plain_base(base)), atol=0.1)
    assert torch.equal(logits(adapted.unload()), logits(plain_base(base)))


def test_a_stopped_training_continues_to_the_same_bytes(straight, base, rows, tmp_path):
    def stop(done, total, unit, detail):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(base, rows, tmp_path, settings(), stop)
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*")) == [
        "checkpoint-2",
        "checkpoint-4",
    ]
    assert not (tmp_path / "adapter").exists()
    outcome = trained(base, rows, tmp_path, settings())
    assert (outcome.resumed_from, outcome.steps) == (4, 6)
    file = "adapter_model.safetensors"
    assert (tmp_path / "adapter" / file).read_bytes() == (straight[0] / file).read_bytes()
    assert outcome.history == straight[1].history


def test_recomputed_activations_change_nothing(straight, base, rows, tmp_path):
    """What the trainings on a GPU do by default."""
    outcome = trained(base, rows, tmp_path, settings(gradient_checkpointing=True))
    for got, expected in zip(outcome.history, straight[1].history, strict=True):
        assert got["loss"] == pytest.approx(expected["loss"], abs=1e-5)


def test_a_merged_model_is_whole_and_answers_as_the_adapter_does(straight, base, tmp_path):
    difference = merge_adapter(straight[0], tmp_path / "merged", "float32")
    assert 0 < difference < 1e-5
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert type(merged) is LlamaForCausalLM and merged.dtype == torch.float32
    assert num_parameters(tmp_path / "merged") == num_parameters(base)
    assert {path.name for path in (tmp_path / "merged").iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors",
    }  # fmt: skip
    adapted = PeftModel.from_pretrained(plain_base(base), straight[0])
    torch.testing.assert_close(logits(merged), logits(adapted), atol=1e-5, rtol=0)


def test_a_model_is_merged_in_the_dtype_that_was_trained(straight, tmp_path):
    merge_adapter(straight[0], tmp_path / "merged", "bfloat16")
    assert {weight.dtype for weight in load_file(tmp_path / "merged" / "model.safetensors").values()} == {
        torch.bfloat16
    }


def test_preferences_train_an_adapter_too(base, tmp_path):
    tokenizer, model = load_tokenizer(str(base)), plain_base(base)
    pairs = []
    for number in range(8):
        prompt = [{"role": "user", "content": f"{number} plus {number}?"}]
        pair = render_pair(tokenizer, prompt, f"It is {2 * number}.", f"no idea about {number}", 512)
        scores = [log_prob(model, pair.prompt_ids, ids) for ids in (pair.chosen_ids, pair.rejected_ids)]
        pairs.append(PairRow(str(number), pair, *scores))
    write_pair_rows(pairs, tmp_path / "rows")
    rows = datasets.load_from_disk(str(tmp_path / "rows"))
    outcome = trained(base, rows, tmp_path, settings({"r": 4}, "dpo", beta=0.2))
    losses = [entry["loss"] for entry in outcome.history]
    assert losses[0] == pytest.approx(0.693147, abs=1e-5)
    assert losses[-1] < 0.6
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "adapter" / "model.safetensors").exists()


def log_prob(model, prompt_ids, answer_ids):
    with torch.inference_mode():
        table = model(input_ids=torch.tensor([prompt_ids + answer_ids])).logits[0].log_softmax(-1)
    return sum(float(table[len(prompt_ids) + place - 1, token]) for place, token in enumerate(answer_ids))


def save_config(folder, config):
    config.save_pretrained(folder)
    return folder


def refusal(fields, folder, merge=False):
    with pytest.raises(UserError) as caught:
        try_adapter(fields, folder, merge=merge)
    return str(caught.value)


LAYERS = (
    "The linear layers of {} are down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj; state some of them as "
    "target_modules, or all-linear."
)


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"use_dora": True}, {"use_rslora": True}, {"init_lora_weights": "mica"}, {"init_lora_weights": False},
        {"init_lora_weights": "orthogonal"}, {"modules_to_save": ["lm_head"]}, {"target_modules": ".*q_proj"},
        {"exclude_modules": ["layers.0.self_attn.q_proj"]}, {"trainable_token_indices": [1, 2]}, {"bias": "all"},
        {"rank_pattern": {"layers.1.self_attn.q_proj": 2}, "layers_to_transform": [1]}, {"layers_to_transform": 0},
    ],
)  # fmt: skip
@pytest.mark.parametrize("merge", [False, True])
def test_what_peft_can_do_is_let_through(tmp_path, fields, merge):
    try_adapter(fields, save_config(tmp_path, LlamaConfig(**TINY)), merge=merge)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            {"target_modules": ["q_proj", "q_prok"]},
            f"peft.target_modules: q_prok matches no module of LlamaForCausalLM. {LAYERS.format('LlamaForCausalLM')}",
        ),
        (
            {"exclude_modules": ["z"]},
            f"peft.exclude_modules: z matches no module of LlamaForCausalLM. {LAYERS.format('LlamaForCausalLM')}",
        ),
        ({"rank_pattern": {"k_proj": 4}}, "peft.rank_pattern: k_proj matches no layer that gets an adapter."),
        ({"layers_to_transform": [0, 2]}, "peft.layers_to_transform: 2 matches no layer that gets an adapter."),
        (
            {"target_modules": ["lm_head", "q_proj"]},
            "peft.target_modules: the output head cannot have an adapter, because trl multiplies by its weight "
            "directly. Leave it out, or state it as modules_to_save.",
        ),
    ],
)
def test_what_would_be_passed_over_is_refused(tmp_path, fields, problem):
    assert refusal(fields, save_config(tmp_path, LlamaConfig(**TINY))) == problem


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"target_modules": ["nope"]}, "not found in the base model"),
        ({"init_lora_weights": "orthogonal", "r": 3}, "even"),
        ({"layers_pattern": "layers"}, "layers_to_transform"),
        ({"target_modules": "q_proj", "layers_to_transform": 1}, "layers_to_transform"),
    ],
)
def test_what_peft_refuses_is_the_users(tmp_path, fields, words):
    message = refusal(fields, save_config(tmp_path, LlamaConfig(**TINY)))
    assert message.startswith("peft: ") and words in message


def test_an_architecture_without_a_default_needs_target_modules(tmp_path):
    folder = save_config(tmp_path, Olmo2Config(**TINY))
    message = refusal({}, folder)
    assert message.startswith("peft: Please specify `target_modules`")
    assert message.endswith(LAYERS.format("Olmo2ForCausalLM"))
    try_adapter({"target_modules": ["q_proj"]}, folder, merge=True)


def test_what_cannot_be_merged_is_refused_only_where_it_is_to_be(tmp_path):
    bias = save_config(tmp_path / "plain", LlamaConfig(**TINY))
    tied = save_config(tmp_path / "tied", LlamaConfig(**TINY, tie_word_embeddings=True))
    embedding = {"target_modules": ["embed_tokens", "q_proj"]}
    for fields, folder in (({"lora_bias": True}, bias), (embedding, tied)):
        try_adapter(fields, folder, merge=False)
    assert "cannot be merged" in refusal({"lora_bias": True}, bias, merge=True)
    assert "shares its weight with the output head" in refusal(embedding, tied, merge=True)


def test_single_tokens_of_a_tied_embedding_are_refused(tmp_path):
    """trl multiplies by the head's weight, which such an adapter does not touch."""
    fields = {"trainable_token_indices": [1, 2]}
    assert refusal(fields, save_config(tmp_path, LlamaConfig(**TINY, tie_word_embeddings=True))) == (
        "peft.trainable_token_indices: the embedding shares its weight with the output head, and trl multiplies by the "
        "head's weight directly, without what is trained of single tokens. State modules_to_save: [embed_tokens] with "
        "ensure_weight_tying: true instead, or leave it out."
    )


def test_a_merge_that_changes_the_model_is_noticed(tmp_path):
    """Of a tied embedding peft changes the output head too."""
    torch.manual_seed(1)
    LlamaForCausalLM(LlamaConfig(**TINY, tie_word_embeddings=True, initializer_range=0.3)).save_pretrained(
        tmp_path / "b"
    )
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["embed_tokens"], init_lora_weights=False)
    adapted = get_peft_model(plain_base(tmp_path / "b"), config)
    for parameter in adapted.parameters():
        parameter.data += 0.1 * parameter.requires_grad
    adapted.save_pretrained(tmp_path / "a")
    with pytest.raises(UserError, match="merging changed the model"):
        merge_adapter(tmp_path / "a", tmp_path / "merged", "float32")
    assert not (tmp_path / "merged").exists()


def test_every_adapter_is_one_of_a_causal_language_model():
    config = lora_config({"r": 3, "use_rslora": True})
    assert (config.task_type, config.r, config.use_rslora) == ("CAUSAL_LM", 3, True)
