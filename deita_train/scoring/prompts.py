"""The scorers' prompts: wire formats of the published checkpoints, byte for byte, and their token ids.

Source: the public checkpoints hkust-nlp/deita-complexity-scorer and -quality-scorer. Both prompts end in a space, and
the complexity prompt has two spaces before its newline.
"""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

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
    """The prompt of one turn. Quality wants a response; braces in the texts are text, not fields."""
    return "".join(prompt_parts(dimension, instruction, response))


def prompt_parts(dimension: str, instruction: str, response: str | None) -> list[str]:
    """The prompt of one turn as its pieces in order: the turn's texts at the odd places, the prompt's own between."""
    if dimension == "complexity":
        head, tail = COMPLEXITY_PROMPT.split("{instruction}")
        return [head, instruction, tail]
    assert response is not None, "quality is judged on a response"
    head, rest = QUALITY_PROMPT.split("{instruction}")
    middle, tail = rest.split("{output}")
    return [head, instruction, middle, response, tail]


@dataclass(frozen=True)
class PromptIds:
    """Token ids of one prompt, whether the turn's text was shortened to fit, and what is left of it."""

    input_ids: list[int]
    shortened: bool
    instruction: str
    response: str | None


class PromptEncoder:
    """Encodes prompts of one dimension with one tokenizer.

    Raises :class:`UserError` when the tokenizer does not write each of the digits 1 to 6 as one token after the prompt.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, dimension: str, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._dimension = dimension
        self._max_length = max_length
        self.digit_ids = digit_token_ids(tokenizer, dimension)

    def encode(self, instruction: str, response: str | None) -> PromptIds | None:
        """Ids of at most `max_length` tokens; a long prompt loses text from the response's end, then from the
        instruction's, never its own ending. None when not even the empty prompt fits."""
        ids = self._ids(instruction, response)
        if len(ids) <= self._max_length:
            return PromptIds(ids, False, instruction, response)
        if response is not None:
            response, ids = self._shorten(response, lambda text: self._ids(instruction, text))
        if len(ids) > self._max_length:
            instruction, ids = self._shorten(instruction, lambda text: self._ids(text, response))
        return PromptIds(ids, True, instruction, response) if len(ids) <= self._max_length else None

    def _ids(self, instruction: str, response: str | None) -> list[int]:
        ids: list[int] = self._tokenizer(render(self._dimension, instruction, response))["input_ids"]
        return ids

    def _shorten(self, text: str, encode) -> tuple[str, list[int]]:  # type: ignore[no-untyped-def]  # noqa: ANN001
        """A beginning of `text`, found by halving, whose prompt fits while one character more does not; the empty text
        if none does."""
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            if len(encode(text[:middle])) <= self._max_length:
                low = middle
            else:
                high = middle - 1
        return text[:low], encode(text[:low])


def digit_token_ids(tokenizer: PreTrainedTokenizerBase, dimension: str) -> list[int]:
    """The ids of the digits 1 to 6 as they follow the prompt, in that order.

    Encoding a digit alone gives other ids on some tokenizers (two of them on Mistral's), so each is read off the end of
    prompt + digit, and the prompt must be that text's token prefix.
    """
    prompt = render(dimension, "How are you?", "Well.")
    prefix = tokenizer(prompt)["input_ids"]
    ids = []
    for digit in DIGITS:
        whole = tokenizer(prompt + digit)["input_ids"]
        if whole[:-1] != prefix:
            raise UserError(
                f"the tokenizer of {tokenizer.name_or_path} does not write the digit {digit} after the {dimension} "
                "prompt as one token of its own; a scorer needs a tokenizer with single digits (byte-level BPE: "
                "pre-tokenize with individual digits)."
            )
        ids.append(whole[-1])
    assert len(set(ids)) == len(DIGITS)
    return ids
