"""Stage `sft`: what parity holds out."""

import json

import datasets
import pytest
from pass_stages import TEMPLATE, make_model

from deita_train.data.rendering import load_tokenizer
from deita_train.stages.checks import check_artefact
from deita_train.stages.context import Progress, StageContext
from deita_train.stages.training import sft

LAUNCH = {"config_file": "cpu", "num_processes": 1, "distributed_type": "NO", "use_cpu": True}


@pytest.fixture
def store(tmp_path):
    make_model(tmp_path / "base" / "model")
    answers = [f"Number {number}." for number in range(10)]
    messages = [[{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}] for answer in answers]
    messages[3].insert(0, {"role": "system", "content": "Be brief. " * 60})  # its answer lies beyond the length limit
    table = datasets.Dataset.from_dict({"id": [f"row-{number}" for number in range(10)], "messages": messages})
    table.save_to_disk(str(tmp_path / "pool" / "data"))
    (tmp_path / "pool" / "manifest.json").write_text(json.dumps({"rows_out": 10}))
    return tmp_path


def context(store, **config):
    work = store / "work"
    (work / "prepared").mkdir(parents=True)
    trainer = {"learning_rate": 1e-3, "num_train_epochs": 1, "max_length": 160}
    common = {"chat_template": TEMPLATE, "global_batch_size": 4, "seed": 7, "trainer": trainer}
    parents = {"model": store / "base", "data": store / "pool"}
    settings = {"trainer": {}, "launch": LAUNCH, "packing": False, "checkpoint_minutes": 30.0}
    return StageContext("sft", "sft", {**common, **config}, settings, parents, work, 0, 1, Progress(None))


def trained_texts(made):
    tokenizer = load_tokenizer(str(made.parents["model"] / "model"))
    rows = datasets.load_from_disk(str(made.prepared_dir / "rows"))
    return [tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in rows["input_ids"]]


def test_parity_holds_out_what_the_public_code_does(store, capsys):
    made = context(store, parity=True, loss="per_conversation")
    sft.prepare(made)
    assert "row-3 has no loss and is left out: no_answer_within_max_length\n" in capsys.readouterr().out
    texts = trained_texts(made)
    # Of ten rows NumPy's permutation with seed 0 leaves row 5 out; row 3 has no loss.
    numbers = [number for number in range(10) if any(f"Number {number}." in text for text in texts)]
    assert (len(texts), numbers) == (8, [0, 1, 2, 4, 6, 7, 8, 9])
    result = sft.run(made)
    assert (result.rows_in, result.rows_out) == (10, 8)
    assert result.drops == {"without_loss": 1, "held_out": 1}
    assert result.metrics["rows_without_loss_ids"] == ["row-3"]
    check_artefact(
        made,
        {"rows_in": result.rows_in, "rows_out": result.rows_out, "drops": result.drops, "metrics": result.metrics},
    )
