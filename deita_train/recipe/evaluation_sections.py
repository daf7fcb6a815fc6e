"""Section `evaluate:`: what the models of a run are measured by."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from deita_train.recipe.data_sections import Count, Origin, Preferences, Section, Seed, Source
from deita_train.recipe.llm_sections import Temperature
from deita_train.recipe.model_sections import Pass, RenderedLikeSft

# As many as `data/everyday.py` has.
EVERYDAY_QUESTIONS = 8
TunedOrBase = Literal["base", "sft", "dpo"]
# The sections of `evaluate:` that have questions of their own, and so can be found in the data.
QUESTION_SETS = ("mt_bench", "alpaca_eval", "judged")


class QuestionSet(Origin):
    """Questions of one or more turns: MT-Bench's and AlpacaEval's files, conversations, or plain prompts."""

    builtin: Literal["everyday", "quickstart_questions"] | None = None
    """`everyday`: a few general questions of this package; `quickstart_questions`: generated tasks with answers."""
    rows: Count | None = None
    """With `builtin`, which needs it, the number of questions, of `everyday` at most 8; else that many of the dataset's
    are drawn."""
    seed: Seed | None = None
    """Seed of the generated questions, or of the draw; the recipe's `seed` by default."""
    references: str | None = None
    """A file of reference answers in FastChat's form, beside its file of questions."""

    @property
    def is_drawn(self) -> bool:
        """Whether only some of the usable questions are taken, drawn by a seed."""
        return self.builtin is None and self.rows is not None

    @property
    def draw(self) -> dict[str, int | float]:
        """How many are drawn; empty if all are taken."""
        return {"rows": self.rows} if self.is_drawn and self.rows is not None else {}

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        self.check_origin(of_dataset=("rows",))
        if self.references is not None and self.dataset is None:
            raise ValueError("references: belong to a dataset:, which has the questions")
        if self.sample is not None and not self.streaming:
            raise ValueError("sample would have no effect without streaming: true; rows: draws that many questions")
        if self.builtin == "everyday" and self.rows is not None and self.rows > EVERYDAY_QUESTIONS:
            raise ValueError(f"rows: {self.rows} is more than the {EVERYDAY_QUESTIONS} questions of everyday")
        if self.builtin == "everyday" and self.seed is not None:
            raise ValueError("seed would have no effect on everyday, which is the same questions each time")
        return self


class Answers(Section):
    """What each model says, side by side in the report."""

    questions: QuestionSet | None = None
    """By default the `everyday` questions of this package."""
    max_new_tokens: Count = 256
    """Most tokens of an answer."""
    temperature: Temperature = 0.0
    """0 takes the likeliest token each time; above, answers are drawn by the seed."""


class Judged(Section):
    """Answers to questions of one's own, rated by a chat model, each turn alone from 1 to 10 as in MT-Bench."""

    questions: QuestionSet
    """The questions; of several turns, each is asked after the answer to the one before it."""
    judge: str
    """The endpoint under `llm:` that rates."""
    prompts: str | None = None
    """Judge prompts in FastChat's form (`judge_prompts.jsonl`), for figures comparable with published ones; by default
    the package's own words."""
    baseline: TunedOrBase | None = None
    """A model of this run to compare with in pairs, in both orders, in place of ratings."""
    ask_again: Annotated[int, Field(ge=0, le=10)] = 2
    """How often a verdict that cannot be read is asked again."""
    max_new_tokens: Count = 1024
    """Most tokens of an answer of the model."""
    temperature: Temperature | None = None
    """Of the model's answers; by default MT-Bench's of the question's category, and 0 for a question without one."""


class MtBench(Judged):
    """MT-Bench [arXiv 2306.05685]: 80 questions of two turns, rated by a chat model from 1 to 10."""


class AlpacaEval(Section):
    """AlpacaEval: answers compared with a baseline's by a chat model [arXiv 2404.04475 for the length-controlled]."""

    questions: QuestionSet
    """AlpacaEval's file: instructions, each with the baseline's `output`."""
    judge: str
    """The endpoint under `llm:` that compares."""
    prompts: str | None = None
    """A folder with `compare.jinja`, and `system.jinja` where the judge gets a system message, in place of the
    package's words. The judge answers with A (or m) for the first answer, B (or M) for the second."""
    weighted: bool = True
    """Weights the preference by the probabilities of the judge's token (AlpacaEval 2); else by its verdict."""
    difficulty: str | None = None
    """The published `instruction_difficulty.csv`, for the length-controlled win rate; needs `gamed`."""
    gamed: str | None = None
    """The published `df_gamed.csv`; needs `difficulty`."""
    ask_again: Annotated[int, Field(ge=0, le=10)] = 2
    """How often a verdict that cannot be read is asked again."""
    max_new_tokens: Count = 2048
    """Most tokens of an answer of the model."""
    temperature: Temperature = 0.0
    """Of the model's answers."""

    @model_validator(mode="after")
    def _both_files(self) -> Self:
        if (self.difficulty is None) != (self.gamed is None):
            raise ValueError("difficulty: and gamed: are used together; state both files, or neither")
        return self


OPEN_LLM_V1 = "open_llm_v1"


