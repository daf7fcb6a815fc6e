"""The benchmarks of `evaluate:` in which a chat model judges: `judged`, `mt_bench` and `alpaca_eval`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from deita_train.errors import UserError
from deita_train.evaluation.judge_prompts import COMPARE, PAIR, RATE, JudgePrompts, fastchat_prompts, own_prompts
from deita_train.plan.chat_templates import ChatTemplate
from deita_train.plan.node import Node
from deita_train.plan.sections.answers import add_generate, add_questions
from deita_train.plan.sections.builder import Builder, Model
from deita_train.plan.sections.chat_models import chat_model
from deita_train.recipe.evaluation_sections import AlpacaEval, Evaluate, Judged

Benchmark = Literal["judged", "mt_bench", "alpaca_eval"]


def add_judged(
    builder: Builder, evaluate: Evaluate, models: Mapping[str, Model], template: ChatTemplate | None
) -> None:
    """Add the questions, each model's answers and their judging, of every benchmark that the section states."""
    if evaluate.judged is not None:
        _add_turns(builder, evaluate, "judged", evaluate.judged, models, template)
    if evaluate.mt_bench is not None:
        _add_turns(builder, evaluate, "mt_bench", evaluate.mt_bench, models, template)
    if evaluate.alpaca_eval is not None:
        _add_comparisons(builder, evaluate, evaluate.alpaca_eval, models, template)


def _add_turns(
    builder: Builder,
    evaluate: Evaluate,
    benchmark: Literal["judged", "mt_bench"],
    section: Judged,
    models: Mapping[str, Model],
    template: ChatTemplate | None,
) -> None:
    """Ratings of every model's answers, or pairs of every other model with the baseline."""
    where, way = f"evaluate.{benchmark}", RATE if section.baseline is None else PAIR
    if section.baseline is not None and (section.baseline not in models or len(models) < 2):
        raise builder.inputs.error(
            f"{where}.baseline",
            f"{section.baseline} is compared with the other models that answer, and those are {', '.join(models)}.",
        )
    judge, runtime = chat_model(builder, section.judge, f"{where}.judge", where)
    prompts = _prompts(builder, way, section, where, fastchat_prompts)
    identity = {
        **judge,
        "benchmark": benchmark,
        "way": way,
        "prompts": prompts.identity(),
        "ask_again": section.ask_again,
        "seed": builder.recipe.seed,
    }
    questions, answers = _answers(builder, evaluate, benchmark, section, models, template)
    for name, node in answers.items():
        if name != section.baseline:
            compared = {} if section.baseline is None else {"baseline": answers[section.baseline]}
            named = {"answers_of": name, "baseline": section.baseline}
            parents = {"questions": questions, "answers": node, **compared}
            builder.add(Node(f"{benchmark}.{name}", "judge", {**identity, **named}, runtime, parents))


def _add_comparisons(
    builder: Builder,
    evaluate: Evaluate,
    section: AlpacaEval,
    models: Mapping[str, Model],
    template: ChatTemplate | None,
) -> None:
    """Every model's answers against those in AlpacaEval's file."""
    where = "evaluate.alpaca_eval"
    judge, runtime = chat_model(builder, section.judge, f"{where}.judge", where)
    if section.weighted and "base_url" not in runtime["endpoint"]:
        raise builder.inputs.error(
            f"{where}.weighted",
            f"weights by the probabilities of the judge's tokens, which llm.{section.judge} does not give: only "
            "servers do. State weighted: false.",
        )
    terms, files = _published_files(builder, section, where)
    identity = {
        **judge,
        "benchmark": "alpaca_eval",
        "way": COMPARE,
        "prompts": _prompts(builder, COMPARE, section, where, own_prompts).identity(),
        "weighted": section.weighted,
        "terms": terms,
        "ask_again": section.ask_again,
        "seed": builder.recipe.seed,
    }
    questions, answers = _answers(builder, evaluate, "alpaca_eval", section, models, template)
    for name, node in answers.items():
        parents = {"questions": questions, "answers": node}
        named = {**identity, "answers_of": name}
        builder.add(Node(f"alpaca_eval.{name}", "judge", named, {**runtime, **files}, parents))


def _answers(
    builder: Builder,
    evaluate: Evaluate,
    benchmark: Benchmark,
    section: Judged | AlpacaEval,
    models: Mapping[str, Model],
    template: ChatTemplate | None,
) -> tuple[Node, dict[str, Node]]:
    """The questions of a benchmark, and the answers of each model."""
    questions = add_questions(builder, f"questions.{benchmark}", section.questions, f"evaluate.{benchmark}.questions")
    answers = {
        name: add_generate(builder, f"generate.{benchmark}.{name}", evaluate, questions, model, template, section)
        for name, model in models.items()
    }
    return questions, answers


def _prompts(
    builder: Builder,
    way: str,
    section: Judged | AlpacaEval,
    where: str,
    read: Callable[[str, Path], JudgePrompts],
) -> JudgePrompts:
    """The judge's prompts: the package's words, or what `read` finds in the file or folder that the section names."""
    if section.prompts is None:
        return own_prompts(way)
    _refuse_prompts_of_rules(builder, section.judge, where)
    try:
        return read(way, Path(section.prompts).expanduser())
    except UserError as error:
        raise builder.inputs.error(where, str(error)) from error


def _refuse_prompts_of_rules(builder: Builder, judge: str, where: str) -> None:
    """The rules of a built-in judge read the package's own words alone."""
    rules = (builder.recipe.llm or {})[judge].builtin
    if rules is not None:
        raise builder.inputs.error(
            f"{where}.prompts",
            f"llm.{judge} has the rules of builtin: {rules}, which read only the package's words. Leave prompts: out.",
        )


def _published_files(builder: Builder, section: AlpacaEval, where: str) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """Identity and locations of the two files of the length-controlled win rate."""
    if section.difficulty is None or section.gamed is None:
        return None, {}
    difficulty, difficulty_path = builder.inputs.file(section.difficulty, f"{where}.difficulty")
    gamed, gamed_path = builder.inputs.file(section.gamed, f"{where}.gamed")
    return {"difficulty": difficulty, "gamed": gamed}, {"difficulty": difficulty_path, "gamed": gamed_path}
