"""The stage that judges, against judges on loopback that answer, mis-answer and fail."""

import json
import math
import re

import pytest
from judge_stages import endpoint_of, identity_of, judge_context, judged, question, write_answers, write_questions
from llm.fake_server import FakeServer, completion, error

from deita_train.errors import UserError
from deita_train.evaluation.judge_prompts import COMPARE, PAIR, RATE
from deita_train.llm.spending import CeilingReached
from deita_train.stages.facts import of_judgements

QUESTIONS = [
    question("q1", "Add 2 and 2.", "And 3?", category="math", references=["4", "7"]),
    question("q2", "Write.", "Shorter.", category="writing"),
    question("q3", "Who?", category="writing"),
]


def shown(body):
    """The answers in a prompt of the package's words, in their order."""
    return re.findall(r"^Answer[^:\n]*:\n=+\n(.*?)\n=+$", body["messages"][-1]["content"], re.MULTILINE | re.DOTALL)


def mine(name, turn):
    return f"{name} {turn} mine"


@pytest.fixture
def parents(tmp_path):
    return {
        "questions": write_questions(tmp_path / "questions", QUESTIONS),
        "answers": write_answers(tmp_path / "mine", QUESTIONS, mine),
    }


RATINGS = {"q1 0 mine": 9, "q1 1 mine": 4, "q2 0 mine": 7, "q2 1 mine": 6, "q3 0 mine": 5}


def rates(body):
    return f"Well.\nRating: [[{RATINGS[shown(body)[-1]]}]]"


def test_every_turn_is_rated_once(tmp_path, parents):
    with FakeServer(rates) as server:
        rows, metrics = judged(judge_context(tmp_path, identity_of(RATE), endpoint_of(server.url), parents))
        assert len(server.requests) == 5
        assert {request["temperature"] for request in server.requests} == {0.0}
        assert {request["max_tokens"] for request in server.requests} == {2048}
    assert [(row["id"], row["turn"], row["score"]) for row in rows] == [
        ("q1/1", 0, 9.0), ("q1/2", 1, 4.0), ("q2/1", 0, 7.0), ("q2/2", 1, 6.0), ("q3/1", 0, 5.0)
    ]  # fmt: skip
    assert rows[0]["verdicts"] == ["Well.\nRating: [[9]]"] and rows[0]["attempts"] == 1
    assert rows[0]["category"] == "math" and rows[0]["question_id"] == "q1" and rows[0]["model_is_first"] == []
    values = {name: result["value"] for name, result in metrics["results"].items()}
    assert values == {"overall": 31 / 5, "turn 1": 7.0, "turn 2": 5.0, "math": 6.5, "writing": 6.0}
    assert metrics["results"]["overall"]["questions"] == 3 and metrics["spending"]["calls"] == 5
    assert metrics["with_reference"] == 2 and metrics["without_score"] == {} == metrics["unusable_verdicts"]
    assert metrics["title"] == "Judged questions" and "not with published figures" in metrics["notes"][0]
    assert of_judgements(metrics).startswith("Judged questions: overall 6.20 (")


def test_references_are_shown_where_there_are_any(tmp_path, parents):
    with FakeServer(rates) as server:
        judged(judge_context(tmp_path, identity_of(RATE), endpoint_of(server.url), parents))
        texts = {shown(body)[-1]: body["messages"][-1]["content"] for body in server.requests}
    assert "Reference answer 2:" in texts["q1 1 mine"] and "Reference" not in texts["q2 1 mine"].split("First say")[0]


