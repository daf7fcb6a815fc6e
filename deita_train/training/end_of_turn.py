"""The tokens at which a trained model stops generating: its end of sequence, and its template's end of turn."""

import json
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from deita_train.data.control_tokens import control_tokens
from deita_train.data.rendering import IGNORED, render
from deita_train.data.row_refusal import RowRefused
from deita_train.data.template_text import rendered_text
from deita_train.data.training_templates import name_of_training_form
from deita_train.errors import UserError

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


def check_answer_marks(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check on a conversation of two turns that the template trains each answer's end and not its header.

    Raises:
        UserError: it does not; with what to do.
    """
    try:
        rendered = render(tokenizer, _PROBE, None)
        asked, prompt = (
            rendered_text(tokenizer, _PROBE[:1], add_generation_prompt=with_header, labelled=False).text.rstrip()
            for with_header in (False, True)
        )
        answers = rendered_text(tokenizer, _PROBE).answers
    except RowRefused:
        return  # a template for other conversations; its rows are checked one by one
    known = name_of_training_form(tokenizer.get_chat_template()) is not None  # that of gpt-oss trains its header
    if not known and answers and answers[0][0] <= len(asked) < len(prompt):
        raise UserError(
            "it marks the header of the assistant's turn as the assistant's words, so the model would learn to write "
            "it; put {% generation %} behind the header."
        )
    control = control_tokens(tokenizer).ids
    runs = groupby(zip(rendered.input_ids, rendered.labels, strict=True), key=lambda pair: pair[1] != IGNORED)
    for is_answer, run in runs:
        if is_answer and not _ends_turn(tokenizer, [token for token, _ in run], control):
            raise UserError(
                "it does not mark the token that ends an answer, so the model would never learn to stop; put the "
                "end-of-turn token before {% endgeneration %}."
            )


_PROBE = (
    {"role": "user", "content": "How are you?"},
    {"role": "assistant", "content": "Fine."},
    {"role": "user", "content": "Good."},
    {"role": "assistant", "content": "Yes."},
)


def _ends_turn(tokenizer: PreTrainedTokenizerBase, answer: Sequence[int], control: Collection[int]) -> bool:
    """Whether the last token that is not white space is a control token."""
    last = next(
        (token for token in reversed(answer) if token in control or str(tokenizer.decode([token])).strip()), None
    )
    return last in control


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
