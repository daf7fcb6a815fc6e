"""Passes of one run share the rows that they prepare alike, and nothing else."""

import json
from dataclasses import replace

import pytest
from pass_stages import conversations, make_model, pass_context

from deita_train.inference.row_file import RowFile
from deita_train.stages.inference import embed, perplexity, score
from deita_train.stages.inference.batched_pass import ROWS

FORMS = {embed: ROWS, score: score._PROMPTS, perplexity: ROWS}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    make_model(folder / "model")
    context = pass_context("embed", folder, conversations(9))
    (folder / "pool" / "manifest.json").write_text(json.dumps({"content_digest": "of the pool"}))
    return folder, context


def prepared(context, module, work, **identity):
    """The token ids that a pass prepares in a work folder of its own, and how many rows it encoded for that."""
    told = []
    work.mkdir()
    context = replace(
        context,
        kind=module.__name__,
        identity={**context.identity, **identity},
        work_dir=work,
        progress=type("Told", (), {"update": lambda self, done, *rest: told.append(done)})(),
    )
    context.prepared_dir.mkdir()
    module.prepare(context)
    return [ids.tolist() for ids in RowFile(context.prepared_dir / FORMS[module]).each()], len(told)


@pytest.mark.parametrize("module", FORMS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_the_second_pass_encodes_nothing_and_has_the_same_ids(made, tmp_path, module):
    _, context = made
    context = replace(context, shared_dir=tmp_path / "shared")
    first, encoded = prepared(context, module, tmp_path / "first")
    again, not_encoded = prepared(context, module, tmp_path / "again")
    assert (encoded, not_encoded) == (9, 0) and first == again
    # What the run removes at its end stays with the pass.
    for folder in (tmp_path / "shared").iterdir():
        for file in folder.iterdir():
            file.unlink()
    assert [ids.tolist() for ids in RowFile(tmp_path / "again" / "prepared" / FORMS[module]).each()] == first
    assert prepared(context, module, tmp_path / "third") == (first, 9), "a damaged folder is not read"


def test_another_limit_dimension_or_table_shares_nothing(made, tmp_path):
    folder, context = made
    context = replace(context, shared_dir=tmp_path / "shared")
    prepared(context, score, tmp_path / "first")
    assert prepared(context, score, tmp_path / "other", dimension="complexity")[1] == 9
    assert prepared(context, score, tmp_path / "cut", max_length_limit=300)[1] == 9
    manifest = folder / "pool" / "manifest.json"
    manifest.write_text(json.dumps({"content_digest": "of another pool"}))
    assert prepared(context, score, tmp_path / "elsewhere")[1] == 9
    manifest.write_text(json.dumps({"content_digest": "of the pool"}))
    assert prepared(context, score, tmp_path / "back")[1] == 0


def test_without_a_place_to_share_every_pass_encodes(made, tmp_path):
    _, context = made
    assert prepared(context, embed, tmp_path / "first") == prepared(context, embed, tmp_path / "again")
    assert context.shared_dir is None and not list(tmp_path.glob("*shared*"))


def test_a_kill_between_the_files_and_the_rename_leaves_nothing_that_is_read(made, tmp_path, monkeypatch):
    _, context = made
    context = replace(context, shared_dir=tmp_path / "shared")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("deita_train.stages.inference.shared_rows.write_json_atomically", killed)
        patched.setattr("deita_train.stages.inference.shared_rows.remove_tree", lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            prepared(context, embed, tmp_path / "first")
    assert len(list((tmp_path / "shared").iterdir())) == 1
    assert prepared(context, embed, tmp_path / "again")[1] == 9
    assert prepared(context, embed, tmp_path / "third")[1] == 0


def test_counts_of_refused_rows_are_shared_too(made, tmp_path):
    _, context = made
    context = replace(context, shared_dir=tmp_path / "shared", runtime={**context.runtime, "max_refused_share": 0.5})
    refuse = "{% if messages[0]['content'][0] == 'T' %}{{ raise_exception('no') }}{% endif %}"
    strict = refuse + "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    prepared(context, embed, tmp_path / "first", chat_template=strict)
    _, encoded = prepared(context, embed, tmp_path / "again", chat_template=strict)
    plans = [embed_plan(tmp_path / name) for name in ("first", "again")]
    assert encoded == 0 and plans[0] == plans[1] and plans[0]["refused"]


def embed_plan(work):
    from deita_train.inference.batches import read_plan
    from deita_train.stages.inference.batched_pass import PLAN

    return {name: read_plan(work / "prepared" / PLAN).facts[name] for name in ("refused", "truncated", "as_text")}
