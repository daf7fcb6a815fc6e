"""The model of a stage with `resize: true`: that of its folder, with a row for every token of its template."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from deita_train.data.control_tokens import missing_control_tokens
from deita_train.errors import UserError
from deita_train.models.model_limits import Vocabulary, vocabulary
from deita_train.models.resizing import extend_tokenizer, resize_model


def resized_folder(
    source: Path, target: Path, chat_template: str | None, resizing: Mapping[str, Any], *, weights: bool = True
) -> Path:
    """The folder `target` with the resized model, made if it is not there yet; without `weights` only its tokenizer.

    It is complete if it exists. Rank 0 makes it while it prepares the stage, before the other ranks read it.

    Args:
        source: the model's folder.
        target: the new one.
        chat_template: the template whose control tokens are added; None for a scorer.
        resizing: of the stage's runtime: the `section` that states resize: true, and whether the recipe `is_swept`
            over models or templates, so that the field is meant for the cells that lack something.
        weights: whether the weights are wanted too.

    Returns:
        `target`; in such a sweep `source` itself where nothing is missing.

    Raises:
        UserError: nothing is missing without such a sweep, so that resizing would have no effect.
    """
    if target.exists():
        return target
    # Read for its vocabulary alone: it encodes nothing.
    tokenizer = AutoTokenizer.from_pretrained(source)
    names = missing_control_tokens(tokenizer, chat_template) if chat_template is not None else []
    sizes = vocabulary(source)
    if sizes is not None and sizes.fits and not names:
        if not resizing["is_swept"]:
            raise UserError(
                f"{resizing['section']}.resize: true would have no effect: the model of {source} has a row for each of "
                f"its {sizes.tokens:,} tokens, and its tokenizer every control token of the chat template. Leave "
                "resize: out."
            )
        return source
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
