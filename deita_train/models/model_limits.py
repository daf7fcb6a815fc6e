"""What a model's files say of the longest row and of the tokens that it can read. Imports nothing heavy."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Models that look positions up in a table, so that a longer row is an index out of range. Others compute them.
LEARNED_POSITIONS = frozenset(
    ("biogpt", "codegen", "ctrl", "gpt2", "gpt_bigcode", "gpt_neo", "gptj", "mpt", "openai-gpt", "opt")
)
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")


def learned_positions(config: Mapping[str, Any]) -> int | None:
    """The tokens of the longest row, from a config.json with learned positions; None for a model that computes them."""
    if config.get("model_type") not in LEARNED_POSITIONS:
        return None
    lengths = (config[name] for name in _POSITIONS if name in config)
    return next(lengths, None)


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that a tokenizer can give, and the rows of the model's embeddings."""

    tokens: int
    rows: int

    @property
    def fits(self) -> bool:
        """Whether every token has an embedding."""
        return self.tokens <= self.rows


def vocabulary(folder: Path) -> Vocabulary | None:
    """The sizes in a model's folder; None where a file does not say them (a slow tokenizer, an adapter's folder).

    A model may have more rows than tokens: many are padded to a round number.
    """
    config, tokenizer = read_json_file(folder / "config.json"), read_json_file(folder / "tokenizer.json")
    rows = config.get("vocab_size", _part(config, "text_config").get("vocab_size"))
    pieces = _part(tokenizer, "model").get("vocab")
    if not isinstance(rows, int) or pieces is None:
        return None
    ids = pieces.values() if isinstance(pieces, dict) else (len(pieces) - 1,)
    added = (token["id"] for token in tokenizer.get("added_tokens") or ())
    return Vocabulary(tokens=max((*ids, *added), default=-1) + 1, rows=rows)


def vocabulary_problem(folder: Path) -> str | None:
    """What is wrong with a model whose tokenizer has tokens without an embedding; None for a model that fits."""
    sizes = vocabulary(folder)
    if sizes is None or sizes.fits:
        return None
    return (
        f"the tokenizer of {folder} has {sizes.tokens:,} tokens and the model {sizes.rows:,} embeddings, so that a row "
        "with one of the extra tokens would fail"
    )


def length_problem(folder: Path, stated: int | None) -> str | None:
    """What is wrong with a stated maximum length beyond the positions that a model has learned; None for nothing."""
    positions = learned_positions(read_json_file(folder / "config.json"))
    if stated is None or positions is None or stated <= positions:
        return None
    return f"{stated:,} tokens are more than the {positions:,} positions that the model has learned; state at most that"


def read_json_file(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file or it holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = config.get(name)
    return part if isinstance(part, Mapping) else {}
