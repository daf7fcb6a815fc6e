import datasets
import pytest
import torch
from conversation_loss import BATCH, SEED, TRAINER, ignore, make_rows
from transformers import AutoConfig, AutoModelForCausalLM

from deita_train.data.rendering import RenderedPair, load_tokenizer
from deita_train.errors import UserError
from deita_train.training.arguments import TrainingSettings
from deita_train.training.rows import PairRow, write_pair_rows
from deita_train.training.trainer_run import train

SHAPE = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "initializer_range": 0.3, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip


def write_model(folder, name, **changes):
    vocabulary = len(load_tokenizer(str(folder / "base")))
    torch.manual_seed(1)
    config = AutoConfig.for_model(name, vocab_size=vocabulary, **SHAPE, **changes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "base")


def trained(folder, kind="sft", rows="rows", **settings):
    made = TrainingSettings(
        {**TRAINER, "max_steps": 1}, BATCH, SEED, 1, "NO", True, kind=kind, check_logits=True, **settings
    )
    base = str(folder / "base")
    data = datasets.load_from_disk(str(folder / rows))
    tokenizer = load_tokenizer(base)
    return train(base, tokenizer, data, made, folder / "checkpoints", folder / "model", ignore, ignore)


@pytest.mark.parametrize("peft", [None, {"r": 2, "target_modules": "all-linear", "init_lora_weights": False}])
def test_a_cap_that_trl_knows_passes(tmp_path, peft):
    make_rows(tmp_path)
    write_model(tmp_path, "gemma2", head_dim=8, final_logit_softcapping=1.5)
    assert trained(tmp_path, peft=peft).steps == 1


def test_a_cap_that_trl_does_not_know_is_refused_before_the_first_step(tmp_path):
    make_rows(tmp_path)
    write_model(tmp_path, "recurrent_gemma", logits_soft_cap=1.5, lru_width=16, attention_window_size=8)
    with pytest.raises(UserError, match="RecurrentGemmaForCausalLM does something to its logits"):
        trained(tmp_path)
    assert not (tmp_path / "model").exists()


def test_a_pair_is_tried_too(tmp_path):
    make_rows(tmp_path)
    pairs = [PairRow(f"p{number}", RenderedPair([3, 4, 5], [6 + number, 7], [8], False), -1, -2) for number in range(4)]
    write_pair_rows(pairs, tmp_path / "pairs")
    write_model(tmp_path, "granite", logits_scaling=0.5)
    assert trained(tmp_path, "dpo", "pairs").steps == 1
