"""Current model families by their own templates: a whole recipe on a miniature of each architecture.

docs/models.md has a line for each.
"""

import json
import re
from pathlib import Path

import datasets
import pytest
import torch
from messages import assistant, user
from model_families import BASES, FAMILIES, make_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from deita_train.commands.validation import validate_data
from deita_train.data.rendering import load_tokenizer, render
from deita_train.data.shipped_templates import shipped_template
from deita_train.plan.plan import make_plan
from deita_train.run.child.stage_process import run_stage
from deita_train.store.atomic_io import write_json_atomically

EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
    "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "num_key_value_heads": 2,
    "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 4,
}  # fmt: skip
LINEAR = {
    "num_hidden_layers": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}  # fmt: skip
VISION = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 28,
}
# Family -> its tokenizer and template, its architecture, and what its miniature has besides the common shape.
MODELS = {
    "cohere2": ("cohere", "cohere2", {"sliding_window": 16, "logit_scale": 0.25}),
    "deepseek_v3": ("deepseek", "deepseek_v3", LATENT),
    "gemma2": ("gemma2", "gemma2", {"sliding_window": 16, "final_logit_softcapping": 2.0}),
    "gemma3": ("gemma3", "gemma3_text", {"sliding_window": 16, "tie_word_embeddings": True}),
    "glm4": ("glm4", "glm4", {}),
    "gpt2": ("gpt2", "gpt2", {}),
    "granite": ("granite", "granite", {"logits_scaling": 0.5, "embedding_multiplier": 2.0}),
    "llama3": ("llama3", "llama", {}),
    "mistral": ("mistral", "mistral", {"sliding_window": 16}),
    "mixtral": ("mistral", "mixtral", {**EXPERTS, "output_router_logits": True, "router_aux_loss_coef": 0.02}),
    "olmo2": ("olmo2", "olmo2", {}),
    "phi3": ("phi3", "phi3", {"sliding_window": 16}),
    "qwen2.5": ("qwen2.5", "qwen2", {"padded": 64}),
    "qwen3": ("qwen3", "qwen3", {"tie_word_embeddings": True}),
    "qwen3_moe": ("qwen3", "qwen3_moe", EXPERTS),
    "smollm2": ("smollm2", "llama", {}),
    "smollm3": ("smollm2", "smollm3", {}),
    # With the part that reads pictures, which a training leaves as it is.
    "gemma3 (4B and more)": ("gemma3", "gemma3", {"sliding_window": 16, "vision_config": {**VISION, "patch_size": 14}}),
    # Rows cannot be packed.
    "gpt-oss": ("gpt-oss", "gpt_oss", {**EXPERTS, "sliding_window": 16}),
    "qwen3.5": ("qwen3.5", "qwen3_5_text", LINEAR),
}
# Others are among `make test-faults`; they differ from one of these in little that this package sees.
SLOW = (
    "smollm2", "qwen3_moe", "gpt-oss", "qwen3.5", "glm4", "gemma3 (4B and more)", "mistral", "olmo2", "qwen2.5",
)  # fmt: skip
# Its generation prompt begins to reason, and an answer without reasoning does not follow that.
WITHOUT_PAIRS = ("deepseek_v3",)
LEAKING = ("gpt-oss", "qwen3.5")
QUESTIONS = ["How are you?", "Name a river.", "1+1?", "Good morning", "Who is there?", "Is it warm?"]


