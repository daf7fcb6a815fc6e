"""Tokens beside the text that they stand for, so that a sequence can be shown as the model sees it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from transformers import PreTrainedTokenizerBase

from deita_train.data.control_tokens import Span, encode
from deita_train.errors import UserError


@dataclass(frozen=True)
class TokenText:
    """One token of a sequence.

    `text` is what it adds to the text: the texts of all tokens that are not `added`, joined, are the whole. Where
    several tokens write one character, the first of them has it and the others have none. `piece` is the vocabulary's
    own name of the token. `readable` tells that `text` is all that the token stands for: it is no control token and
    shares no character. `added` tells that the token was put beside the text and its name stands as its text.
    """

    id: int
    text: str
    piece: str
    is_control: bool
    readable: bool
    added: bool = False


def token_texts(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    input_ids: Sequence[int],
    *,
    add_special_tokens: bool,
    literals: Sequence[Span] = (),
) -> list[TokenText]:
    """The tokens of `text`, one for each of `input_ids`, which must be the ids that the tokenizer gives it when the
    names of control tokens at `literals` are text.

    Raises :class:`UserError` for a tokenizer that cannot tell which text a token stands for.
    """
    if not tokenizer.is_fast:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path} has no tokenizer.json, so it cannot tell which text a token "
            "stands for. Save it once as a fast tokenizer of transformers."
        )
    encoded = encode(tokenizer, text, literals, add_special_tokens=add_special_tokens)
    assert encoded.ids == list(input_ids), "these are not the ids of this text"
    spans = encoded.offsets
    columns = zip(input_ids, spans, _added_texts(text, spans), _sharing(spans), strict=True)
    return [_token(tokenizer, token, span, added, shares) for token, span, added, shares in columns]


def control_token(tokenizer: PreTrainedTokenizerBase, token: int) -> TokenText:
    """A token that is put beside a text by its id, such as an end of sequence: its name is its text."""
    piece = str(tokenizer.convert_ids_to_tokens(token))
    return TokenText(token, piece, piece, is_control=True, readable=False, added=True)


def _token(tokenizer: PreTrainedTokenizerBase, token: int, span: Span, added: str, shares: bool) -> TokenText:
    known = tokenizer.added_tokens_decoder.get(token)
    is_control = known is not None and known.special
    if is_control and span[0] == span[1]:
        return control_token(tokenizer, token)
    piece = str(tokenizer.convert_ids_to_tokens(token))
    return TokenText(token, added, piece, is_control, readable=bool(added) and not is_control and not shares)


def _added_texts(text: str, spans: Sequence[Span]) -> list[str]:
    """What each span adds to those before it. Characters that no span covers (a space that the tokenizer trims off its
    spans) belong to the next span, at the end to the last."""
    ends, reached = [], 0
    for start, end in spans:
        reached = max(reached, end) if end > start else reached
        ends.append(reached)
    if ends:
        ends[-1] = len(text)
    return [text[before:end] for before, end in zip([0, *ends], ends, strict=False)]


def _sharing(spans: Sequence[Span]) -> list[bool]:
    """Which spans overlap the one before or after them: their tokens write parts of one character."""
    overlaps = [first[1] > second[0] and second[1] > first[0] for first, second in pairwise(spans)]
    return [before or after for before, after in zip([False, *overlaps], [*overlaps, False], strict=True)]
