"""Control tokens: a chat template may write only the model's own; spelled in a message, they are text."""

import json
import re
import sys
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from deita_train.data.answer_marks import marked_answers, without_comments
from deita_train.data.training_templates import training_form
from deita_train.errors import UserError

Span = tuple[int, int]

# The start of two Unicode planes reserved for private use.
_PRIVATE = 0xF0000
_PLAIN_TEXT = re.compile(r"\{#[-+]?\s*plain text:(.*?)[-+]?#\}", re.DOTALL)
# As spelled by published formats: ChatML and Llama 3, DeepSeek (with a wide bar), LLaMA and Mistral, Gemma.
_WRITTEN = re.compile(r"<[|\uff5c][^<>|\uff5c\s]+[|\uff5c]>|</?s>|<(?:start|end)_of_turn>")


def check_control_tokens(tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    """Check that each control token that `template` writes is a single token of the model.

    A control token is text like `<|im_end|>` in the template, unless a comment in the template,
    `{# plain text: <|user|> #}`, says that its format has no token for it. The tokenizer's own template is what the
    model was trained with, so only the assistant's part of it is checked.

    Raises:
        UserError: naming the tokens that would be split into pieces of text, and what to do.
    """
    split = missing_control_tokens(tokenizer, template)
    if split:
        raise UserError(
            f"the chat template writes {', '.join(split)}, which the tokenizer of {tokenizer.name_or_path} does not "
            "have as one token: the model would learn the pieces of its text. Choose a chat_template whose control "
            "tokens the model has, or state resize: true where it is trained, which adds them to both. If "
            "the template's format means them as text, say so in it: "
            f"{{# plain text: {' '.join(split)} #}}."
        )


def missing_control_tokens(tokenizer: PreTrainedTokenizerBase, template: str) -> list[str]:
    """The control tokens that `template` writes and the tokenizer does not have as one token."""
    own = tokenizer.chat_template
    is_own = isinstance(own, str) and template in (own, training_form(own))
    looked_at = "".join(marked_answers(template)) if is_own else template
    plain = {token for tokens in _PLAIN_TEXT.findall(template) for token in tokens.split()}
    written = dict.fromkeys(_WRITTEN.findall(without_comments(looked_at)))
    return [token for token in written if token not in plain and not _is_one_token(tokenizer, token)]


def _is_one_token(tokenizer: PreTrainedTokenizerBase, token: str) -> bool:
    ids = tokenizer(token, add_special_tokens=False)["input_ids"]
    return token in tokenizer.get_added_vocab() and ids == [tokenizer.convert_tokens_to_ids(token)]


@dataclass(frozen=True)
class EncodedText:
    """Token ids of a text, and for each token the characters it covers."""

    ids: list[int]
    offsets: list[Span]


class ControlTokens:
    """A tokenizer's control tokens, and an encoder that can treat their names as text.

    Control tokens are the tokenizer's special tokens, and those of its added tokens that are spelled like a published
    format's. Other added tokens (`<think>`) are vocabulary: whoever writes them means them. So is a special token of
    one character, such as a `!` that serves for padding: no text could do without it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise UserError(
                f"the tokenizer of {tokenizer.name_or_path} cannot tell which characters a token covers; save it as a "
                "fast tokenizer, with a tokenizer.json beside the model."
            )
        added = tokenizer.added_tokens_decoder.items()
        steering = {token.content: id for id, token in added if token.special or _WRITTEN.fullmatch(token.content)}
        names = (name for name in sorted(steering, key=len, reverse=True) if len(name.strip()) > 1)
        self._ids = {name: steering[name] for name in names}
        self._pattern = re.compile("|".join(map(re.escape, self._ids)) or r"(?!)")
        self._backend: Tokenizer = tokenizer.backend_tokenizer
        self._renamed: dict[int, Tokenizer] = {}

    @property
    def ids(self) -> frozenset[int]:
        """The ids of the control tokens."""
        return frozenset(self._ids.values())

    def spans(self, text: str) -> list[Span]:
        """Where a text spells control tokens."""
        return [match.span() for match in self._pattern.finditer(text)]

    def encode(self, text: str, literals: Sequence[Span], *, add_special_tokens: bool) -> EncodedText:
        """The tokens of a text in which the spans at `literals` are plain text, even if they spell control tokens.

        Everything else is encoded as usual. Each control token is renamed to a character that the text does not
        contain, both in the text and in a copy of the tokenizer, to which the old names are then ordinary text.
        """
        first, characters = self._characters(text)
        changes = [
            (*match.span(), characters[match[0]])
            for start, end in _between(literals, len(text))
            for match in self._pattern.finditer(text, start, end)
        ]
        renamed, _, origins = replaced(text, changes)
        if first not in self._renamed:
            self._renamed[first] = _renamed_copy(self._backend, characters)
            ids = [self._renamed[first].token_to_id(character) for character in characters.values()]
            assert ids == list(self._ids.values()), "a renamed token has another id"
        encoding = self._renamed[first].encode(renamed, add_special_tokens=add_special_tokens)
        return EncodedText(encoding.ids, [(origins[start], origins[end]) for start, end in encoding.offsets])

    def hide(self, texts: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """The texts with each control token's name replaced by one character, and the name behind each character."""
        _, characters = self._characters("".join(texts))
        hidden = [self._pattern.sub(lambda match: characters[match[0]], text) for text in texts]
        return hidden, {character: name for name, character in characters.items()}

    def _characters(self, text: str) -> tuple[int, dict[str, str]]:
        """The first code point, and for each control token a character that does not occur in the text."""
        first = _unused(text, len(self._ids))
        return first, {name: chr(first + place) for place, name in enumerate(self._ids)}


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> ControlTokens:
    """The control tokens of a tokenizer, found once."""
    if tokenizer not in _FOUND:
        _FOUND[tokenizer] = ControlTokens(tokenizer)
    return _FOUND[tokenizer]


_FOUND: WeakKeyDictionary[PreTrainedTokenizerBase, ControlTokens] = WeakKeyDictionary()


def encode(
    tokenizer: PreTrainedTokenizerBase, text: str, literals: Sequence[Span], *, add_special_tokens: bool
) -> EncodedText:
    """The tokens of a text in which control tokens spelled at `literals` are text, and all others are tokens.

    An end of sequence that the tokenizer appends by itself is left out, because an answer is to follow the text.
    """
    if literals:
        encoded = control_tokens(tokenizer).encode(text, literals, add_special_tokens=add_special_tokens)
    else:
        encoding = tokenizer(text, add_special_tokens=add_special_tokens).encodings[0]
        encoded = EncodedText(encoding.ids, encoding.offsets)
    return _without_end(encoded, tokenizer.eos_token_id) if add_special_tokens else encoded


def token_ids(
    tokenizer: PreTrainedTokenizerBase, text: str, literals: Sequence[Span], *, add_special_tokens: bool
) -> list[int]:
    """The ids of :func:`encode`; a fifth faster, because nobody counts which characters a token covers."""
    if literals:
        return encode(tokenizer, text, literals, add_special_tokens=add_special_tokens).ids
    backend = tokenizer.backend_tokenizer
    if backend.truncation is not None or backend.padding is not None or backend.encode_special_tokens:
        tokenizer("")  # which takes back what tokenizer.json, or an earlier call, asked for
    ids: list[int] = backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids
    if add_special_tokens and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        return encode(tokenizer, text, literals, add_special_tokens=True).ids
    return ids


def _without_end(encoded: EncodedText, end: int | None) -> EncodedText:
    """The tokens without a last one that is the end of sequence and stands for no character of the text."""
    ids, offsets = encoded.ids, encoded.offsets
    if len(ids) > 1 and ids[-1] == end and offsets[-1][0] == offsets[-1][1]:
        return EncodedText(ids[:-1], offsets[:-1])
    return encoded


def replaced(text: str, changes: Sequence[tuple[int, int, str]]) -> tuple[str, list[int], list[int]]:
    """Replace spans of a text.

    Args:
        text: the text.
        changes: (start, end, new piece), in the text's order.

    Returns:
        The new text; for each old position the new one; for each new position the old one. Positions inside a piece
        map to its beginning.
    """
    pieces: list[str] = []
    places: list[int] = []
    origins: list[int] = []
    at = 0
    for start, end, piece in [*changes, (len(text), len(text), "")]:
        places += [*range(len(origins), len(origins) + start - at)]
        origins += range(at, start)
        places += [len(origins)] * (end - start)
        origins += [start] * len(piece)
        pieces += [text[at:start], piece]
        at = end
    return "".join(pieces), [*places, len(origins)], [*origins, len(text)]


def _between(spans: Sequence[Span], length: int) -> list[Span]:
    """The gaps between, before and after the spans of a text of that length."""
    return list(zip([0, *(end for _, end in spans)], [*(start for start, _ in spans), length], strict=True))


def _unused(text: str, count: int) -> int:
    """The first of `count` consecutive private-use code points that do not occur in a text."""
    private = sorted({ord(character) for character in text if ord(character) >= _PRIVATE})
    first = _PRIVATE
    for taken in private:
        if taken < first + count:
            first = taken + 1
    assert first + count <= sys.maxunicode
    return first


def _spells(pair: str | Sequence[str], names: Container[str]) -> bool:
    """Whether a merge makes one of these names, or goes on from one."""
    first, second = pair.split(" ") if isinstance(pair, str) else pair
    return first + second in names or first in names or second in names


def _renamed_copy(backend: Tokenizer, names: Mapping[str, str]) -> Tokenizer:
    state = json.loads(backend.to_str())
    for added in state["added_tokens"]:
        added["content"] = names.get(added["content"], added["content"])
    model = state["model"]
    if "merges" in model:  # a text that spells a name must not become its token
        model["merges"] = [pair for pair in model["merges"] if not _spells(pair, names)]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(piece, piece): token for piece, token in model["vocab"].items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    if model.get("unk_token") is not None:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    copy = Tokenizer.from_str(json.dumps(state))
    copy.no_truncation()
    copy.no_padding()
    return copy
