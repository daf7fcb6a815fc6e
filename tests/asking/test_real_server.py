"""A real small chat model behind `transformers serve`: nothing breaks, and every drop has its reason.

    pip install 'transformers[serving]'
    DEITA_CHAT_MODEL=path/to/SmolLM2-135M-Instruct make test-faults

The server may be that of another environment: DEITA_SERVING_PYTHON names its python.
"""

import datasets
import pytest
from real_server import chat_model, served
from smoke_run import ROOT, command_here, stages

from deita_train.store.atomic_io import read_json

SEEDS, EVOLUTIONS = 20, 5
# Slow on a CPU: some hundred answers of 160 tokens.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(5400)]


def test_a_real_server_from_seeds_to_the_scorer_of_the_quickstart(tmp_path):
    model, runs = chat_model(), tmp_path / "runs"
    with served(model) as url:
        settings = (
            f"llm={{judge: {{base_url: {url}, model: {model}, max_in_flight: 16}}}}",
            "evolve={seeds: {builtin: quickstart, rows: 20}, llm: judge, complexity: {max_tokens: 160}}",
            "evolve.heldout_share=0",
            "scorers.complexity.train.data=evolve",
        )
        sets = [part for setting in settings for part in ("--set", setting)]
        until = ("--until", "train_scorer.complexity")
        command_here("run", str(ROOT / "recipes" / "quickstart.yaml"), "--runs", str(runs), *until, *sets)
    made = {label: runs / "store" / artefact for label, artefact in stages(runs, "quickstart").items()}
    labels = datasets.load_from_disk(str(made["rank.complexity"] / "data"))
    evolved = read_json(made["evolve.complexity"] / "metrics.json")
    assert (evolved["seeds"], evolved["evolutions"]) == (SEEDS, SEEDS * EVOLUTIONS)
    assert evolved["kept"] + sum(evolved["drops"].values()) == SEEDS * EVOLUTIONS
    assert evolved["spending"]["failures"] == {} and evolved["spending"]["answers_with_estimated_tokens"] == 0
    ranked = read_json(made["rank.complexity"] / "metrics.json")
    assert ranked["seeds_ranked"] + sum(ranked["seeds_dropped"].values()) == SEEDS
    trained = read_json(made["train_scorer.complexity"] / "metrics.json")
    assert 0 < trained["train_rows"] == len(labels) == sum(ranked["scores"].values())
    assert trained["heldout"]["rows"] == 300
