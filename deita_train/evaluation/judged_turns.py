"""Judging of answers turn by turn, as MT-Bench does [arXiv 2306.05685]: ratings, or pairs with a baseline."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from deita_train.errors import UserError
from deita_train.evaluation.judge_calls import ORDERS
from deita_train.evaluation.judge_prompts import PAIR, RATE, REFERENCE_CATEGORIES, JudgedTurn, JudgePrompts
from deita_train.evaluation.results import Result, Unit, mean_of_groups
from deita_train.evaluation.verdicts import Winner, read_rating, read_winner
from deita_train.evolve.reading import Unusable
from deita_train.llm.answers import Answer, Failure

NO_ANSWER, NO_BASELINE_ANSWER = "no_answer", "no_baseline_answer"
WON, TIED, LOST = 1.0, 0.5, 0.0

Answers = Mapping[tuple[str, int], str | None]
"""Answers by the id of the question and the turn, from 0."""


@dataclass(frozen=True)
class Question:
    """A question of one or more turns.

    Attributes:
        id: of the question.
        turns: what the user says.
        category: by which figures are split; None for none.
        references: a right answer for each turn, or None; empty where there are none.
    """

    id: str
    turns: tuple[str, ...]
    category: str | None
    references: tuple[str | None, ...]

    def reference(self, turn: int) -> str | None:
        """The right answer to a turn, where there is one."""
        return self.references[turn] if turn < len(self.references) else None


@dataclass(frozen=True)
class TurnToJudge:
    """A turn of a question with all answers up to it."""

    question: Question
    turn: int
    answers: tuple[str, ...]
    baseline: tuple[str, ...] | None

    @property
    def id(self) -> str:
        """Its own, as tables have it: turns count from 1."""
        return turn_id(self.question.id, self.turn)

    def shown(self, model_is_first: bool = True) -> list[JudgedTurn]:
        """What the judge sees."""
        return [
            JudgedTurn(self.question.turns[turn], self.question.reference(turn), self._pair(turn, model_is_first))
            for turn in range(self.turn + 1)
        ]

    def _pair(self, turn: int, model_is_first: bool) -> tuple[str, ...]:
        if self.baseline is None:
            return (self.answers[turn],)
        pair = (self.answers[turn], self.baseline[turn])
        return pair if model_is_first else pair[::-1]


@dataclass(frozen=True)
class Score:
    """What became of a turn.

    Attributes:
        question: that it belongs to.
        turn: from 0.
        score: the rating, or 1, 0.5 and 0 for a pair that is won, tied and lost; None where there is none.
        reason: why there is none.
    """

    question: Question
    turn: int
    score: float | None
    reason: str | None

    @property
    def id(self) -> str:
        """Of the turn."""
        return turn_id(self.question.id, self.turn)


def turn_id(question_id: str, turn: int) -> str:
    """The id of a turn; `turn` counts from 0, and ids from 1."""
    return f"{question_id}/{turn + 1}"


def turns_to_judge(
    questions: Iterable[Question], answers: Answers, baseline: Answers | None
) -> Iterator[TurnToJudge | Score]:
    """Every turn of every question in order, or why it cannot be judged: an answer up to it is missing."""
    for question in questions:
        for turn in range(len(question.turns)):
            of_model = _up_to(question, turn, answers)
            of_baseline = None if baseline is None else _up_to(question, turn, baseline)
            if of_model is None:
                yield Score(question, turn, None, NO_ANSWER)
            elif baseline is not None and of_baseline is None:
                yield Score(question, turn, None, NO_BASELINE_ANSWER)
            else:
                yield TurnToJudge(question, turn, of_model, of_baseline)


def _up_to(question: Question, turn: int, answers: Answers) -> tuple[str, ...] | None:
    found = [answers[question.id, earlier] for earlier in range(turn + 1)]
    return None if None in found else tuple(answer for answer in found if answer is not None)


def check_questions(questions: Sequence[Question], prompts: JudgePrompts, *, references_needed: bool) -> None:
    """Refuse questions that these prompts cannot ask about.

    Args:
        questions: all of them.
        prompts: of the judge.
        references_needed: whether questions of math, reasoning and coding need reference answers, as in MT-Bench.

    Raises:
        UserError: a question has more turns than FastChat's prompts, or lacks its reference.
    """
    for question in questions:
        if prompts.fastchat and len(question.turns) > 2:
            raise UserError(
                f"question {question.id} has {len(question.turns)} turns, and FastChat's prompts know two. Leave "
                "prompts: out for the package's words."
            )
        known = [question.reference(turn) is not None for turn in range(len(question.turns))]
        if references_needed and question.category in REFERENCE_CATEGORIES and not all(known):
            raise UserError(
                f"question {question.id} ({question.category}) has no reference answer to turn "
                f"{known.index(False) + 1}, with which MT-Bench judges this category. State questions.references: with "
                "the file of reference answers."
            )


def rating_of(answer: Answer | Failure) -> float | Unusable:
    """The rating in a judge's answer."""
    return read_rating(answer)


def outcome_of(verdicts: Sequence[Winner | Unusable]) -> float | Unusable:
    """What both orders of a pair come to: a win only if both agree, else a tie.

    Args:
        verdicts: on the pair with the model's answer first, and with it second.
    """
    for verdict in verdicts:
        if isinstance(verdict, Unusable):
            return verdict
    found = [_for_model(verdict, is_first) for verdict, is_first in zip(verdicts, ORDERS, strict=True)]
    return found[0] if found[0] == found[1] else TIED


def _for_model(verdict: Winner | Unusable, model_is_first: bool) -> float:
    if verdict == "tie":
        return TIED
    return WON if (verdict == "first") == model_is_first else LOST


def pair_verdict(answer: Answer | Failure) -> Winner | Unusable:
    """Which of two answers the judge finds better."""
    return read_winner(answer)


def figures(scores: Sequence[Score], way: str, seed: int = 0) -> dict[str, Result]:
    """Overall, by turn, and by category; of pairs also the shares that are won, tied and lost.

    The overall figure is over all turns that have a score, as FastChat's; intervals are over questions.
    """
    unit: Unit = "score" if way == RATE else "share"
    judged = [score for score in scores if score.score is not None]
    if not judged:
        return {}
    found = {"overall" if way == RATE else "win rate, ties half": _figure(judged, unit, seed)}
    if way == PAIR:
        for name, value, better in (("won", WON, True), ("tied", TIED, None), ("lost", LOST, False)):
            shares = [Score(one.question, one.turn, float(one.score == value), None) for one in judged]
            found[name] = _figure(shares, "share", seed, better)
    turns = sorted({score.turn for score in judged})
    if len(turns) > 1:
        for turn in turns:
            found[f"turn {turn + 1}"] = _figure([one for one in judged if one.turn == turn], unit, seed)
    categories = dict.fromkeys(score.question.category for score in judged)
    if set(categories) != {None}:
        for category in categories:
            of_category = [one for one in judged if one.question.category == category]
            found[category or "no category"] = _figure(of_category, unit, seed)
    return found


def _figure(scores: Sequence[Score], unit: Unit, seed: int, higher_is_better: bool | None = True) -> Result:
    by_question: dict[str, list[float]] = {}
    for score in scores:
        assert score.score is not None
        by_question.setdefault(score.question.id, []).append(score.score)
    return mean_of_groups(list(by_question.values()), unit, seed, higher_is_better)
