"""Rows that an earlier artefact holds are taken from it, and the others alone are computed."""

import hashlib
import struct
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pass_stages import carry_out, conversations, make_model, pass_context

from deita_train.errors import UserError
from deita_train.inference.batches import read_plan
from deita_train.inference.row_file import RowFile
from deita_train.run.child.preparation import prepare
from deita_train.stages.checks import content_digest
from deita_train.stages.inference import embed, score
from deita_train.stages.inference.row_reuse import find_items, input_hash

ALL = conversations(220)
OLD = ALL[:200]
# The new rows come in between, so that no result is right by its place.
MIXED = [*OLD[:50], *ALL[200:], *OLD[50:]]
NEW_TURNS = 30  # rows have one and two turns by turns
STAGES = {"score": (score, "quality_scores", "input_hashes"), "embed": (embed, "embedding", "input_hash")}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    make_model(folder)
    return folder


@pytest.fixture(scope="module")
def first(model, tmp_path_factory):
    """The old rows' artefacts by kind: the folder, the table's columns."""
    made = {}
    for kind, (module, _, _) in STAGES.items():
        context = stage(kind, tmp_path_factory.mktemp(kind), model, OLD)
        table, result = carry_out(module, context)
        assert (result.metrics["rows_reused"], result.metrics["reused_from"]) == (0, {})
        artefact = context.work_dir.rename(context.work_dir.with_name(f"{kind}-first"))
        made[kind] = artefact, table
    return made


def stage(kind, folder, model, rows, *reusable, **changes):
    (folder / "model").symlink_to(model)
    return replace(pass_context(kind, folder, rows, **changes), reusable=reusable)


def by_id(table, column):
    return dict(zip(table["id"], table[column], strict=True))


def prompts(context):
    """The inputs of the pass: of a score's turns or of an embedding's rows."""
    name = "prompts.arrow" if context.kind == "score" else "rows.arrow"
    return [ids.tolist() for ids in RowFile(context.prepared_dir / name).each()]


def test_the_hash_is_of_the_ids_as_int32():
    expected = hashlib.blake2b(struct.pack("<3i", 5, 0, 151_000), digest_size=16).hexdigest()
    assert input_hash([5, 0, 151_000]) == expected and len(expected) == 32
    assert len({input_hash(ids) for ids in ([], [0], [0, 0], [1, 2], [2, 1])}) == 5


HASHES = st.lists(st.sampled_from("abcdef"), max_size=8)


@given(HASHES, st.lists(st.lists(st.sampled_from([*"abcdefgh", None]), max_size=8), max_size=3))
def test_an_item_is_found_in_the_first_table_that_has_it_at_its_first_place(hashes, tables):
    named = [(Path(str(number)), table) for number, table in enumerate(tables)]
    found = {item: (int(folder.name), place) for folder, pairs in find_items(hashes, named) for place, item in pairs}
    expected = {}
    for item, wanted in enumerate(hashes):
        holding = [number for number, table in enumerate(tables) if wanted in table]
        if holding:
            expected[item] = holding[0], tables[holding[0]].index(wanted)
    assert found == expected


@given(HASHES, st.lists(st.sampled_from([*"abcdefgh", None]), max_size=8))
def test_what_is_found_in_a_table_comes_in_its_order(hashes, table):
    for _, pairs in find_items(hashes, [(Path("0"), table)]):
        places = [place for place, _ in pairs]
        assert places == sorted(places)


