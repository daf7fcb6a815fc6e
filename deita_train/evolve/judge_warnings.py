"""Warnings about a judge, by name, each with its figures and what to do."""

from dataclasses import dataclass

from deita_train.evolve.agreement import Agreement, Monotonicity, PlaceEffect
from deita_train.number_text import count, decimals, share

LEAST_NET_RISE = 0.1
"""The share of steps that rise less the share that fall: below it, scores hardly rise along the chains."""
LEAST_CORRELATION = 0.2
"""Mean rank correlation of two orders of the same versions: below it, they hardly agree."""
LARGEST_PLACE_EFFECT = 0.3
"""Mean correlation of a score and its place in the list: from it on, the place decides too much."""
ERRORS = 3.0
"""A measure within so many standard errors of its value by chance is not told from chance."""

GUESSING, FALLING = "judge_is_guessing", "scores_fall_along_chains"
DISAGREEING, PLACE = "orders_do_not_agree", "scores_follow_the_order"


@dataclass(frozen=True)
class JudgeWarning:
    """A warning.

    Attributes:
        name: by which it is known, such as "judge_is_guessing".
        text: what was measured, and what to do.
    """

    name: str
    text: str


def judge_warnings(
    moves: Monotonicity | None, orders: Agreement | None, place: PlaceEffect | None
) -> list[JudgeWarning]:
    """What is suspicious about a judge; nothing about a measure that there is not."""
    found = [_of_chains(moves), _of_orders(orders), _of_place(place)]
    return [warning for warning in found if warning is not None]


def _of_chains(moves: Monotonicity | None) -> JudgeWarning | None:
    if moves is None:
        return None
    figures = (
        f"from one version of a chain to the next the score does not fall in {share(moves.share_not_falling)} of "
        f"{count(moves.steps)} steps, and by chance in {share(moves.chance_not_falling)}"
    )
    if -moves.net_rise >= _least(LEAST_NET_RISE, moves.net_rise_error):
        text = (
            f"{figures}: the scale may be upside down, or the operations make the texts worse. Read the example chains."
        )
        return JudgeWarning(FALLING, text)
    if moves.net_rise < _least(LEAST_NET_RISE, moves.net_rise_error):
        text = f"{figures}: these scores are hardly better than drawn ones, or too few to tell. {_ADVICE}"
        return JudgeWarning(GUESSING, text)
    return None


_ADVICE = (
    "Read the example chains, use a stronger model or a clearer prompt, and do not train a scorer on these labels."
)


def _of_orders(orders: Agreement | None) -> JudgeWarning | None:
    if orders is None or orders.correlation >= _least(LEAST_CORRELATION, orders.correlation_error):
        return None
    return JudgeWarning(
        DISAGREEING,
        f"rankings of the same versions in several orders agree with Kendall's W {decimals(orders.kendalls_w, 2)}, and "
        f"by chance with {decimals(orders.chance, 2)}, over {count(orders.seeds)} seeds. {_ADVICE}",
    )


def _of_place(place: PlaceEffect | None) -> JudgeWarning | None:
    if place is None or abs(place.correlation) < _least(LARGEST_PLACE_EFFECT, place.correlation_error):
        return None
    end = "later" if place.correlation > 0 else "earlier"
    return JudgeWarning(
        PLACE,
        f"versions that are listed {end} get higher scores (mean correlation of score and place "
        f"{decimals(place.correlation, 2)}). Average over several orders, or use a stronger model.",
    )


def _least(stated: float, error: float) -> float:
    return max(stated, ERRORS * error)
