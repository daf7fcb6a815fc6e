"""A miniature LLaMA: a byte-level tokenizer trained on the data's text, and random weights from a seed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

BOS, EOS, PAD = "<s>", "</s>", "<pad>"


def train_tokenizer(texts: Iterable[str], vocab_size: int, chat_template: str, folder: Path) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE in which every digit is a token, and save it to `folder`.

    A scorer's prompt ends in a space. If the space could merge with the digit after it, the tokens of the prompt would
    not be a prefix of those of prompt + digit.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    bos_id = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, bos_id)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD)
    fast.chat_template = chat_template
    fast.save_pretrained(folder)
    return fast


def miniature_config(
    *, vocab_size: int, hidden_size: int, num_layers: int, num_heads: int, context_length: int, **tokens: Any
) -> LlamaConfig:
    """Return a LLaMA's configuration.

    Args:
        vocab_size: Rows of its embeddings.
        hidden_size: Dimensions of its hidden states.
        num_layers: Its layers.
        num_heads: Attention heads in each layer.
        context_length: Longest sequence, in tokens.
        tokens: The ids of special tokens, by transformers' names.
    """
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 3,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        max_position_embeddings=context_length,
        tie_word_embeddings=False,
        **tokens,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, *, seed: int, folder: Path, **shape: int) -> LlamaForCausalLM:
    """Create a LLaMA with random weights from `seed`, and save it to `folder`.

    Args:
        tokenizer: Its tokenizer, which gives the size of the vocabulary.
        seed: Seed of the weights.
        folder: Where it is saved.
        shape: The other sizes that :func:`miniature_config` takes.
    """
    set_seed(seed)
    tokens = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    model = LlamaForCausalLM(miniature_config(vocab_size=len(tokenizer), **shape, **tokens))
    model.save_pretrained(folder)
    return model
