"""The tokens that steer a model and stand for no text: those that a chat template writes must be the model's own."""

import re

from transformers import PreTrainedTokenizerBase

from deita_train.errors import UserError

_MARKED = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}(.*?)\{%[-+]?\s*endgeneration", re.DOTALL)
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
    looked_at = "".join(_MARKED.findall(template)) if template == tokenizer.chat_template else template
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
