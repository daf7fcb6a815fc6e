"""The parts of a chat template that the assistant writes, found in its text."""

import re

_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_ANSWER = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}(.*?)\{%[-+]?\s*endgeneration", re.DOTALL)
_MARKER = re.compile(r"\{%[-+]?\s*(generation|endgeneration)\s*[-+]?%\}")
_CALLS = {"generation": "call marked_answer()", "endgeneration": "endcall"}
_ENDS_IN_EOS = re.compile(r"(\{\{[-+]?|[+~])\s*eos_token\s*[-+]?\}\}\s*$")


def marked_answers(template: str) -> list[str]:
    """The parts of a template between its generation markers, without comments, which may speak of the markers."""
    return _ANSWER.findall(without_comments(template))


def without_comments(template: str) -> str:
    """The template as Jinja writes it, without its comments."""
    return _COMMENT.sub("", template)


def with_answers_between(template: str, start: str, end: str) -> str:
    """The template with its markers replaced by calls of a macro that writes two texts around each answer.

    The texts move with an answer wherever the template puts it; the markers, as transformers counts them, do not.
    """
    macro = f"{{% macro marked_answer() %}}{start}{{{{ caller() }}}}{end}{{% endmacro %}}"
    return macro + _MARKER.sub(lambda tag: tag[0].replace(tag[1], _CALLS[tag[1]]), template)


def ends_in_eos(template: str) -> bool:
    """Whether a template visibly ends every answer with the model's own end of sequence."""
    answers = marked_answers(template)
    return bool(answers) and all(_ENDS_IN_EOS.search(answer) for answer in answers)