def test_verdicts_that_cannot_be_read_are_asked_again_and_counted(tmp_path, parents):
    """q2's second turn never has a rating, q3 at the third attempt."""
    asked = {}

    def mumbles(body):
        answer = shown(body)[-1]
        asked[answer] = asked.get(answer, 0) + 1
        if answer == "q2 1 mine":
            return "It is fine."
        if answer == "q3 0 mine" and asked[answer] < 3:
            return "Rating: [[12]]"
        return rates(body)

    with FakeServer(mumbles) as server:
        rows, metrics = judged(judge_context(tmp_path, identity_of(RATE), endpoint_of(server.url), parents))
    by_id = {row["id"]: row for row in rows}
    assert (by_id["q2/2"]["score"], by_id["q2/2"]["reason"], by_id["q2/2"]["attempts"]) == (None, "no_rating", 3)
    assert by_id["q2/2"]["verdicts"] == ["It is fine."]
    assert (by_id["q3/1"]["score"], by_id["q3/1"]["attempts"]) == (5.0, 3)
    assert metrics["unusable_verdicts"] == {"no_rating": 3, "out_of_range": 2}
    assert metrics["without_score"] == {"no_rating": 1} and metrics["results"]["overall"]["value"] == 25 / 4
    assert any("1 of 5 have no score (no_rating 1)" in note for note in metrics["notes"])


def test_calls_that_fail_have_their_reason(tmp_path, parents):
    def refuses(body, times):
        if shown(body)[-1].startswith("q2"):
            return error(400, "maximum context length", code="context_length_exceeded")
        return None

    with FakeServer(rates, misbehave=refuses) as server:
        context = judge_context(tmp_path, identity_of(RATE, ask_again=0), endpoint_of(server.url), parents)
        rows, metrics = judged(context)
    assert {row["id"]: row["reason"] for row in rows if row["score"] is None} == {
        "q2/1": "failed_prompt_too_long", "q2/2": "failed_prompt_too_long"
    }  # fmt: skip
    assert metrics["results"]["writing"]["value"] == 5.0


def test_a_turn_without_an_answer_is_not_asked_about(tmp_path, parents):
    answers = write_answers(tmp_path / "half", QUESTIONS, lambda name, turn: None if name == "q1" else mine(name, turn))
    with FakeServer(rates) as server:
        context = judge_context(tmp_path, identity_of(RATE), endpoint_of(server.url), {**parents, "answers": answers})
        rows, metrics = judged(context)
        assert len(server.requests) == 3
    assert metrics["without_score"] == {"no_answer": 2} and rows[0]["attempts"] == 0 and rows[0]["verdicts"] == []


def test_where_nothing_can_be_judged_the_stage_says_so(tmp_path, parents):
    with (
        FakeServer(lambda body: "Hm.") as server,
        pytest.raises(UserError, match=r"judged\.sft: not one answer has a score: \{'no_rating': 5\}"),
    ):
        judged(judge_context(tmp_path, identity_of(RATE), endpoint_of(server.url), parents))


def test_mt_bench_needs_references_before_anything_is_asked(tmp_path):
    questions = [question("101", "2+2?", category="math")]
    parents = {
        "questions": write_questions(tmp_path / "q", questions),
        "answers": write_answers(tmp_path / "a", questions, mine),
    }
    with FakeServer(rates) as server:
        context = judge_context(tmp_path, identity_of(RATE, benchmark="mt_bench"), endpoint_of(server.url), parents)
        with pytest.raises(UserError, match=r"question 101 \(math\) has no reference answer"):
            judged(context)
        assert server.requests == []


def theirs(name, turn):
    return f"{name} {turn} theirs"


def prefers(winner):
    """Verdicts by who wrote the last answer of each assistant: `winner` of a question, in both orders alike."""

    def verdict(body):
        first, _ = shown(body)[-2:]
        best = winner(first.split()[0])
        if best not in ("mine", "theirs"):
            return best
        return "[[A]]" if first.endswith(best) else "[[B]]"

    return verdict


def test_pairs_are_asked_in_both_orders_and_a_position_is_no_win(tmp_path, parents):
    baseline = write_answers(tmp_path / "theirs", QUESTIONS, theirs)
    by_question = {"q1": "mine", "q2": "theirs", "q3": "[[A]]"}  # of q3 whoever stands first
    with FakeServer(prefers(by_question.get)) as server:
        identity = identity_of(PAIR, baseline="base")
        rows, metrics = judged(
            judge_context(tmp_path, identity, endpoint_of(server.url), {**parents, "baseline": baseline})
        )
        assert len(server.requests) == 10
    assert [row["score"] for row in rows] == [1.0, 1.0, 0.0, 0.0, 0.5]
    assert rows[0]["model_is_first"] == [True, False] and rows[0]["verdicts"] == ["[[A]]", "[[B]]"]
    values = {name: result["value"] for name, result in metrics["results"].items()}
    assert list(values.items())[:4] == [("win rate, ties half", 0.5), ("won", 0.4), ("tied", 0.2), ("lost", 0.4)]
    assert "Pairs with base in both orders" in metrics["notes"][1]