def write_family(name: str, folder: Path) -> None:
    """A seeded miniature of the family's architecture beside its tokenizer."""
    tokens, architecture, more = MODELS[name]
    tokenizer = make_tokenizer((FAMILIES | BASES)[tokens], folder)
    more = dict(more)
    shape = {
        "vocab_size": len(tokenizer) + more.pop("padded", 0), "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
        "max_position_embeddings": 2048, "initializer_range": 0.2, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    torch.manual_seed(5)
    vision = more.pop("vision_config", None)
    whole = {**shape, **more} if vision is None else {"text_config": {**shape, **more}, "vision_config": vision}
    config = AutoConfig.for_model(architecture, **whole)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def write_lines(path: Path, rows: list[dict]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def conversations() -> list[dict]:
    return [
        {"messages": [user(text), assistant(f"Fine, {number}."), user("And?"), assistant("So it is.")]}
        for number, text in enumerate(QUESTIONS)
    ]


def recipe(folder: Path, *, pairs: bool, packing: bool) -> Path:
    model = str(folder / "model")
    preferences = [
        {"prompt": text, "chosen": f"Yes {number}", "rejected": "No"} for number, text in enumerate(QUESTIONS)
    ]
    pool = write_lines(folder / "pool.jsonl", conversations())
    trainer = {"max_steps": 2, "max_length": 2048, "learning_rate": 1e-3}
    data = {
        "name": "family",
        "pool": {"dataset": pool},
        "scorers": {"quality": {"model": model, "min_digit_mass": 0.0}},
        "embedding": {"model": model},
        "perplexity": {"model": model},
        "select": {"method": "deita", "score": "quality", "budget": 4, "threshold": 1.5},
        "sft": {"model": model, "global_batch_size": 2, "trainer": trainer, "packing": packing},
        "dpo": {
            "preferences": {"dataset": write_lines(folder / "pairs.jsonl", preferences)},
            "global_batch_size": 2,
            "trainer": trainer,
        },
        "evaluate": {"heldout": {"dataset": pool}, "max_length": 2048, "samples": 1},
    }
    if not pairs:
        del data["dpo"]
    write_json_atomically(folder / "recipe.yaml", data)
    return folder / "recipe.yaml"


def own_loss(folder: Path, template: str, messages: list[dict]) -> float:
    """The summed loss of a conversation's trained tokens by the published model's plain forward."""
    rendered = render(load_tokenizer(str(folder), template), messages, None)
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(folder)(input_ids=torch.tensor([rendered.input_ids])).logits[0]
    labels = torch.tensor(rendered.labels[1:])
    return float(torch.nn.functional.cross_entropy(logits[:-1].float(), labels, reduction="sum"))


def kept_of(config: dict) -> dict:
    """A configuration without what any saving writes anew."""
    kept = {name: value for name, value in config.items() if name not in ("dtype", "transformers_version")}
    return {name: kept_of(value) if isinstance(value, dict) else value for name, value in kept.items()}


NAMES = [pytest.param(name, marks=pytest.mark.faults) if name in SLOW else name for name in MODELS]


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_recipe_by_the_familys_own_template(tmp_path, name):
    """Scoring, embedding, perplexity, SFT (packed where packing is safe), DPO, evaluation, publishing, generation."""
    write_family(name, tmp_path / "model")
    family = (FAMILIES | BASES)[MODELS[name][0]]
    path = recipe(tmp_path, pairs=name not in WITHOUT_PAIRS, packing=name not in LEAKING)
    made = make_plan(path, (), tmp_path / "runs")
    assert validate_data(made).problems == []
    for node in made.nodes:
        run_stage(made.loaded.path, [], tmp_path / "runs", node.id)
    base = made.cells[0].nodes
    artefacts = {label: made.store.path(node.id) for label, node in base.items()}
    assert len(datasets.load_from_disk(str(artefacts["embed"] / "data"))) == len(QUESTIONS)
    scores = datasets.load_from_disk(str(artefacts["score.quality"] / "data"))["quality_scores"]
    assert all(1 <= score <= 6 for row in scores for score in row)
    own = json.loads((tmp_path / "model" / "config.json").read_text())
    for label in [label for label in ("sft", "dpo") if label in artefacts]:
        folder = artefacts[label] / "model"
        tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
        assert tokenizer.chat_template == (family.chat_template or shipped_template("vicuna_v1.1"))
        config = json.loads((folder / "tokenizer_config.json").read_text())
        assert config["chat_template"] == tokenizer.chat_template
        assert kept_of(json.loads((folder / "config.json").read_text())) == kept_of(own)
        prompt = tokenizer.apply_chat_template([user("Hi")], add_generation_prompt=True, return_tensors="pt")
        answer = model.generate(**prompt, max_new_tokens=3, do_sample=False)
        assert answer.shape[1] > prompt["input_ids"].shape[1]
        ends = model.generation_config.eos_token_id
        metrics = json.loads((artefacts[label] / "metrics.json").read_text())
        trained_end = set(metrics.get("end_of_turn", ()))
        assert trained_end <= set(tokenizer.convert_ids_to_tokens(ends if isinstance(ends, list) else [ends]))
        measured = datasets.load_from_disk(str(artefacts[f"evaluate.{label}"] / "data"))
        expected = own_loss(folder, base[label].identity["chat_template"], conversations()[0]["messages"])
        assert measured["loss"][0] == pytest.approx(expected, rel=1e-4)
        (answered,) = json.loads((artefacts[f"evaluate.{label}"] / "metrics.json").read_text())["answers"].values()
        assert answered["prompt"] == QUESTIONS[0]


@pytest.mark.parametrize("name", LEAKING)
def test_packing_is_refused_where_conversations_would_see_each_other(tmp_path, name):
    write_family(name, tmp_path / "model")
    made = make_plan(recipe(tmp_path, pairs=True, packing=True), (), tmp_path / "runs")
    problems = validate_data(made).problems
    assert [problem.split(" in ")[0] for problem in problems] == ["sft.packing:"]


def test_pairs_are_refused_where_the_prompt_begins_to_reason(tmp_path):
    write_family("deepseek_v3", tmp_path / "model")
    made = make_plan(recipe(tmp_path, pairs=True, packing=False), (), tmp_path / "runs")
    assert any("prompt_not_prefix" in problem for problem in validate_data(made).problems)


def test_the_page_of_models_has_a_line_for_each_family():
    page = Path(__file__).parents[2].joinpath("docs", "models.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| [^|]+ \| `([a-z0-9_]+)` \| [^|]+ \| (yes|no) \|", page, re.MULTILINE)
    packed = {(architecture, "no" if name in LEAKING else "yes") for name, (_, architecture, _) in MODELS.items()}
    assert set(lines) == packed