class LmEval(Section):
    """Tasks of lm-evaluation-harness (extra `eval`), the Open LLM Leaderboard's among them."""

    tasks: Annotated[list[str], Field(min_length=1)]
    """Names of tasks, groups or tags. Two are of this package: `open_llm_v1`, the paper's four tasks with their shots,
    and their mean; `quickstart_choice`, generated questions."""
    include: str | Annotated[list[str], Field(min_length=1)] | None = None
    """A folder with task files of one's own, or a list of folders; they count by their content, and so do the local
    data files that they name."""
    data: dict[str, str] | None = None
    """Local folders in place of datasets of the Hub, by the dataset's name: copies of their repositories."""
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    """Examples before each question; by default each task's own number. A task that states 0 keeps it."""
    limit: Count | None = None
    """Measures only the first so many questions of each task; for trials."""
    chat_template: bool = False
    """Asks through the chat template, each example as a turn of its own; the two ways are different measurements."""
    batch_size: Count = 8
    """Questions that are asked together. Part of the key: log-likelihoods depend in their last bits on the batch."""
    seed: Seed | None = None
    """Decides which examples a task draws; the recipe's `seed` by default. The harness's own is 1234."""
    optional: bool = False
    """Leaves the tasks out, and says so, where the extra `eval` is not installed."""

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks: {', '.join(self.tasks)}: name each once")
        if OPEN_LLM_V1 in self.tasks and self.num_fewshot is not None:
            raise ValueError(f"{OPEN_LLM_V1} has the shots of the leaderboard; leave num_fewshot: out")
        return self

    @property
    def folders(self) -> list[str]:
        """The folders with task files, as a list."""
        return [self.include] if isinstance(self.include, str) else list(self.include or ())


class Evaluate(Pass, RenderedLikeSft):
    """Evaluation of the base and of every tuned model, or of `model`."""

    heldout: Source | None = None
    """Conversations, for the loss per assistant token."""
    preferences: Preferences | None = None
    """Pairs, for how often the chosen answer is the likelier one, and by how much."""
    lm_eval: LmEval | None = None
    """Tasks of lm-evaluation-harness."""
    answers: Answers | None = None
    """Answers to read, side by side."""
    judged: Judged | None = None
    """Questions of one's own, with a chat model as the judge."""
    mt_bench: MtBench | None = None
    """MT-Bench."""
    alpaca_eval: AlpacaEval | None = None
    """AlpacaEval."""
    contamination: bool | None = None
    """Looks for the benchmarks' questions in the pool, the selected rows, what is trained on and the held-out rows; by
    default wherever there is a benchmark (docs/evaluation.md)."""
    llm: str | None = None
    """An endpoint under `llm:` that answers `answers`, `judged`, `mt_bench` and `alpaca_eval` in place of a model of
    this recipe: a model that is served elsewhere. It is called `served`."""
    models: Annotated[list[TunedOrBase], Field(min_length=1)] | None = None
    """The models that answer and that lm_eval measures; all of the recipe by default."""
    model: str | None = None
    """The model to evaluate, in a recipe without `sft` and `dpo`: a folder, a Hub id, or `base`."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model. Without it, the commit of the first start is kept for the run."""
    max_length: Count = 2048
    """Tokens at which a conversation or a pair is cut; without it, also at the model's context."""
    samples: Annotated[int, Field(ge=0)] | None = None
    """Held-out prompts that each model answers, for the report and the log; by default 3 where there is `heldout`."""

    @model_validator(mode="after")
    def _something_to_measure(self) -> Self:
        measures = ("heldout", "preferences", "lm_eval", "answers", "judged", "mt_bench", "alpaca_eval")
        if all(getattr(self, name) is None for name in measures):
            raise ValueError(f"state one or more of {', '.join(f'{name}:' for name in measures)}")
        if self.contamination is not None and all(getattr(self, name) is None for name in (*QUESTION_SETS, "lm_eval")):
            raise ValueError("contamination: would have no effect without a benchmark, whose questions are looked for")
        if self.llm is not None:
            self._only_what_is_asked()
        if self.samples and self.heldout is None:
            raise ValueError("samples: are answers to the prompts of heldout:; state it, or leave samples: out")
        if self.models is not None and all(getattr(self, name) is None for name in measures[2:]):
            raise ValueError(f"models: have no effect without one of {', '.join(f'{name}:' for name in measures[2:])}")
        if self.models is not None and len(set(self.models)) < len(self.models):
            raise ValueError(f"models: {', '.join(self.models)}: name each once")
        return self

    def _only_what_is_asked(self) -> None:
        """Refuse what an endpoint cannot give, such as losses, and fields that only a model of the recipe reads."""
        others = sorted(self.model_fields_set - _ASKED_OF_AN_ENDPOINT - {"contamination"})
        if others:
            raise ValueError(
                f"{', '.join(others)} beside llm:, of which only answers are known; an endpoint can be asked for "
                f"{', '.join(sorted(_ASKED_OF_AN_ENDPOINT - {'llm'}))}. Leave the others out"
            )


_ASKED_OF_AN_ENDPOINT = frozenset({"llm", "answers", "judged", "mt_bench", "alpaca_eval"})
