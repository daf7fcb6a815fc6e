"""Tokens with the text they stand for, to show a sequence as the model sees it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from transformers import PreTrainedTokenizerBase

from deita_train.data.control_tokens import Span, encode
from deita_train.errors import UserError


@dataclass(frozen=True)
class TokenText:
    """One token of a sequence.

    Attributes:
        id: the token's id.
        text: its share of the text; joined over all tokens that are not `added`, this is the whole text. If several
            tokens write one character, the first one gets it.
        piece: the token's name in the vocabulary.
        is_control: whether it is a control token.
        readable: whether `text` is all that the token stands for: not a control token, and no shared character.
        added: whether the token was added to the text by its id; its name then serves as its text.
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
    """The tokens of `text`, one for each of `input_ids`.

    Args:
        tokenizer: a fast tokenizer.
        text: the text.
        input_ids: the ids that the tokenizer gives `text` when control tokens spelled at `literals` are text.
        add_special_tokens: whether the tokenizer added its special tokens.
        literals: spans of control tokens that are text.

    Raises:
        UserError: the tokenizer is not a fast one, so it cannot map tokens to text.
    """
    if not tokenizer.is_fast:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path} has no tokenizer.json, so it cannot tell which text a token "
            "stands for. Save it as a fast tokenizer of transformers."
        )
    encoded = encode(tokenizer, text, literals, add_special_tokens=add_special_tokens)
    assert encoded.ids == list(input_ids), "these are not the ids of this text"
    spans = encoded.offsets
    columns = zip(input_ids, spans, _added_texts(text, spans), _sharing(spans), strict=True)
    return [_token(tokenizer, token, span, added, shares) for token, span, added, shares in columns]


def control_token(tokenizer: PreTrainedTokenizerBase, token: int) -> TokenText:
    """A token added to a text by its id, such as an end of sequence: its name is its text."""
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
    """What each span adds to those before it.

    Characters that no span covers (a space trimmed by the tokenizer) go to the next span, at the end to the last.
    """
    ends, reached = [], 0
    for start, end in spans:
        reached = max(reached, end) if end > start else reached
        ends.append(reached)
    if ends:
        ends[-1] = len(text)
    return [text[before:end] for before, end in zip([0, *ends], ends, strict=False)]


def _sharing(spans: Sequence[Span]) -> list[bool]:
    """For each span whether it overlaps a neighbour: such tokens write parts of one character."""
    overlaps = [first[1] > second[0] and second[1] > first[0] for first, second in pairwise(spans)]
    return [before or after for before, after in zip([False, *overlaps], [*overlaps, False], strict=True)]
