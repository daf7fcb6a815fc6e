"""Seeds to rows, as the stages do it, with models made in code."""

import re

import pytest
from judged import answered

from deita_train.data.source_row import SourceRow
from deita_train.evolve.chains import Seed, first_version, next_request, next_version
from deita_train.evolve.label_rows import label_rows
from deita_train.evolve.operations import OPERATIONS, operation_of, order_of
from deita_train.evolve.prompts import read_prompts
from deita_train.evolve.ranking import good_versions, is_settled, judge_ranking, ranking_request
from deita_train.evolve.summary import chain_examples, evolve_summary, rank_summary
from deita_train.llm.answers import Failure
from deita_train.scoring.training_pairs import read_examples

FENCED = re.compile(r"^(=+)\n(.*?)\n\1$", re.DOTALL | re.MULTILINE)
EVOLUTIONS, ORDERS, ASKED_AGAIN = 5, 3, 2


def evolving_model(request):
    """Adds two words to the text, the last one in the prompt; fails in several ways at some lengths."""
    text = FENCED.findall(request.messages[0]["content"])[-1][1]
    words = len(text.split())
    if words % 7 == 0 and request.attempt == 0:
        return answered("I'm sorry, but I can't help with that.")
    if words % 11 == 0 and request.attempt == 0:
        return Failure("deadline", "")
    return answered(f"Sure!\n<evolved>{text} and more</evolved>")


def knowing_judge(request):
    """Scores by the rank of the length, in prose around JSON; at first now and then out of range."""
    listed = [text for _, text in FENCED.findall(request.messages[0]["content"])][-request_count(request) :]
    lengths = [len(text.split()) for text in listed]
    if sum(lengths) % 3 == 0 and request.attempt == 0:
        return answered("1: 9")
    ranks = [1 + sum(other < length for other in lengths) for length in lengths]
    entries = ", ".join(f'"{number}": {rank}' for number, rank in enumerate(ranks, 1))
    return answered(f"Here are the scores:\n```json\n{{{entries}}}\n```")


def request_count(request):
    return len(re.findall(r"^\[\d+\]$", request.messages[0]["content"], re.MULTILINE))


def evolved(prompts, seeds, dimension):
    chains = {}
    for seed in seeds:
        chain = [first_version(seed, dimension)]
        for step in range(1, EVOLUTIONS + 1):
            operation = operation_of(seed.id, step, OPERATIONS[dimension], 42)
            request = next_request(prompts, chain, operation, temperature=0.0, max_tokens=100)
            chain.append(next_version(prompts, chain, operation, evolving_model(request), 4000))
        chains[seed.id] = chain
    return chains


def ranked(prompts, chains):
    rankings = []
    for seed_id, chain in chains.items():
        versions = good_versions(chain)
        for round in range(ORDERS):
            for attempt in range(1 + ASKED_AGAIN):
                order = order_of(seed_id, round, len(versions), 42, attempt)
                answer = knowing_judge(ranking_request(prompts, versions, order, attempt=attempt))
                rankings.append(judge_ranking(answer, order, seed_id=seed_id, round=round, attempt=attempt))
                if is_settled(rankings[-1]):
                    break
    return rankings


@pytest.mark.parametrize("dimension", ["complexity", "quality"])
def test_from_seeds_to_rows(dimension):
    prompts = read_prompts(dimension, None)
    seeds = [Seed(f"row-{n}", f"Ask {'so ' * (n % 9)}much", f"Say {'so ' * (n % 9)}much") for n in range(40)]
    chains = evolved(prompts, seeds, dimension)
    rankings = ranked(prompts, chains)
    labels = {
        seed.id: label_rows(chains[seed.id], [r for r in rankings if r.seed_id == seed.id], dimension) for seed in seeds
    }

    found = evolve_summary(chains.values())
    assert found["evolutions"] == 200 == found["kept"] + sum(found["drops"].values())
    assert set(found["drops"]) == {"refusal", "failed_deadline"}
    rows = [row for of_seed in labels.values() for row in of_seed.rows]
    assert len(rows) == found["kept"] + len(seeds) and not any(of_seed.dropped for of_seed in labels.values())

    judged = rank_summary(chains, rankings)
    assert judged["warnings"] == [] and judged["seeds_ranked"] == 40
    assert judged["answers_unusable"]["out_of_range"] > 0 and judged["rounds_dropped"] == {}
    assert judged["monotonicity"]["share_rising"] == 1.0 and judged["agreement"]["kendalls_w"] == 1.0
    assert len(chain_examples(chains, rankings)) == 3

    examples = read_examples([SourceRow(n, row["id"], row) for n, row in enumerate(rows)], dimension, None)
    for of_seed in labels.values():
        assert [int(row["target"]) for row in of_seed.rows] == list(range(1, len(of_seed.rows) + 1))
    assert sorted({example.score for example in examples}) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("dimension", ["complexity", "quality"])
def test_the_same_seeds_ask_the_same_questions_in_any_order(dimension):
    prompts = read_prompts(dimension, None)
    seeds = [Seed(f"row-{n}", f"Ask {n}", f"Say {n}") for n in range(6)]
    first, second = evolved(prompts, seeds, dimension), evolved(prompts, seeds[::-1], dimension)
    assert first == second
    assert sorted(ranked(prompts, first), key=str) == sorted(ranked(prompts, second), key=str)
