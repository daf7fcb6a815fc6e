"""The parts of a chat template that the assistant writes, found in its text."""

import re

_ANSWER = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}(.*?)\{%[-+]?\s*endgeneration", re.DOTALL)
_ENDS_IN_EOS = re.compile(r"(\{\{[-+]?|[+~])\s*eos_token\s*[-+]?\}\}\s*$")


def marked_answers(template: str) -> list[str]:
    """The parts of a template between its generation markers."""
    return _ANSWER.findall(template)


def ends_in_eos(template: str) -> bool:
    """Whether a template visibly ends every answer with the model's own end of sequence."""
    answers = marked_answers(template)
    return bool(answers) and all(_ENDS_IN_EOS.search(answer) for answer in answers)
