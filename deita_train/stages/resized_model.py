"""The model of a stage with `resize: true`: that of its folder, with a row for every token of its template."""

import shutil
from pathlib import Path

from transformers import AutoTokenizer

from deita_train.data.control_tokens import missing_control_tokens
from deita_train.errors import UserError
from deita_train.models.model_limits import Vocabulary, vocabulary
from deita_train.models.resizing import extend_tokenizer, resize_model


def resized_folder(source: Path, target: Path, chat_template: str | None, *, weights: bool = True) -> Path:
    """The folder `target` with the resized model, made if it is not there yet; without `weights` only its tokenizer.

    It is complete if it exists. Rank 0 makes it while it prepares the stage, before the other ranks read it.

    Raises:
        UserError: nothing is missing, so that resizing would have no effect.
    """
    if target.exists():
        return target
    tokenizer = AutoTokenizer.from_pretrained(source)
    names = missing_control_tokens(tokenizer, chat_template) if chat_template is not None else []
    sizes = vocabulary(source)
    check_resizing(source, names, sizes)
    assert sizes is not None
    unfinished = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    extend_tokenizer(source, unfinished, names)
    if weights:
        # Tokens beyond the model's rows were added by somebody before us; these and ours have never been trained.
        wanted = Vocabulary(sizes.tokens + len(names), sizes.rows)
        resize_model(source, unfinished, wanted, num_new=len(names))
    else:
        shutil.copyfile(source / "config.json", unfinished / "config.json")
    unfinished.rename(target)
    return target


def check_resizing(source: Path, names: list[str], sizes: Vocabulary | None) -> None:
    """Refuse `resize: true` where it would change nothing.

    Raises:
        UserError: every token of the tokenizer and of the template has a row.
    """
    if sizes is not None and sizes.fits and not names:
        raise UserError(
            f"resize: true would have no effect: the model of {source} has a row for each of its {sizes.tokens:,} "
            "tokens, and its tokenizer every control token of the chat template. Leave resize: out."
        )
