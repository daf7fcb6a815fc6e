"""A small tokenizer in place of one that is not at hand: the same special tokens and chat template, other words."""

import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from deita_train.data.shipped_templates import shipped_names, shipped_template
from deita_train.errors import UserError
from deita_train.models.known_models import KnownModel
from deita_train.models.published_files import write_template

WORDS = 1500
# As templates spell them: <|im_end|>, <start_of_turn>, [INST].
_CONTROL = re.compile(r"<[|\uff5c][^<>|\uff5c\s]+[|\uff5c]>|<(?:start|end)_of_turn>")


def make_stand_in_tokenizer(known: KnownModel, texts: Iterable[str], folder: Path) -> PreTrainedTokenizerFast:
    """Train a byte-level tokenizer with the special tokens of a known model, and save it to `folder`.

    Every digit is a token of its own, as in the tokenizers of LLaMA, Mistral and Qwen.
    """
    template = None if known.template is None else _template(known.template)
    control = dict.fromkeys([*known.tokens.values(), *known.added, *_CONTROL.findall(template or "")])
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS,
        special_tokens=[AddedToken(name, normalized=False, special=True) for name in control],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if known.adds_bos:
        bos = known.tokens["bos_token"]
        first = [(bos, tokenizer.token_to_id(bos))]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=first
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **known.tokens)
    fast.save_pretrained(folder)
    if template is not None:
        write_template(folder, template)
    return fast


def _template(name: str) -> str:
    """A chat template of the package or of the installed trl; read as a file, because importing trl takes seconds.

    Raises:
        UserError: this version of trl has none of that name.
    """
    if name in shipped_names():
        return shipped_template(name)
    spec = find_spec("trl")
    assert spec is not None and spec.submodule_search_locations, "trl is a requirement of this package"
    file = Path(spec.submodule_search_locations[0]) / "chat_templates" / f"{name}.jinja"
    if not file.is_file():
        raise UserError(f"{file} is not there: the installed trl has no chat template {name}; install trl 1.16.")
    return file.read_text(encoding="utf-8")