@pytest.mark.parametrize("kind", STAGES)
def test_only_the_new_rows_are_computed(kind, model, first, tmp_path, capsys):
    module, column, hashes = STAGES[kind]
    artefact, old = first[kind]
    for name in ("reusing", "fresh"):
        (tmp_path / name).mkdir()
    context = stage(kind, tmp_path / "reusing", model, MIXED, artefact)
    table, result = carry_out(module, context)
    num_new = NEW_TURNS if kind == "score" else 20
    log = capsys.readouterr().out
    num_old = {"score": 300, "embed": 200}[kind]
    assert f"{kind}: {num_old} of {num_old + num_new} inputs were computed before: {num_old} in {kind}-first" in log
    assert f"rank 0: {num_new} of {num_new} rows" in log
    metrics = result.metrics
    assert (metrics["rows"], metrics["rows_reused"]) == (220, num_old)
    assert metrics["reused_from"] == {f"{kind}-first": num_old}
    whole, fresh = carry_out(module, stage(kind, tmp_path / "fresh", model, MIXED))
    start = 75 if kind == "score" else 50
    new = prompts(context)[start : start + num_new]
    assert metrics["tokens"] == sum(len(ids) for ids in new) < fresh.metrics["tokens"] / 5
    values, before, expected = (by_id(of, column) for of in (table, old, whole))
    assert list(values) == [row["id"] for row in MIXED]
    assert {row: values[row] for row in before} == before, "bitwise"
    for row, value in values.items():
        np.testing.assert_allclose(value, expected[row], rtol=0, atol=1e-5)
    assert table[hashes][:] == whole[hashes][:] and by_id(old, hashes).items() <= by_id(table, hashes).items()
    if kind == "score":
        assert (metrics["scored"], metrics["mean"]) == (330, pytest.approx(np.mean(np.concatenate(table[column][:]))))
        assert 0 < metrics["digit_mass_turns"] <= num_new


