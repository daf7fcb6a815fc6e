"""The scorers' prompts: wire formats of the published checkpoints, byte for byte, and their token ids.

Source: the public checkpoints hkust-nlp/deita-complexity-scorer and -quality-scorer. Both prompts end in a space, and
the complexity prompt has two spaces before its newline.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from deita_train.data.control_tokens import EncodedText, Span, control_tokens, encode, token_ids
from deita_train.errors import UserError

COMPLEXITY_PROMPT = (
    "You are a helpful assistant. Please identify the complexity score of the following user query. \n"
    "##Query: {instruction}  \n##Complexity: "
)
QUALITY_PROMPT = (
    "You are a helpful assistant. Please identify the quality score of the Response corresponding to the Question. \n"
    " #Question#:\n{instruction}\n#Response#:\n{output} \n##Quality: "
)
DIGITS = "123456"


def render(dimension: str, instruction: str, response: str | None) -> str:
    """The prompt of one turn. Quality needs a response; braces in the texts are text, not fields."""
    return "".join(prompt_parts(dimension, instruction, response))


def prompt_parts(dimension: str, instruction: str, response: str | None) -> list[str]:
    """The prompt of one turn in pieces: the turn's texts at the odd places, the prompt's own text between them."""
    if dimension == "complexity":
        head, tail = COMPLEXITY_PROMPT.split("{instruction}")
        return [head, instruction, tail]
    assert response is not None, "quality is judged on a response"
    head, rest = QUALITY_PROMPT.split("{instruction}")
    middle, tail = rest.split("{output}")
    return [head, instruction, middle, response, tail]


def literal_spans(tokenizer: PreTrainedTokenizerBase, parts: Sequence[str]) -> list[Span]:
    """Where a turn's texts, in the joined `parts` of a prompt, contain the name of a control token as text."""
    control, at, found = control_tokens(tokenizer), 0, []
    for place, part in enumerate(parts):
        if place % 2:
            found += [(at + start, at + end) for start, end in control.spans(part)]
        at += len(part)
    return found


@dataclass(frozen=True)
class PromptIds:
    """One encoded prompt.

    Attributes:
        input_ids: its token ids.
        shortened: whether the turn's text was shortened to fit.
        instruction: what is left of the instruction.
        response: what is left of the response.
    """

    input_ids: list[int]
    shortened: bool
    instruction: str
    response: str | None


class PromptEncoder:
    """Encodes the prompts of one dimension with one tokenizer."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, dimension: str, max_length: int, *, shortens: bool = True
    ) -> None:
        """Find the digits of the tokenizer.

        Args:
            tokenizer: of the scorer.
            dimension: "complexity" or "quality".
            max_length: of a prompt, in tokens.
            shortens: whether longer prompts are shortened; else they are left out.

        Raises:
            UserError: the tokenizer does not write each of the digits 1 to 6 as one token after the prompt, or does
                not say which characters a token covers.
        """
        if not tokenizer.is_fast:
            raise UserError(
                f"the tokenizer of {tokenizer.name_or_path} does not say where its tokens are in a text; scorers need "
                "a fast one: save it with a tokenizer.json beside the model."
            )
        self._tokenizer = tokenizer
        self._dimension = dimension
        self._max_length = max_length
        self.shortens = shortens
        self.digit_ids = digit_token_ids(tokenizer, dimension)

    def encode(self, instruction: str, response: str | None) -> PromptIds | None:
        """Encode one prompt in at most `max_length` tokens.

        A longer one loses text from the end of the response, then of the instruction, never its own ending.

        Returns:
            None when the prompt is too long and may not be shortened, or when not even the empty prompt fits.
        """
        parts = prompt_parts(self._dimension, instruction, response)
        literals = literal_spans(self._tokenizer, parts)
        ids = token_ids(self._tokenizer, "".join(parts), literals, add_special_tokens=True)
        if len(ids) <= self._max_length:
            return PromptIds(ids, False, instruction, response)
        if not self.shortens:
            return None
        encoding = self._encode(parts)
        # The texts are at the odd places, and the last one is shortened first.
        for place in range(len(parts) - 2, 0, -2):
            if len(encoding.ids) > self._max_length:
                parts, encoding = self._shorten(parts, place, encoding)
        if len(encoding.ids) > self._max_length:
            return None
        left = parts[3] if len(parts) > 3 else response
        shortened = (parts[1], left) != (instruction, response)
        return PromptIds(encoding.ids, shortened, parts[1], left)

    def _encode(self, parts: Sequence[str]) -> EncodedText:
        literals = literal_spans(self._tokenizer, parts)
        return encode(self._tokenizer, "".join(parts), literals, add_special_tokens=True)

    def _shorten(self, parts: list[str], place: int, encoding: EncodedText) -> tuple[list[str], EncodedText]:
        """Shorten the text at `place` to the longest beginning that fits, to nothing if none does.

        The tokens of the whole prompt say where to cut. At the cut the text may be tokenised differently, so every cut
        is encoded: back by tokens until it fits, then forward by characters.

        Args:
            parts: of the whole prompt.
            place: of the text.
            encoding: of `parts`.
        """

        def cut(length: int) -> list[str]:
            return [*parts[:place], parts[place][:length], *parts[place + 1 :]]

        length = len(parts[place])
        start = len("".join(parts[:place]))
        kept = self._max_length - sum(first >= start + length for first, _ in encoding.offsets)
        offsets, excess = encoding.offsets, len(encoding.ids) - self._max_length
        while excess > 0 and length > 0:
            length = max(0, offsets[kept][0] - start) if kept > 0 else 0
            encoding = self._encode(cut(length))
            excess = len(encoding.ids) - self._max_length
            kept -= excess
        while excess <= 0:
            # This ends before the whole text, which does not fit.
            longer = self._encode(cut(length + 1))
            excess = len(longer.ids) - self._max_length
            if excess <= 0:
                length, encoding = length + 1, longer
        return cut(length), encoding


def digit_token_ids(tokenizer: PreTrainedTokenizerBase, dimension: str) -> list[int]:
    """The ids of the digits 1 to 6 after the prompt.

    A digit encoded alone gives other ids with some tokenizers (two ids with Mistral's), so each is taken from the end
    of prompt + digit, and the prompt must be a token prefix of that text.

    Raises:
        UserError: a digit is not one token there.
    """
    prompt = render(dimension, "How are you?", "Well.")
    prefix = encode(tokenizer, prompt, [], add_special_tokens=True).ids
    ids = []
    for digit in DIGITS:
        whole = encode(tokenizer, prompt + digit, [], add_special_tokens=True).ids
        if whole[:-1] != prefix:
            raise UserError(
                f"the tokenizer of {tokenizer.name_or_path} does not write the digit {digit} after the {dimension} "
                "prompt as one token of its own; a scorer needs a tokenizer with single digits (byte-level BPE: "
                "pre-tokenize with individual digits)."
            )
        ids.append(whole[-1])
    assert len(set(ids)) == len(DIGITS)
    return ids