def test_the_built_in_judge_needs_nobody_and_says_what_it_is(tmp_path):
    questions = [
        question("a", "Start with 7, add 5. What do you get?"),
        question("b", "Take the number 3 and double it."),
    ]
    answers = {"a": "7 + 5 = 12. So it is 12.", "b": "dunno, maybe 7"}
    parents = {
        "questions": write_questions(tmp_path / "q", questions),
        "answers": write_answers(tmp_path / "a", questions, lambda name, turn: answers[name]),
    }
    endpoint = {
        "name": "judge",
        "builtin": "quickstart",
        "max_in_flight": 32,
        "deadline_seconds": 600.0,
        "max_attempts": 6,
    }
    identity = identity_of(RATE, model={"builtin": "quickstart", "version": 1})
    rows, metrics = judged(judge_context(tmp_path, identity, endpoint, parents))
    assert [row["score"] for row in rows] == [9.0, 2.0]
    assert metrics["notes"][0].startswith("The judge is no model but rules of this package (builtin: quickstart)")


ALPACA = [
    question(f"a{number}", f"Do {number}.", baseline=f"theirs {number}", baseline_name="davinci", subset="koala")
    for number in range(12)
]


@pytest.fixture
def alpaca(tmp_path):
    """The fourth answer is the baseline's own, and the last is missing."""
    texts = {f"a{number}": f"mine {number}" for number in range(11)} | {"a3": "theirs 3", "a11": None}
    return {
        "questions": write_questions(tmp_path / "questions", ALPACA),
        "answers": write_answers(tmp_path / "answers_of", ALPACA, lambda name, turn: texts[name]),
    }


def probability(body):
    """That the first letter is A: 0.9 where the model's answer stands first, and 0.3 where it stands second."""
    first, _ = shown(body)
    return 0.9 if first.startswith("mine") else 0.3


def weighs(body):
    share = probability(body)
    alternatives = [
        {"token": "A", "logprob": math.log(share * 0.8)},
        {"token": "B", "logprob": math.log((1 - share) * 0.8)},
        {"token": "Both", "logprob": math.log(0.2)},
    ]
    reply = completion("A", finish_reason="length")
    reply["choices"][0]["logprobs"] = {"content": [{"token": "A", "logprob": -0.1, "top_logprobs": alternatives}]}
    return reply


def test_preferences_are_weighted_and_the_drawn_order_is_undone(tmp_path, alpaca):
    with FakeServer(weighs) as server:
        context = judge_context(tmp_path, identity_of(COMPARE, weighted=True), endpoint_of(server.url), alpaca)
        rows, metrics = judged(context)
        assert len(server.requests) == 10  # neither the baseline's own words nor the missing answer
        assert {(body["max_tokens"], body["top_logprobs"]) for body in server.requests} == {(1, 5)}
    orders = {row["id"]: row["model_is_first"] for row in rows}
    assert {tuple(order) for order in orders.values()} == {(True,), (False,), ()}
    for row in rows:
        expected = {"a3": 0.5, "a11": None}.get(row["id"], 0.9 if row["model_is_first"] == [True] else 0.7)
        assert row["score"] == (None if expected is None else pytest.approx(expected))
    known = [row["score"] for row in rows if row["score"] is not None]
    assert metrics["results"]["win rate"]["value"] == pytest.approx(100 * sum(known) / 11)
    assert next(iter(metrics["results"])) == "win rate" and (metrics["wins"], metrics["draws"]) == (10, 1)
    assert "length-adjusted win rate (not the published one)" in metrics["results"]
    assert metrics["without_score"] == {"no_answer": 1} and metrics["baseline"] == "davinci"
    outputs = json.loads((context.files_dir / "outputs.json").read_text())
    assert outputs[0] == {"dataset": "koala", "instruction": "Do 0.", "output": "mine 0", "generator": "sft"}
    assert len(outputs) == 11