def test_of_a_hundred_rows_more_than_a_thousand_a_hundred_are_scored(model, tmp_path, monkeypatch):
    pool = [
        {"id": str(n), "messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "Yes."}]}
        for n in range(1100)
    ]
    scored = []
    plain = score.last_hidden_states
    monkeypatch.setattr(score, "last_hidden_states", lambda *of: (scored.append(len(of[1].last)), plain(*of))[1])
    folders = [tmp_path / name for name in ("thousand", "hundred more")]
    for folder in folders:
        folder.mkdir()
    before = stage("score", folders[0], model, pool[:1000])
    carry_out(score, before)
    assert sum(scored) == 1000
    scored.clear()
    _, result = carry_out(score, stage("score", folders[1], model, pool, before.work_dir))
    assert (sum(scored), result.metrics["scored"], result.metrics["rows_reused"]) == (100, 1100, 1000)


def test_the_hashes_are_those_of_the_inputs(first):
    artefact, table = first["embed"]
    kept = [ids.tolist() for ids in RowFile(artefact / "prepared" / "rows.arrow").each()]
    expected = [hashlib.blake2b(struct.pack(f"<{len(ids)}i", *ids), digest_size=16).hexdigest() for ids in kept]
    assert table["input_hash"][:] == expected


def test_the_digest_covers_the_hashes(first, tmp_path):
    table = datasets.load_from_disk(str(first["embed"][0] / "data")).to_list()
    digests = []
    for number, known in enumerate((table[3]["input_hash"], "0" * 32)):
        table[3]["input_hash"] = known
        datasets.Dataset.from_list(table).save_to_disk(str(tmp_path / str(number) / "data"))
        digests.append(content_digest(tmp_path / str(number)))
    assert digests[0] != digests[1]


def test_turns_without_a_score_keep_their_places(model, tmp_path):
    """A trailing question has no quality: its place is null in both lists, and the others are found by it."""
    rows = [dict(row) for row in conversations(6)]
    for row in rows[1::2]:
        row["messages"] = [*row["messages"], {"role": "user", "content": "And now?"}]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one = stage("score", tmp_path / "one", model, rows)
    before, _ = carry_out(score, one)
    table, result = carry_out(score, stage("score", tmp_path / "two", model, rows[::-1], one.work_dir))
    assert (result.metrics["rows_reused"], result.metrics["tokens"]) == (9, 0)
    assert result.metrics["nulls"] == {"no_response": 3}
    for column in ("quality_scores", "input_hashes"):
        assert by_id(table, column) == by_id(before, column)
    for scores, hashes in zip(table["quality_scores"], table["input_hashes"], strict=True):
        assert [score is None for score in scores] == [known is None for known in hashes]
    assert [len(scores) for scores in table["quality_scores"]] == [3, 1] * 3
    # Conversations of one turn, and of two with a trailing question.
    assert table["reasons"] == [[None, None, "no_response"], [None]] * 3


def test_a_pool_that_is_all_there_is_still_tried_on_the_model(model, first, tmp_path):
    context = stage("score", tmp_path, model, OLD[20:80], first["score"][0])
    _, result = carry_out(score, context)
    assert (result.metrics["rows_reused"], result.metrics["tokens"]) == (90, 0)
    assert result.metrics["digit_mass_turns"] == 16, "the turns that were tried before the pass"
    assert result.metrics["wrong_model_suspected"] is True
    context.runtime["min_digit_mass"] = 0.1
    with pytest.raises(UserError, match="This looks like the wrong model"):
        score.run(context)


def test_embeddings_that_are_all_there(model, first, tmp_path):
    artefact, old = first["embed"]
    table, result = carry_out(embed, stage("embed", tmp_path, model, OLD[30:10:-1], artefact))
    assert (result.metrics["rows_reused"], result.metrics["tokens"], result.metrics["dimensions"]) == (20, 0, 32)
    assert by_id(table, "embedding").items() <= by_id(old, "embedding").items()


def test_several_artefacts_complete_each_other(model, first, tmp_path):
    for name in ("second", "third"):
        (tmp_path / name).mkdir()
    artefact, old = first["embed"]
    second = stage("embed", tmp_path / "second", model, ALL[190:210])
    other, _ = carry_out(embed, second)
    table, result = carry_out(embed, stage("embed", tmp_path / "third", model, ALL[180:], artefact, second.work_dir))
    assert result.metrics["reused_from"] == {"embed-first": 20, "work": 10}
    values = by_id(table, "embedding")
    assert values["row-195"] == by_id(old, "embedding")["row-195"]
    assert values["row-205"] == by_id(other, "embedding")["row-205"]


def with_parents(context):
    """Its parents as they are published, with the digest that a restart looks at."""
    for folder in context.parents.values():
        (folder / "manifest.json").write_text('{"content_digest": "the same"}')
    return context


@pytest.mark.parametrize("kind", STAGES)
def test_a_restart_keeps_the_plan_although_a_reusable_artefact_appeared_or_went(kind, model, first, tmp_path):
    module, column, _ = STAGES[kind]
    artefact, old = first[kind]
    for name in ("appeared", "went"):
        (tmp_path / name).mkdir()
    alone = with_parents(stage(kind, tmp_path / "appeared", model, OLD[:20]))
    prepare(module, alone)
    plan = (alone.prepared_dir / "batches.npz").read_bytes()
    prepare(module, replace(alone, reusable=(artefact,)))
    assert (alone.prepared_dir / "batches.npz").read_bytes() == plan
    assert module.run(alone).metrics["rows_reused"] == 0
    helped = with_parents(stage(kind, tmp_path / "went", model, OLD[:20], artefact))
    prepare(module, helped)
    module_again = replace(helped, reusable=())
    prepare(module, module_again)
    assert module.run(module_again).metrics["rows_reused"] == len(prompts(helped))
    table = datasets.load_from_disk(str(helped.data_dir))
    assert by_id(table, column).items() <= by_id(old, column).items()
    assert read_plan(helped.prepared_dir / "batches.npz").batches == []


def test_a_restart_that_may_reuse_nothing_plans_anew(model, first, tmp_path):
    context = with_parents(stage("embed", tmp_path, model, OLD[:20], first["embed"][0]))
    prepare(embed, context)
    context.runtime["reuse_rows"] = False
    prepare(embed, replace(context, reusable=()))
    assert embed.run(context).metrics["rows_reused"] == 0


def test_a_table_that_cannot_be_read_is_named(model, first, tmp_path):
    context = stage("embed", tmp_path, model, OLD[:2], tmp_path / "embed-broken")
    with pytest.raises(UserError, match=r"embed: the table of .*embed-broken.* cannot be read .*reuse_rows: false"):
        embed.prepare(context)


def test_damage_to_what_was_taken_is_named(model, first, tmp_path):
    context = stage("embed", tmp_path, model, OLD[:20], first["embed"][0])
    embed.prepare(context)
    kept = context.prepared_dir / "reused.parquet"
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    with pytest.raises(UserError, match=r"reused.parquet is damaged .* Remove .*work and run again"):
        embed.run(context)
