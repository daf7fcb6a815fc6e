"""Current model families by their own templates: a whole recipe on a miniature of each architecture."""

import json
from pathlib import Path

import datasets
import pytest
import torch
from messages import assistant, user
from model_families import FAMILIES, make_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from deita_train.commands.validation import validate_data
from deita_train.plan.plan import make_plan
from deita_train.run.child.stage_process import run_stage
from deita_train.store.atomic_io import write_json_atomically

ARCHITECTURES = {
    "qwen2.5": "qwen2",
    "qwen3": "qwen3",
    "llama3": "llama",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "phi3": "phi3",
    "smollm2": "llama",
    "glm4": "glm4",
    "deepseek": "llama",
}
# Its generation prompt begins to reason, and an answer without reasoning does not follow that.
WITHOUT_PAIRS = ("deepseek",)
QUESTIONS = ["How are you?", "Name a river.", "1+1?", "Good morning", "Who is there?", "Is it warm?"]


def write_family(name: str, folder: Path) -> None:
    """A seeded miniature of the family's architecture beside its tokenizer."""
    tokenizer = make_tokenizer(FAMILIES[name], folder)
    shape = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 512,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
    }  # fmt: skip
    torch.manual_seed(5)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(ARCHITECTURES[name], **shape)).save_pretrained(folder)


def write_lines(path: Path, rows: list[dict]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def recipe(folder: Path, *, pairs: bool) -> Path:
    model = str(folder / "model")
    conversations = [
        {"messages": [user(text), assistant(f"Fine, {number}."), user("And?"), assistant("So it is.")]}
        for number, text in enumerate(QUESTIONS)
    ]
    preferences = [
        {"prompt": text, "chosen": f"Yes {number}", "rejected": "No"} for number, text in enumerate(QUESTIONS)
    ]
    pool = write_lines(folder / "pool.jsonl", conversations)
    trainer = {"max_steps": 2, "max_length": 256, "learning_rate": 1e-3}
    data = {
        "name": "family",
        "pool": {"dataset": pool},
        "scorers": {"quality": {"model": model, "min_digit_mass": 0.0}},
        "embedding": {"model": model},
        "perplexity": {"model": model},
        "select": {"method": "deita", "score": "quality", "budget": 4, "threshold": 1.5},
        "sft": {"model": model, "global_batch_size": 2, "trainer": trainer},
        "dpo": {
            "preferences": {"dataset": write_lines(folder / "pairs.jsonl", preferences)},
            "global_batch_size": 2,
            "trainer": trainer,
        },
        "evaluate": {"heldout": {"dataset": pool}, "max_length": 256},
    }
    if not pairs:
        del data["dpo"]
    write_json_atomically(folder / "recipe.yaml", data)
    return folder / "recipe.yaml"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_whole_recipe_by_the_familys_own_template(tmp_path, name):
    write_family(name, tmp_path / "model")
    made = make_plan(recipe(tmp_path, pairs=name not in WITHOUT_PAIRS), (), tmp_path / "runs")
    assert validate_data(made).problems == []
    for node in made.nodes:
        run_stage(made.loaded.path, [], tmp_path / "runs", node.id)
    base = made.cells[0].nodes
    artefacts = {label: made.store.path(node.id) for label, node in base.items()}
    embedded = datasets.load_from_disk(str(artefacts["embed"] / "data"))
    assert len(embedded) == len(QUESTIONS)
    for label in [label for label in ("sft", "dpo") if label in artefacts]:
        folder = artefacts[label] / "model"
        tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
        assert tokenizer.chat_template == FAMILIES[name].chat_template
        config = json.loads((folder / "tokenizer_config.json").read_text())
        assert config["chat_template"] == FAMILIES[name].chat_template
        prompt = tokenizer.apply_chat_template([user("Hi")], add_generation_prompt=True, return_tensors="pt")
        answer = model.generate(**prompt, max_new_tokens=3, do_sample=False)
        assert answer.shape[1] > prompt["input_ids"].shape[1]
        ends = model.generation_config.eos_token_id
        trained_end = set(json.loads((artefacts[label] / "metrics.json").read_text())["end_of_turn"])
        assert trained_end <= set(tokenizer.convert_ids_to_tokens(ends if isinstance(ends, list) else [ends]))
