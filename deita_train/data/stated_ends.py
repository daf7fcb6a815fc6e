"""The tokens that a tokenizer's settings say it adds around a text: `add_bos_token` and `add_eos_token`.

Since version 5, transformers takes what is added from tokenizer.json alone, and ignores both settings in
tokenizer_config.json where that file is present. A model that was made under an earlier version, which followed them,
would read its texts without these tokens.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from deita_train.errors import UserError

_CONFIG = "tokenizer_config.json"
_PROBE = "a"


class StatedEnds(NamedTuple):
    """The ids of the tokens that the settings put before and after a text; None for none."""

    first: int | None
    last: int | None

    def are_in(self, ids: list[int]) -> bool:
        """Whether a text's token ids have them."""
        return self.first in (None, *ids[:1]) and self.last in (None, *ids[-1:])


def stated_ends(tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> StatedEnds:
    """What the settings of a tokenizer in a folder state to be added.

    Raises:
        UserError: a token is to be added that the tokenizer does not have.
    """
    path = Path(folder) / _CONFIG
    settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return StatedEnds(_stated(tokenizer, settings, "bos", path), _stated(tokenizer, settings, "eos", path))


def add_stated_ends(tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> StatedEnds:
    """Make a tokenizer add what its settings in the folder state, where it does not. Returns what they state.

    Raises:
        UserError: as `stated_ends`, or the tokenizer adds its tokens in a way that cannot be completed.
    """
    ends = stated_ends(tokenizer, folder)
    if any(end is not None for end in ends) and not ends.are_in(tokenizer(_PROBE)["input_ids"]):
        if tokenizer.is_fast:
            _complete(tokenizer.backend_tokenizer, tokenizer, ends)
        if not ends.are_in(tokenizer(_PROBE)["input_ids"]):
            raise UserError(
                f"{Path(folder) / _CONFIG} says that {_in_words(ends)} added to each text, and the tokenizer does not "
                "add it. Save the tokenizer anew with a tokenizer.json whose post_processor adds it."
            )
    return ends


def _stated(tokenizer: PreTrainedTokenizerBase, settings: dict[str, Any], which: str, path: Path) -> int | None:
    if settings.get(f"add_{which}_token") is not True:
        return None
    found: int | None = getattr(tokenizer, f"{which}_token_id")
    if found is None:
        raise UserError(
            f"{path}: add_{which}_token is true, and the tokenizer has no {which}_token; name it there, or state false."
        )
    return found


def _complete(backend: Tokenizer, tokenizer: PreTrainedTokenizerBase, ends: StatedEnds) -> None:
    """Add the missing tokens to the template by which the backend adds others."""
    state = json.loads(backend.to_str())
    there = tokenizer(_PROBE)["input_ids"]
    state["post_processor"], template = _with_template(state["post_processor"])
    if template is None:
        return
    for pieces in (template["single"], template["pair"]):
        if ends.first not in (None, *there[:1]):
            pieces.insert(0, _piece(template, tokenizer, ends.first, type_id=0))
        if ends.last not in (None, *there[-1:]):
            type_of_last = next(iter(pieces[-1].values()))["type_id"]
            pieces.append(_piece(template, tokenizer, ends.last, type_id=type_of_last))
    backend.post_processor = Tokenizer.from_str(json.dumps(state)).post_processor


def _with_template(processor: dict[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """A post-processor with a template, and that template; None for one that adds its tokens in another way."""
    parts: list[dict[str, Any]] = []
    if processor is not None:
        parts = list(processor["processors"]) if processor["type"] == "Sequence" else [processor]
    template = next((part for part in parts if part["type"] == "TemplateProcessing"), None)
    if template is None and all(part["type"] == "ByteLevel" for part in parts):
        a, b = ({"Sequence": {"id": name, "type_id": type_id}} for name, type_id in (("A", 0), ("B", 1)))
        template = {"type": "TemplateProcessing", "single": [a], "pair": [a, b], "special_tokens": {}}
        parts.append(template)
    return (parts[0] if len(parts) == 1 else {"type": "Sequence", "processors": parts}), template


def _piece(
    template: dict[str, Any], tokenizer: PreTrainedTokenizerBase, token: int | None, *, type_id: int
) -> dict[str, Any]:
    assert token is not None
    name = tokenizer.convert_ids_to_tokens(token)
    template["special_tokens"][name] = {"id": name, "ids": [token], "tokens": [name]}
    return {"SpecialToken": {"id": name, "type_id": type_id}}


def _in_words(ends: StatedEnds) -> str:
    names = [name for name, token in zip(("bos_token", "eos_token"), ends, strict=True) if token is not None]
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}"
