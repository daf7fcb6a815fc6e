"""The tokens that steer a model and stand for no text: those that a chat template writes must be the model's own, and
their names in a message are text."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from deita_train.data.answer_marks import marked_answers
from deita_train.errors import UserError

Span = tuple[int, int]

# Two planes of characters that mean nothing to anyone else.
_PRIVATE = 0xF0000
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_PLAIN_TEXT = re.compile(r"\{#[-+]?\s*plain text:(.*?)[-+]?#\}", re.DOTALL)
# As published formats spell them: ChatML and Llama 3, DeepSeek (with a wide bar), LLaMA and Mistral, Gemma.
_WRITTEN = re.compile(r"<[|\uff5c][^<>|\uff5c\s]+[|\uff5c]>|</?s>|<(?:start|end)_of_turn>")


def check_control_tokens(tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    """Check that each control token that `template` writes is one token of the model's.

    A control token is text like `<|im_end|>` that stands in the template, unless a comment of the template,
    `{# plain text: <|user|> #}`, says that its format has no token for it. A template that is the tokenizer's own is
    what the model was trained with: there only what the assistant writes is looked at.

    Raises:
        UserError: with the tokens that would be split into pieces of text, and the ways out.
    """
    looked_at = "".join(marked_answers(template)) if template == tokenizer.chat_template else template
    plain = {token for tokens in _PLAIN_TEXT.findall(template) for token in tokens.split()}
    written = dict.fromkeys(_WRITTEN.findall(_COMMENT.sub("", looked_at)))
    split = [token for token in written if token not in plain and not _is_one_token(tokenizer, token)]
    if split:
        raise UserError(
            f"the chat template writes {', '.join(split)}, which the tokenizer of {tokenizer.name_or_path} does not "
            "have as one token: the model would learn the pieces of its text. Choose a chat_template whose control "
            "tokens the model has, or add them to the tokenizer and the model (add_special_tokens, "
            "resize_token_embeddings) and save both; a template whose format means them as text says so: "
            f"{{# plain text: {' '.join(split)} #}}."
        )


def _is_one_token(tokenizer: PreTrainedTokenizerBase, token: str) -> bool:
    ids = tokenizer(token, add_special_tokens=False)["input_ids"]
    return token in tokenizer.get_added_vocab() and ids == [tokenizer.convert_tokens_to_ids(token)]


@dataclass(frozen=True)
class EncodedText:
    """Token ids of a text, and for each token the characters that it stands for."""

    ids: list[int]
    offsets: list[Span]


class ControlTokens:
    """A tokenizer's control tokens, and encoding in which their names may also be text.

    Control tokens are those that the tokenizer calls special, and those of its added tokens that are spelled like one
    of a published format. Other added tokens (`<think>`) are vocabulary: whoever writes them means them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise UserError(
                f"the tokenizer of {tokenizer.name_or_path} does not tell where its tokens lie in a text; save it as a "
                "fast tokenizer, with a tokenizer.json beside the model."
            )
        added = tokenizer.added_tokens_decoder.items()
        steering = {token.content: id for id, token in added if token.special or _WRITTEN.fullmatch(token.content)}
        self._ids = {name: steering[name] for name in sorted(steering, key=len, reverse=True) if name.strip()}
        self._pattern = re.compile("|".join(map(re.escape, self._ids)) or r"(?!)")
        self._backend: Tokenizer = tokenizer.backend_tokenizer
        self._renamed: dict[int, Tokenizer] = {}

    @property
    def ids(self) -> frozenset[int]:
        """The ids of the control tokens."""
        return frozenset(self._ids.values())

    def spans(self, text: str) -> list[Span]:
        """Where the names of control tokens stand in a text."""
        return [match.span() for match in self._pattern.finditer(text)]

    def encode(self, text: str, literals: Sequence[Span], *, add_special_tokens: bool) -> EncodedText:
        """The tokens of a text in which what stands at `literals` is text, whatever it reads.

        Everything else is as the tokenizer encodes it. To that end every control token has another name, a character
        that the text does not have, in the text and in a copy of the tokenizer, which then knows the old names as text.
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
        """The texts with one character in place of each control token's name, and the name behind each character."""
        _, characters = self._characters("".join(texts))
        hidden = [self._pattern.sub(lambda match: characters[match[0]], text) for text in texts]
        return hidden, {character: name for name, character in characters.items()}

    def _characters(self, text: str) -> tuple[int, dict[str, str]]:
        """The number of the first, and for each control token a character that the text has nowhere."""
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
    """The tokens of a text in which the names of control tokens at `literals` are text, and everywhere else tokens."""
    if literals:
        return control_tokens(tokenizer).encode(text, literals, add_special_tokens=add_special_tokens)
    encoding = tokenizer(text, add_special_tokens=add_special_tokens).encodings[0]
    return EncodedText(encoding.ids, encoding.offsets)


def replaced(text: str, changes: Sequence[tuple[int, int, str]]) -> tuple[str, list[int], list[int]]:
    """A text with new pieces in place of spans of it; where each old place is now, and where each new one was.

    `changes` are start, end and new piece, in the text's order. The inside of a piece is placed at its beginning.
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
    """What lies between the spans of a text of that length, and before and after them."""
    return list(zip([0, *(end for _, end in spans)], [*(start for start, _ in spans), length], strict=True))


def _unused(text: str, count: int) -> int:
    """The first of `count` characters in a row that a text has none of, of those that Unicode leaves to private use."""
    private = sorted({ord(character) for character in text if ord(character) >= _PRIVATE})
    first = _PRIVATE
    for taken in private:
        if taken < first + count:
            first = taken + 1
    assert first + count <= sys.maxunicode
    return first


def _renamed_copy(backend: Tokenizer, names: Mapping[str, str]) -> Tokenizer:
    state = json.loads(backend.to_str())
    for added in state["added_tokens"]:
        added["content"] = names.get(added["content"], added["content"])
    model = state["model"]
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