def test_verdicts_serve_where_nothing_is_weighted(tmp_path, alpaca):
    with FakeServer(lambda body: "A" if probability(body) > 0.5 else "B") as server:
        rows, metrics = judged(judge_context(tmp_path, identity_of(COMPARE), endpoint_of(server.url), alpaca))
        assert all("logprobs" not in body for body in server.requests)
    assert [row["score"] for row in rows] == [0.5 if n == 3 else None if n == 11 else 1.0 for n in range(12)]
    assert metrics["results"]["discrete win rate"]["value"] == pytest.approx(100 * 10.5 / 11)


@pytest.mark.parametrize("misbehave", [None, lambda body, times: error(400, "logprobs are not supported")])
def test_an_endpoint_without_probabilities_is_refused_after_one_call(tmp_path, alpaca, misbehave):
    with FakeServer(lambda body: "A", misbehave=misbehave) as server:
        context = judge_context(tmp_path, identity_of(COMPARE, weighted=True), endpoint_of(server.url), alpaca)
        with pytest.raises(UserError, match=r"evaluate\.alpaca_eval\.weighted: llm\.judge.*State weighted: false"):
            judged(context)
        assert len(server.requests) == 1


def test_a_question_without_a_baseline_is_refused(tmp_path, alpaca):
    write_questions(tmp_path / "other", [{**ALPACA[0], "baseline": None}])
    with FakeServer(weighs) as server, pytest.raises(UserError, match="question a0 has no output of a baseline"):
        parents = {**alpaca, "questions": tmp_path / "other"}
        judged(judge_context(tmp_path, identity_of(COMPARE), endpoint_of(server.url), parents))


def test_the_length_controlled_rate_needs_all_questions(tmp_path, alpaca):
    def files(number):
        difficulty, gamed = tmp_path / f"difficulty{number}.csv", tmp_path / f"gamed{number}.csv"
        difficulty.write_text(",instruction_difficulty\n" + "".join(f"{n},{n / 10}\n" for n in range(number)))
        header = "model,index,preference,std_delta_len,instruction_difficulty,not_gamed_baseline\n"
        gamed.write_text(header + "".join(f"g,{n},0.4,{n % 3 - 1},{n / 10},False\n" for n in range(number)))
        return {"difficulty": str(difficulty), "gamed": str(gamed)}

    terms = {"difficulty": {"content": "1"}, "gamed": {"content": "2"}}
    with FakeServer(weighs) as server:
        identity, endpoint = identity_of(COMPARE, weighted=True, terms=terms), endpoint_of(server.url)
        with pytest.raises(UserError, match="has 11 instructions, and there are 12 questions"):
            judged(judge_context(tmp_path, identity, endpoint, alpaca, **files(11)))
        assert server.requests == []
        _, metrics = judged(judge_context(tmp_path, identity, endpoint, alpaca, **files(12)))
    assert list(metrics["results"]) == ["length-controlled win rate", "win rate", "discrete win rate"]
    assert len(metrics["length_controlled_coefficients"]) == 3


def test_a_ceiling_holds_and_a_raised_one_goes_on_without_asking_again(tmp_path, parents):
    """Every call may take some 2,300 tokens; 18 are told."""
    with FakeServer(rates) as server:
        limited = endpoint_of(server.url, max_tokens_total=2300, max_in_flight=1)
        with pytest.raises(CeilingReached, match=r"llm\.judge: stopped at max_tokens_total"):
            judged(judge_context(tmp_path, identity_of(RATE), limited, parents))
        stopped = len(server.requests)
        assert 0 < stopped < 5
        rows, metrics = judged(judge_context(tmp_path, identity_of(RATE), endpoint_of(server.url), parents))
        assert len(server.requests) == 5
    assert [row["score"] for row in rows] == [9.0, 4.0, 7.0, 6.0, 5.0]
    assert metrics["spending"]["answered_from_store"] == stopped
