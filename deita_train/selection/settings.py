"""The selection methods: what each reads, which settings it has, and what is refused.

Recipes, planning, the commands and the stages all ask this module, so it imports nothing heavy. A method's code is
imported when rows are selected.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from deita_train.errors import UserError
from deita_train.scoring.evol_score import OverTurns

Score = Literal["evol", "complexity", "quality"]
# A score made of several numbers of each row: `weights`, for each number its `weight` and `order`, `scale`, `combine`.
WeightedScore = Mapping[str, Any]
Order = Literal["highest", "lowest", "middle"]
DIMENSIONS: tuple[Score, ...] = ("complexity", "quality")
# Numbers that a section of a recipe measures, by name, where the recipe has the section.
MEASURED_NUMBERS: Mapping[str, str] = {
    "perplexity": "perplexity",
    "ifd": "perplexity",
    "direct_score": "direct_score",
}
# Parts of a select stage's configuration that the method does not see.
_OF_THE_STAGE = frozenset(
    {"budget", "max_length", "cut_at_context", "only_trained_turns", "between", "whiten", "strata", "match"}
)
# What every other method has to beat, because they cost nothing.
REFERENCES = ("random", "longest_response")
# What `select.strata.by` says for k-means clusters in place of a column.
EMBEDDING_CLUSTERS = "embedding_clusters"


@dataclass(frozen=True)
class Method:
    """The rules of one selection method.

    Attributes:
        function: its code as `module.function` in `deita_train.selection`: `(candidates, budget) -> Trace`.
        settings: the fields of `select:` that only some methods have, in addition to those that follow from the rules
            below.
        later_settings: such fields that came after artefacts of the method were published: with its default, one is
            in no key.
        scores: "none", "required", "if_any" (used where the recipe has them), or "weighed" (required unless
            `quality_weight` is 0). A row without a required score is left out.
        score: the score that it ranks by; None follows `select.score`.
        weighted: whether `select.score` must be made of weighted numbers.
        embeddings: whether it reads them.
        target: whether it reads queries, `select.target`, embedded as the pool is.
        column: what it reads from the column that the user names; None for no column. A row without a value is left
            out.
        measured: the section of a recipe that can measure that column; None for none.
        measured_column: what the section calls the column; None for the method's own name.
        has_budget: whether it stops at a budget.
        prefixes: whether a smaller budget keeps the first rows of a larger one.
        expensive: whether an earlier selection with another budget is worth looking for.
        launch: whether it uses a GPU and several ranks, and continues an earlier selection; then the function also
            takes `earlier`, `device` and `group`.
    """

    function: str
    settings: tuple[str, ...] = ()
    later_settings: tuple[str, ...] = ()
    scores: Literal["none", "required", "if_any", "weighed"] = "none"
    score: Score | None = None
    weighted: bool = False
    embeddings: bool = False
    target: bool = False
    column: Literal["numbers", "numbers_below_one", "tags"] | None = None
    measured: str | None = None
    measured_column: str | None = None
    has_budget: bool = True
    prefixes: bool = True
    expensive: bool = False
    launch: bool = False

    @cached_property
    def reads(self) -> frozenset[str]:
        """All that has an effect: "scores", "embeddings", and fields of `select:`."""
        found = {*self.settings, *self.later_settings}
        if self.scores != "none":
            found |= {"scores", "score_turns", "only_trained_turns"} | ({"score"} if self.score is None else set())
        named = {
            "embeddings": self.embeddings,
            "target": self.target,
            "column": self.column is not None,
            "launch": self.launch,
        }
        return frozenset(found | {name for name, is_read in named.items() if is_read})


METHODS: dict[str, Method] = {
    "deita": Method(
        "repr_filter.deita.deita",
        settings=("threshold",),
        scores="required",
        embeddings=True,
        expensive=True,
        launch=True,
    ),
    "evol_score": Method("baselines.ranking.highest_score", scores="required", score="evol"),
    "complexity": Method("baselines.ranking.highest_score", scores="required", score="complexity"),
    "quality": Method("baselines.ranking.highest_score", scores="required", score="quality"),
    "weighted": Method("baselines.ranking.highest_score", scores="required", weighted=True),
    "random": Method("baselines.ranking.random", settings=("seed",)),
    "longest_response": Method("baselines.ranking.longest_response", later_settings=("unit",)),
    "longest_instruction": Method("baselines.ranking.longest_instruction"),
    "direct_score": Method(
        "baselines.ranking.by_number", later_settings=("order",), column="numbers", measured="direct_score"
    ),
    "perplexity": Method("baselines.ranking.by_number", settings=("order",), column="numbers", measured="perplexity"),
    "ifd": Method(
        "baselines.ranking.by_number", later_settings=("order",), column="numbers_below_one", measured="perplexity"
    ),
    "fit": Method(
        "baselines.fit.fit",
        settings=("among",),
        column="numbers",
        measured="perplexity",
        measured_column="perplexity",
    ),
    "instag": Method("baselines.tags.instag", column="tags", measured="instag", measured_column="tags"),
    "mig": Method(
        "baselines.tags.mig",
        settings=("label_similarity",),
        column="tags",
        scores="required",
        measured="instag",
        measured_column="tags",
    ),
    "k_center": Method("baselines.coverage.k_center", scores="if_any", embeddings=True, expensive=True),
    "kmeans": Method(
        "baselines.clusters.kmeans",
        settings=("clusters", "seed"),
        scores="required",
        embeddings=True,
        prefixes=False,
    ),
    "facility_location": Method(
        "baselines.coverage.facility_location",
        settings=("quality_weight",),
        scores="weighed",
        embeddings=True,
        expensive=True,
    ),
    "gist": Method(
        "baselines.gist.gist", settings=("distance_weight",), scores="required", embeddings=True, prefixes=False
    ),
    "target": Method("baselines.target.target", embeddings=True, target=True, expensive=True),
    "whole_pool": Method("baselines.ranking.whole_pool", has_budget=False),
}


@dataclass(frozen=True)
class SelectionSettings:
    """A method and its settings; a method ignores those that its rules do not name.

    Attributes:
        method: a name in `METHODS`.
        score: what is best, where a method ranks by scores and has no score of its own: one of the three, or weighted
            numbers.
        score_turns: whether a row's score is the "sum" (paper 2.5) or the "mean" over its turns.
        center: whether the pool's mean is subtracted from the embeddings first.
        seed: of the methods that draw at random.
        column: the column of numbers or tags.
        threshold: highest cosine similarity to a kept row, tau of the Repr Filter (paper 2.5).
        order: which numbers of the column come first.
        unit: what the length of a response is counted in.
        among: whether answers that fit are chosen for each instruction or in the whole pool.
        clusters: how many clusters k-means makes; None for the square root of half the rows.
        quality_weight: weight of the score in facility location, in [0, 1).
        distance_weight: weight of the smallest distance against the mean score in GIST, above 0.
        label_similarity: lowest similarity at which MIG joins two labels, in (0, 1].
    """

    method: str = "deita"
    score: Score | WeightedScore = "evol"
    score_turns: OverTurns = "sum"
    center: bool = False
    seed: int | None = None
    column: str | None = None
    threshold: float = 0.9
    order: Order = "highest"
    unit: Literal["characters", "tokens"] = "characters"
    among: Literal["instruction", "pool"] = "instruction"
    clusters: int | None = None
    quality_weight: float = 0.5
    distance_weight: float = 0.1
    label_similarity: float = 0.9

    def __post_init__(self) -> None:
        """Raise UserError for an unknown method."""
        if self.method not in METHODS:
            raise UserError(f"there is no selection method '{self.method}'; choose one of {', '.join(METHODS)}.")

    @classmethod
    def of_stage(cls, config: Mapping[str, Any]) -> "SelectionSettings":
        """The settings in the configuration of a stage `select`."""
        return cls(**{name: value for name, value in config.items() if name not in _OF_THE_STAGE})

    @cached_property
    def rules(self) -> Method:
        """The rules of the method with these settings."""
        return rules_of(self.method, self.quality_weight)

    @property
    def ranked_by(self) -> Score | WeightedScore:
        """The score that the method ranks by: its own, or `score`."""
        return self.rules.score or self.score


def rules_of(method: str, quality_weight: float) -> Method:
    """The rules of a known method: with a `quality_weight` of 0, weighed scores are not read."""
    rules = METHODS[method]
    if rules.scores != "weighed":
        return rules
    return replace(rules, scores="required" if quality_weight else "none")


def score_dimensions(score: Score | WeightedScore, there: Collection[str] = ()) -> tuple[Score, ...]:
    """The dimensions that a score is made of.

    Args:
        score: one of the three, or weighted numbers.
        there: the dimensions that are scored. Elsewhere a weighted `complexity` or `quality` is a column of the pool.
    """
    if isinstance(score, str):
        return DIMENSIONS if score == "evol" else (score,)
    return dimensions_among(score["weights"], there)


def dimensions_among(names: Collection[str], there: Collection[str]) -> tuple[Score, ...]:
    """The dimensions among the names of numbers; `evol` is made of both."""
    return tuple(name for name in DIMENSIONS if "evol" in names or (name in names and name in there))


def check_score(method: str, score: Score | WeightedScore) -> None:
    """Refuse a score that does not fit the method.

    Raises:
        UserError: the method ranks by weighted numbers and there are none, or it needs a score of at least 0.
    """
    if METHODS[method].weighted and isinstance(score, str):
        raise UserError(
            f"method {method} needs score: {{weights: {{NAME: 1.0, ...}}}}, the numbers to rank by and what each weighs"
        )
    if method == "mig" and not isinstance(score, str) and score["scale"] == "z":
        raise UserError(
            "method mig gives its labels scores, which may not be negative; state score.scale: rank or min_max"
        )


def check_budget(method: str, *, has_budget: bool, in_tokens: bool) -> None:
    """Refuse a budget that does not fit the method.

    Raises:
        UserError: there is a budget and the method has none, or the reverse; or tokens where budgets do not nest.
    """
    rules = METHODS[method]
    if rules.has_budget != has_budget:
        wanted = "needs budget:, the rows to keep" if rules.has_budget else "has no budget: leave it out"
        raise UserError(f"method {method} {wanted}")
    if in_tokens and not rules.prefixes:
        raise UserError(
            f"method {method} takes no budget of tokens: what it keeps first follows from the number of rows; state "
            "that, or a share"
        )


def check_compared(method: str, others: Sequence[str], columns: Mapping[str, str], *, in_tokens: bool) -> None:
    """Refuse methods that cannot be compared with the selection by `method`.

    Args:
        method: of the selection itself.
        others: the compared methods.
        columns: the column of each method that has one of its own.
        in_tokens: whether the budget counts tokens.

    Raises:
        UserError: `method` keeps everything or is among the others, one of these cannot meet the budget, or a column
            is named for a method that reads none.
    """
    if not METHODS[method].has_budget:
        raise UserError(f"select.method {method} keeps every row; compare a method that has a budget")
    if method in others:
        raise UserError(f"{method} is the method of the selection itself; leave it out")
    without_tokens = [name for name in others if in_tokens and not METHODS[name].prefixes]
    if without_tokens:
        name = without_tokens[0]
        raise UserError(f"{name} takes no budget of tokens; state a number of rows or a share, or leave {name} out")
    for name in columns:
        if name not in others or METHODS[name].column is None:
            why = "is not compared" if name not in others else "reads no column"
            raise UserError(f"columns.{name}: {name} {why}; leave it out")


def check_match(*, in_tokens: bool) -> None:
    """Refuse to match tokens where the budget counts tokens already.

    Raises:
        UserError: it does.
    """
    if in_tokens:
        raise UserError("match: tokens would have no effect beside a select.budget of tokens; leave it out")


def check_shared_column(column: str | None, methods: Sequence[str]) -> None:
    """Refuse methods that would read different things from one column: nothing else would notice.

    Args:
        column: `select.column`.
        methods: those that would read it, if they read a column.

    Raises:
        UserError: they read both tags and numbers, or numbers of more than one method.
    """
    readers = [name for name in methods if METHODS[name].column is not None]
    meanings = {"tags" if METHODS[name].column == "tags" else name for name in readers}
    if column is not None and len(meanings) > 1:
        raise UserError(
            f"{' and '.join(readers)} would all read select.column {column}; name the column of each compared method "
            f"by compare.columns, such as compare.columns.{readers[-1]}: NAME"
        )
