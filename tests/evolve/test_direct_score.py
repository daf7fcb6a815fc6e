import pytest
from judged import answered

from deita_train.evolve.direct_score import direct_score_request, judge_direct_score
from deita_train.evolve.prompts import read_prompts
from deita_train.evolve.reading import Unusable
from deita_train.llm.answers import Failure
from deita_train.llm.requests import ChatRequest


@pytest.mark.parametrize(("dimension", "response"), [("complexity", None), ("quality", "A pear.")])
def test_a_request(dimension, response):
    prompts = read_prompts(dimension, None)
    content = prompts.render("direct_score", instruction="Name a fruit.", response=response)
    assert "Name a fruit." in content and ("A pear." in content) == (dimension == "quality")
    assert direct_score_request(prompts, "Name a fruit.", "A pear.", attempt=2, max_tokens=9) == ChatRequest(
        ({"role": "user", "content": content},), 0.0, 9, True, 2
    )


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (answered('{"score": 4}'), 4),
        (answered('{"score": 4} because', "length"), 4),
        (answered("It is hard to say", "length"), "cut_off"),
        (answered("4", "content_filter"), "filtered"),
        (answered("hard"), "no_scores"),
        (Failure("deadline", "600 s"), "failed_deadline"),
    ],
)
def test_an_answer_is_a_score_or_has_a_reason(answer, found):
    judged = judge_direct_score(answer)
    assert (judged.reason if isinstance(judged, Unusable) else judged) == found
