"""Direct scoring, a baseline of the paper (2.3, 2.4): a model rates each row alone, with nothing to compare it with."""

from deita_train.evolve.elimination import CUT_OFF, reason_of_call
from deita_train.evolve.prompts import DIRECT_SCORE, Prompts
from deita_train.evolve.reading import Unusable
from deita_train.evolve.score_reading import read_score
from deita_train.llm.answers import Answer, Failure
from deita_train.llm.requests import ChatRequest

MAX_TOKENS = 1024


def direct_score_request(
    prompts: Prompts, instruction: str, response: str | None, *, attempt: int = 0, max_tokens: int = MAX_TOKENS
) -> ChatRequest:
    """Ask a model to rate an instruction, or for quality the response to it, from 1 to 6.

    Args:
        prompts: of the dimension.
        instruction: of the user.
        response: for quality, the answer to it.
        attempt: how often it was asked before.
        max_tokens: of the answer.
    """
    judged = response if prompts.dimension == "quality" else None
    content = prompts.render(DIRECT_SCORE, instruction=instruction, response=judged)
    messages = ({"role": "user", "content": content},)
    return ChatRequest(messages, max_tokens=max_tokens, json_object=True, attempt=attempt)


def judge_direct_score(answer: Answer | Failure) -> int | Unusable:
    """The score in the answer to `direct_score_request`, or why there is none."""
    failed = reason_of_call(answer)
    if isinstance(answer, Failure):
        return Unusable(str(failed), answer.detail)
    score = read_score(answer.text) if failed in (None, CUT_OFF) else Unusable(str(failed), "the server held it back")
    return Unusable(CUT_OFF, score.detail) if isinstance(score, Unusable) and failed == CUT_OFF else score
