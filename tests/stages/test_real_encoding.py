"""The rows of the real pool, encoded by several processes and written to Arrow, are those of one row at a time."""

from dataclasses import replace

import datasets
import pytest
from pass_stages import make_model, pass_context

from deita_train.data import parallel
from deita_train.data.pool import PoolSource, build_pool
from deita_train.data.rendering import load_tokenizer
from deita_train.data.row_refusal import RowRefused
from deita_train.data.shipped_templates import shipped_template
from deita_train.inference.row_file import LABELS, RowFile
from deita_train.stages.inference import score
from deita_train.stages.inference.rendered_table import rendered_rows
from deita_train.stages.rows import conversation_row, scoring_encoder, turn_prompts

MAX_LENGTH = 700


@pytest.fixture(scope="module")
def made(shared, tmp_path_factory):
    """Rows of the real pool, as many as need processes, beside a miniature with Mistral's own tokenizer."""
    folder = tmp_path_factory.mktemp("real")
    file = str(shared / "data" / "real_pool_sharegpt.jsonl")
    dataset, _ = build_pool([PoolSource.from_dataset(file, first_rows=2 * parallel.ROWS_PER_PART + 76)])
    rows = [{"id": row["id"], "messages": row["messages"]} for row in dataset]
    assert len(rows) >= 2 * parallel.ROWS_PER_PART
    make_model(folder / "model", context_length=2048)
    for file in (shared / "tokenizers" / "mistral-7b-v0.1").iterdir():
        (folder / "model" / file.name).write_bytes(file.read_bytes())
    pass_context("score", folder, rows)
    return folder, rows


@pytest.fixture(autouse=True)
def three_processes(monkeypatch):
    monkeypatch.setattr(parallel, "num_processes", lambda: 3)


def test_prompts_shortened_or_left_out(made):
    folder, rows = made
    context = pass_context("score", folder, [], max_length=MAX_LENGTH, max_unscored_share=1.0)
    score.prepare(context)
    encoder = scoring_encoder(load_tokenizer(str(folder / "model")), context.identity, MAX_LENGTH)
    turns = [
        (number, turn) for number, row in enumerate(rows) for turn in turn_prompts(encoder, "quality", row["messages"])
    ]
    written, prompts = (RowFile(context.prepared_dir / name) for name in (score._TURNS, score._PROMPTS))
    assert written.numbers("row").tolist() == [number for number, _ in turns]
    assert written.column("reason").to_pylist() == [turn.reason for _, turn in turns]
    assert written.numbers("shortened").tolist() == [bool(turn.prompt and turn.prompt.shortened) for _, turn in turns]
    assert [ids.tolist() for ids in prompts.each()] == [turn.prompt.input_ids for _, turn in turns if turn.prompt]
    assert any(turn.prompt and turn.prompt.shortened for _, turn in turns), "the limit shortens some"


@pytest.mark.parametrize(("template", "labelled"), [("vicuna_v1.1", True), ("vicuna_v1.1", False), ("llama2", True)])
def test_conversations_cut_or_refused(made, tmp_path, template, labelled):
    folder, rows = made
    text = shipped_template(template)
    context = pass_context("embed", folder, [], max_length=MAX_LENGTH, chat_template=text)
    context = replace(context, work_dir=tmp_path, runtime={**context.runtime, "max_refused_share": 1.0})
    context.prepared_dir.mkdir()
    table = rendered_rows(
        context, datasets.load_from_disk(str(folder / "pool" / "data")), "rows.arrow", labelled=labelled
    )
    tokenizer = load_tokenizer(str(folder / "model"), text)
    expected, refused = {}, {}
    for number, row in enumerate(rows):
        try:
            expected[number] = conversation_row(tokenizer, row, MAX_LENGTH, labelled=labelled)
        except RowRefused as refusal:
            refused[number] = refusal.reason
    assert table.positions.tolist() == list(expected)
    assert [ids.tolist() for ids in table.rows.each()] == [row.input_ids for row in expected.values()]
    if labelled:
        assert [labels.tolist() for labels in table.rows.each(LABELS)] == [row.labels for row in expected.values()]
    assert table.refused == refused
    assert table.truncated == sum(row.truncated for row in expected.values()) > 0
