"""What the stages of `evaluate:` ask of chat models, with tokens and cost, as far as a plan knows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from deita_train.evaluation.judge_calls import Calls, calls_of_answers, calls_of_judge
from deita_train.evaluation.judge_prompts import COMPARE
from deita_train.llm.endpoint import Price
from deita_train.number_text import plural
from deita_train.plan.node import Node
from deita_train.plan.plan import PlannedStage
from deita_train.plan.planned_questions import Rows, planned_questions

# MT-Bench and AlpacaEval as published, where the plan does not read their questions.
_PUBLISHED_TURNS = {"mt_bench": "2 turns of 80 questions, if all of MT-Bench's are asked", "alpaca_eval": (
    "805 questions, if all of AlpacaEval's are asked"
)}  # fmt: skip


@dataclass
class _Benchmark:
    """The stages that ask one chat model for one benchmark, a stage for each model that is measured."""

    name: str
    nodes: list[Node] = field(default_factory=list)


def asked_lines(stages: Sequence[PlannedStage]) -> Iterator[str]:
    """A line for each benchmark and chat model that is still to be asked."""
    benchmarks: dict[tuple[str, str], _Benchmark] = {}
    for stage in stages:
        node = stage.node
        if stage.status != "done" and node.kind in ("generate", "judge") and "endpoint" in node.runtime:
            name = node.label.rpartition(".")[0]
            key = name, node.runtime["endpoint"]["name"]
            benchmarks.setdefault(key, _Benchmark(name)).nodes.append(node)
    nodes = {
        node.parents["questions"].key: node.parents["questions"] for of in benchmarks.values() for node in of.nodes
    }
    read = {key: planned_questions(node) for key, node in nodes.items()}
    for benchmark in benchmarks.values():
        yield _line(benchmark, [read[node.parents["questions"].key] for node in benchmark.nodes])


def _line(benchmark: _Benchmark, questions: Sequence[Rows | None]) -> str:
    """Of a benchmark's stages, each with its questions."""
    first = benchmark.nodes[0]
    endpoint = f"llm.{first.runtime['endpoint']['name']}"
    number = len(benchmark.nodes)
    models = f" for {plural(number, 'model')}" if number > 1 else ""
    asked = [_calls(node, rows) for node, rows in zip(benchmark.nodes, questions, strict=True) if rows is not None]
    if len(asked) < number:
        return f"{benchmark.name}{models}: {_unread(first, endpoint)}"
    calls, most = sum(one.calls for one in asked), sum(one.most_calls for one in asked)
    more = f", {most:,} at most" if most > calls else ""
    return f"{benchmark.name}{models}: {calls:,} calls to {endpoint}{more}; {_tokens(first, asked)}"


def _unread(node: Node, endpoint: str) -> str:
    """Where the questions are not read here."""
    judged = node.kind == "judge"
    each = "question" if judged and node.identity["way"] == COMPARE else "turn of each question"
    published = _PUBLISHED_TURNS.get(node.identity["benchmark"], "") if judged else ""
    number = f" ({published})" if published else ""
    return (
        f"calls to {endpoint} for each {each}{number}; `deita-train validate` reads the questions, and says how many "
        "tokens they have and what they cost"
    )


def _calls(node: Node, questions: Rows) -> Calls:
    if node.kind == "generate":
        return calls_of_answers(questions, node.identity["max_new_tokens"])
    return calls_of_judge(node.identity, questions, node.parents["answers"].identity["max_new_tokens"])


def _tokens(node: Node, asked: Sequence[Calls]) -> str:
    """Tokens and cost of what is asked, if everything is as long as it may be."""
    endpoint = node.runtime["endpoint"]
    if "builtin" in endpoint:
        return "rules of this package, which cost nothing"
    prompts, answers = sum(one.prompt_tokens for one in asked), sum(one.answer_tokens for one in asked)
    text = f"about {prompts:,} tokens of prompts, by their characters, and at most {answers:,} of answers"
    if "base_url" not in endpoint:
        return f"{text}; a local model, which costs time alone"
    price = endpoint.get("price")
    if price is None:
        return f"{text}; at what cost is not known without llm.{endpoint['name']}.price"
    readable = ", if every verdict can be read" if node.kind == "judge" else ""
    return f"{text}: at most about {Price(**price).of(prompts, answers):,.2f}{readable}"
