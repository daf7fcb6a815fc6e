"""The tokens at which a trained model stops generating: its end of sequence, and its template's end of turn."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from deita_train.data.control_tokens import control_tokens

GENERATION_CONFIG = "generation_config.json"


def end_of_turn_ids(tokenizer: PreTrainedTokenizerBase, answers: Iterable[Sequence[int]]) -> list[int]:
    """Collect the control tokens that end answers.

    Args:
        tokenizer: The tokenizer that rendered them.
        answers: The trained token ids of each answer.

    Returns:
        The last control token of each answer (whitespace may follow it), without duplicates, in order of appearance.
    """
    control = control_tokens(tokenizer).ids
    ends = (next((token for token in reversed(answer) if token in control), None) for answer in answers)
    return list(dict.fromkeys(token for token in ends if token is not None))


def stop_at(model_dir: Path, token_ids: Sequence[int]) -> None:
    """Add stop tokens to a saved model's generation config. The file is left alone if it has them all."""
    path = model_dir / GENERATION_CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    own = config.get("eos_token_id")
    if own is None:  # transformers then uses the model's configuration
        own = json.loads((model_dir / "config.json").read_text(encoding="utf-8")).get("eos_token_id")
    stops = [own] if isinstance(own, int) else own or []
    added = [token for token in token_ids if token not in stops]
    if added:
        config["eos_token_id"] = [*stops, *added]
        # With this mark, transformers 4 may rebuild the file from the model's configuration.
        config.pop("_from_model_config", None)
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
