"""Where a trained model stops generating: at its own end of sequence, and where its template ends a turn."""

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from deita_train.data.control_tokens import control_tokens
from deita_train.data.rendering import IGNORED, render, render_pair

GENERATION_CONFIG = "generation_config.json"
_EXCHANGE = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello"}]


def end_of_turn_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The control tokens that end the answers of the tokenizer's template: of each answer of a conversation, the last
    control token that is trained. Empty where the template ends answers with none.

    Of a template that marks no answers, as DPO may have, the answer is what follows the prompt. Raises
    :class:`UserError` where the template refuses a conversation of two turns.
    """
    control = control_tokens(tokenizer).ids
    ends = [[token for token in answer if token in control][-1:] for answer in _answers(tokenizer)]
    return list(dict.fromkeys(token for end in ends for token in end))


def _answers(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The trained tokens of each answer of a conversation."""
    labels = render(tokenizer, [*_EXCHANGE, *_EXCHANGE], None).labels
    answers = [list(run) for is_ignored, run in groupby(labels, key=lambda label: label == IGNORED) if not is_ignored]
    return answers or [render_pair(tokenizer, _EXCHANGE[:1], "Hello", "Hello", None).chosen_ids]


def stop_at(model_dir: Path, token_ids: Sequence[int]) -> None:
    """Add tokens to those at which the saved model stops generating; where all are there already, no byte changes."""
    path = model_dir / GENERATION_CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    own = config.get("eos_token_id")
    if own is None:  # transformers then takes what the model's configuration says
        own = json.loads((model_dir / "config.json").read_text(encoding="utf-8")).get("eos_token_id")
    stops = [own] if isinstance(own, int) else own or []
    added = [token for token in token_ids if token not in stops]
    if added:
        config["eos_token_id"] = [*stops, *added]
        # With this mark, transformers 4 may make the whole again of the model's configuration.
        config.pop("_from_model_config", None)
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
