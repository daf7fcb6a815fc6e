"""Dialogues and what is said of answers, on replies made up here."""

import pytest

from deita_train.evaluation.answer_facts import answer_facts, repeated_share
from deita_train.evaluation.dialogues import EARLIER_TURN, Reply, drawing_seed, hold_dialogues
from deita_train.evaluation.temperatures import MT_BENCH_TEMPERATURES, temperature_of


def question(name, *turns, system=None, category=None):
    return {"id": name, "turns": list(turns), "system": system, "category": category}


def test_turns_are_asked_together_each_after_the_models_answers():
    rounds = []

    def answer(turn, asked):
        rounds.append((turn, [one.id for one in asked]))
        return [
            Reply(None, reason="no") if one.id == "b" and turn == 1 else Reply(f"<{one.messages[-1]['content']}>")
            for one in asked
        ]

    questions = [question("a", "1"), question("b", "1", "2", "3"), question("c", "1", "2", system="S", category="x")]
    replies = hold_dialogues(questions, answer)
    assert rounds == [(0, ["a", "b", "c"]), (1, ["b", "c"]), (2, [])]
    assert [[reply.text for reply in of_question] for of_question in replies] == [
        ["<1>"], ["<1>", None, None], ["<1>", "<2>"],
    ]  # fmt: skip
    assert [reply.reason for reply in replies[1]] == [None, "no", EARLIER_TURN]


def test_a_turn_holds_all_that_was_said():
    seen = []

    def answer(turn, asked):
        seen.extend(asked)
        return [Reply("A", 1, ended=True) for _ in asked]

    hold_dialogues([question("c", "1", "2", system="S", category="x")], answer)
    said = [("system", "S"), ("user", "1"), ("assistant", "A"), ("user", "2")]
    assert [(message["role"], message["content"]) for message in seen[1].messages] == said
    assert (seen[1].id, seen[1].turn, seen[1].category) == ("c", 1, "x")


def test_no_questions():
    assert hold_dialogues([], lambda turn, asked: pytest.fail("nothing to ask")) == []


def test_seeds_differ_by_seed_question_and_turn():
    seeds = {drawing_seed(seed, name, turn) for seed in (1, 2) for name in ("a", "b") for turn in (0, 1)}
    assert len(seeds) == 8 and all(0 <= seed < 2**56 for seed in seeds)
    assert drawing_seed(1, "a", 0) == drawing_seed(1, "a", 0)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", None),
        ("one two three", None),
        ("one two three four", 0.0),
        ("a b c d a b c d", 1 - 4 / 5),  # abcd bcda cdab dabc abcd
        ("no No no no no no", 1 - 1 / 3),
        ("the same  words\nthe same words", 0.0),  # the three 4-grams differ
    ],
)
def test_the_share_of_repeated_4_grams(text, share):
    assert repeated_share(text) == (None if share is None else pytest.approx(share))


def test_the_facts_of_answers():
    replies = [
        Reply("a b c d a b c d", 8, ended=True), Reply("", 0, ended=True), Reply("x", 4), Reply(None, reason="late"),
        Reply(None, reason="late"),
    ]  # fmt: skip
    assert answer_facts(replies) == {
        "asked": 5,
        "answers": 3,
        "unanswered": {"late": 2},
        "empty_share": pytest.approx(1 / 3),
        "truncated_share": pytest.approx(1 / 3),
        "mean_tokens": 4.0,
        "seq_rep_4": pytest.approx(0.2),
    }
    none = answer_facts([Reply(None, reason="late")])
    assert none["answers"] == 0 and none["empty_share"] is None and none["seq_rep_4"] is None


def test_temperatures_are_those_of_mt_bench():
    """As section B of the paper's code has them: FastChat's temperature_config."""
    assert MT_BENCH_TEMPERATURES == {
        "writing": 0.7, "roleplay": 0.7, "extraction": 0.0, "math": 0.0, "coding": 0.0, "reasoning": 0.0, "stem": 0.1,
        "humanities": 0.1,
    }  # fmt: skip
    assert [temperature_of(MT_BENCH_TEMPERATURES, name) for name in ("writing", "math", "cooking", None)] == [
        0.7,
        0,
        0,
        0,
    ]
    assert temperature_of(0.3, "math") == 0.3
