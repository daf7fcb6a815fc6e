"""The passes as stages: what a restart trusts, what is measured and told, how long rows and batches may be."""

import json
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from messages import assistant, user
from pass_stages import carry_out, conversations, make_model, pass_context
from transformers import AutoTokenizer, LlamaConfig

from deita_train.data.conversations import user_turns
from deita_train.errors import UserError
from deita_train.inference import cpu_bfloat16
from deita_train.inference.batch_inference import Pass
from deita_train.inference.batches import read_plan
from deita_train.inference.forward import load_model
from deita_train.inference.row_file import RowFile
from deita_train.scoring.prompts import render
from deita_train.stages.inference import batched_pass as passes
from deita_train.stages.inference import embed, evaluate, score
from deita_train.stages.inference.batched_pass import plan_pass

ROWS = conversations(30)
TURNS = 45


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    make_model(folder / "model", context_length=220)
    return folder


@pytest.fixture
def one_shard_per_batch(monkeypatch):
    monkeypatch.setattr(passes, "Pass", partial(Pass, flush_seconds=-1.0))


def shards(context):
    return {path.name: path.read_bytes() for path in (context.work_dir / "shards").glob("*")}


def test_torn_shards_are_named_removed_and_computed_again(work, one_shard_per_batch, capsys):
    context = pass_context("embed", work, ROWS, max_batch_tokens=900)
    _, result = carry_out(embed, context)
    whole = shards(context)
    assert len(whole) > 5
    first, second, third, *_ = sorted(whole)
    folder = context.work_dir / "shards"
    (folder / first).write_bytes(whole[first][:-1])
    (folder / second).write_bytes(b"")
    (folder / third).unlink()
    (folder / "00000003-000001.99.tmp").write_bytes(b"PAR1")
    capsys.readouterr()
    again = embed.run(context)
    log = capsys.readouterr().out
    assert shards(context) == whole, "the same batches give the same bytes"
    assert f"{folder / first} is not trusted: it cannot be read" in log
    assert f"{folder / second} is not trusted" in log
    assert log.count("is not trusted") == 2
    plan = read_plan(context.prepared_dir / "batches.npz")
    rows = sum(len(plan.batches[int(name.split("-")[0])]) for name in (first, second, third))
    assert f"rank 0: {rows} of {rows} rows, " in log
    assert again.metrics["tokens"] == result.metrics["tokens"] == sum(plan.lengths)
    third_time = embed.run(context)
    assert third_time.metrics["tokens_per_second"] is None
    assert third_time.metrics["seconds_computing"] == 0.0


def test_the_speed_is_measured_and_reported(work, capsys):
    context = pass_context("evaluate", work, ROWS, max_length=2048, max_batch_tokens=900)
    _, result = carry_out(evaluate, context)
    metrics = result.metrics
    plan = read_plan(context.prepared_dir / "batches.npz")
    computed = sum(len(batch) * max(plan.lengths[position] for position in batch) for batch in plan.batches)
    assert metrics["real_token_share"] == pytest.approx(sum(plan.lengths) / computed)
    assert (metrics["max_batch_tokens"], metrics["split_batches"], metrics["mfu"]) == (900, [], None)
    rate = metrics["tokens"] / metrics["seconds_computing"]
    assert metrics["tokens_per_second"] == pytest.approx(rate, rel=0.05), "the seconds are rounded to a thousandth"
    progress = json.loads((context.work_dir / "progress.json").read_text())
    assert (progress["done"], progress["total"], progress["unit"]) == (metrics["tokens"], metrics["tokens"], "tokens")
    assert progress["detail"].startswith("30 of 30 rows, ") and progress["detail"].endswith(" tokens/s")
    assert f"rank 0: {progress['detail']}" in capsys.readouterr().out


def test_without_a_terminal_a_line_comes_at_times(work, monkeypatch, capsys):
    monkeypatch.setattr(passes, "_LOG_SECONDS", -1.0)
    context = pass_context("embed", work, ROWS, max_batch_tokens=900)
    carry_out(embed, context)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("rank 0: ")]
    num_batches = len(read_plan(context.prepared_dir / "batches.npz").batches)
    assert len(lines) == num_batches + 1
    done = [int(line.split()[2]) for line in lines]
    assert done == sorted(done) and done[-1] == 30


def test_batches_too_large_for_the_memory_are_counted(work, monkeypatch):
    context = pass_context("score", work, ROWS, max_batch_tokens=1500)
    whole, _ = carry_out(score, context)
    plan = read_plan(context.prepared_dir / "batches.npz")
    most = 4
    own = score.last_hidden_states

    def limited(trunk, batch):
        if len(batch.input_ids) > most:
            raise torch.cuda.OutOfMemoryError
        return own(trunk, batch)

    monkeypatch.setattr(score, "last_hidden_states", limited)
    for file in (context.work_dir / "shards").iterdir():
        file.unlink()
    result = score.run(context)
    large = [number for number, batch in enumerate(plan.batches) if len(batch) > most]
    assert large and set(large) <= set(result.metrics["split_batches"])
    table, _ = carry_out(score, context)
    np.testing.assert_allclose(
        np.concatenate(table["quality_scores"]), np.concatenate(whole["quality_scores"]), rtol=0, atol=1e-5
    )


def test_the_mass_on_the_digits_is_read_on_every_tenth_batch(work, made, capsys):
    context = pass_context("score", work, ROWS, max_batch_tokens=500)
    _, result = carry_out(score, context)
    plan = read_plan(context.prepared_dir / "batches.npz")
    sampled = [position for number in range(0, len(plan.batches), 10) for position in plan.batches[number]]
    assert len(plan.batches) > 10 and 2 < len(sampled) < TURNS / 4
    metrics = result.metrics
    assert (metrics["digit_mass_turns"], metrics["scored"]) == (len(sampled), TURNS)
    model = load_model(str(made / "model"), "float32", torch.device("cpu"), head=True)
    turns = [ids.tolist() for ids in RowFile(context.prepared_dir / "prompts.arrow").each()]
    masses = []
    for position in sampled:
        with torch.no_grad():
            probabilities = model(input_ids=torch.tensor([turns[position]])).logits[0, -1].softmax(-1)
        masses.append(float(probabilities[plan.facts["digit_ids"]].sum()))
    assert metrics["digit_mass_mean"] == pytest.approx(np.mean(masses), rel=1e-4)
    assert metrics["wrong_model_suspected"] is True
    assert "This looks like the wrong model: check scorers.quality." in capsys.readouterr().out


@pytest.mark.parametrize(("mass", "suspected"), [(0.11, True), (0.49, True), (0.51, False)])
def test_a_model_that_seldom_answers_with_a_digit_is_suspected(work, monkeypatch, mass, suspected):
    monkeypatch.setattr(score, "digit_mass", lambda logits, ids: torch.full((len(logits),), mass))
    _, result = carry_out(score, pass_context("score", work, ROWS, min_digit_mass=0.1))
    assert result.metrics["wrong_model_suspected"] is suspected


def test_a_model_that_does_not_answer_with_digits_is_refused_before_the_pass(work):
    context = pass_context("score", work, ROWS, min_digit_mass=0.1)
    with pytest.raises(
        UserError, match=r"puts \d\.\d% of its .* \(mean over 16 turns\).*scorers.quality.min_digit_mass"
    ):
        carry_out(score, context)
    assert not (context.work_dir / "shards").exists()


def test_it_is_refused_after_the_pass_when_only_the_sample_shows_it(work, monkeypatch):
    monkeypatch.setattr(score, "_try_digits", lambda *arguments: None)
    with pytest.raises(UserError, match="This looks like the wrong model, and its scores would be noise"):
        carry_out(score, pass_context("score", work, ROWS, min_digit_mass=0.1))


def test_the_quality_of_no_response(work, shared):
    case = json.loads((shared / "cases" / "selection" / "quality_of_no_response" / "pool.json").read_text())
    rows = [(row["id"], row["instruction"], row["output"]) for row in case] + [("short", "Hi", "Yo")]
    rows = [{"id": name, "messages": [user(asked), assistant(answer)]} for name, asked, answer in rows]
    table, result = carry_out(score, pass_context("score", work, rows, max_unscored_share=0.7))
    found = dict(zip(table["id"], zip(table["quality_scores"], table["reasons"], strict=True), strict=True))
    assert found["long_question"] == found["other_answer"] == ([None], ["response_beyond_max_length"])
    assert found["short"][1] == [None]
    assert result.metrics["nulls"] == {"response_beyond_max_length": 2}


@pytest.mark.parametrize(("stated", "kept"), [(None, 220), (180, 180)])
def test_prompts_are_shortened_to_the_models_context(work, stated, kept):
    context = pass_context("score", work, ROWS, max_length=stated)
    _, result = carry_out(score, context)
    assert result.metrics["max_length"] == kept
    assert result.metrics["shortened"] > 0
    assert max(read_plan(context.prepared_dir / "batches.npz").lengths) == kept


def test_answers_of_which_no_character_is_in_the_prompt_get_no_quality(work):
    question = "word " * 60
    rows = [
        {"id": name, "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
        for name, asked, answer in (("a", question, "One."), ("b", question, "Another!"), ("c", "Hi", "Yo"))
    ]
    table, result = carry_out(score, pass_context("score", work, rows, max_unscored_share=0.7))
    assert table["reasons"] == [["response_beyond_max_length"], ["response_beyond_max_length"], [None]]
    assert [scores == [None] for scores in table["quality_scores"]] == [True, True, False]
    assert (result.metrics["nulls"], result.metrics["scored"]) == ({"response_beyond_max_length": 2}, 1)
    with pytest.raises(
        UserError, match=r"2 of 3 turns cannot be scored .*response_beyond_max_length.*Raise max_length"
    ):
        carry_out(score, pass_context("score", work, rows, max_unscored_share=0.5))


def with_parity(work, rows, **changes):
    context = pass_context("score", work, rows, **changes)
    return replace(context, identity={**context.identity, "parity": True})


def test_with_parity_no_prompt_is_shortened_and_none_is_longer_than_the_context(work, made):
    tokenizer = AutoTokenizer.from_pretrained(made / "model")
    turns = [user_turns(row["messages"]) for row in ROWS]
    whole = [[len(tokenizer(render("quality", *turn))["input_ids"]) for turn in row] for row in turns]
    table, result = carry_out(score, with_parity(work, ROWS, max_unscored_share=1.0))
    reasons = [[None if length <= 220 else "prompt_longer_than_context" for length in row] for row in whole]
    assert table["reasons"] == reasons
    assert [[value is None for value in row] for row in table["quality_scores"]] == [
        [reason is not None for reason in row] for row in reasons
    ]
    left = [length for row in whole for length in row if length <= 220]
    assert 0 < len(left) < TURNS and read_plan(work / "work" / "prepared" / "batches.npz").lengths.tolist() == left
    assert (result.metrics["max_length"], result.metrics["shortened"]) == (220, 0)
    assert result.metrics["nulls"] == {"prompt_longer_than_context": TURNS - len(left)}


def test_with_parity_too_many_long_prompts_are_refused(work):
    with pytest.raises(UserError, match=r"prompt_longer_than_context.*Leave parity: out, so that .* raise the share"):
        carry_out(score, with_parity(work, ROWS, max_unscored_share=0.01))


def test_with_parity_the_whole_context_is_used(tmp_path):
    tokenizer = make_model(tmp_path / "model", context_length=32_768)
    question = "How are you today? " * 600
    rows = [{"id": "a", "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "Fine"}]}]
    context = with_parity(tmp_path, rows)
    _, result = carry_out(score, context)
    (length,) = read_plan(context.prepared_dir / "batches.npz").lengths
    assert length == len(tokenizer(render("quality", question, "Fine"))["input_ids"]) > 2048
    assert (result.metrics["max_length"], result.metrics["shortened"]) == (32_768, 0)


def test_conversations_are_cut_to_the_models_context(work):
    context = pass_context("embed", work, ROWS)
    _, result = carry_out(embed, context)
    lengths = read_plan(context.prepared_dir / "batches.npz").lengths.tolist()
    assert result.metrics["max_length"] == max(lengths) == 220
    assert result.metrics["truncated"] == lengths.count(220) > 0


def test_a_longer_context_is_not_used_beyond_2048(tmp_path):
    make_model(tmp_path / "model", context_length=32_768)
    _, result = carry_out(embed, pass_context("embed", tmp_path, ROWS[:2]))
    assert result.metrics["max_length"] == 2048


def test_a_cpu_takes_4096_tokens_and_a_stated_number_counts_everywhere(work):
    context = pass_context("embed", work, ROWS)
    plan_pass(context, [5, 3], {})
    assert read_plan(context.prepared_dir / "batches.npz").max_batch_tokens == 4_096
    context.runtime["max_batch_tokens"] = 77
    plan_pass(context, [5, 3], {})
    assert read_plan(context.prepared_dir / "batches.npz").max_batch_tokens == 77


def test_a_gpu_takes_what_its_free_memory_holds(tmp_path, monkeypatch):
    """24 GiB and a 7B: by hand in tests/models/test_model_shape.py."""
    context = pass_context("embed", tmp_path, ROWS[:1], dtype="bfloat16")
    LlamaConfig().save_pretrained(tmp_path / "model")
    monkeypatch.setattr(passes, "model_path", lambda context: tmp_path / "model")
    context.runtime["launch"] = {**context.runtime["launch"], "use_cpu": False}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="the launch needs a GPU, and torch finds none"):
        plan_pass(context, [5, 3], {})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (24 * 2**30, 80 * 2**30))
    plan_pass(context, [2048, 3], {})
    assert read_plan(context.prepared_dir / "batches.npz").max_batch_tokens == 31_508


def test_a_pool_without_a_turn_to_score_is_refused(work):
    rows = [{"id": "a", "messages": [{"role": "user", "content": "Only a question"}]}]
    with pytest.raises(UserError, match=r"none of 1 turns can be scored \(no_response: 1\)\. Check the rows' answers"):
        carry_out(score, pass_context("score", work, rows))


def test_hours_in_bfloat16_on_a_cpu_are_refused_before_the_first_batch(work, monkeypatch):
    slow = cpu_bfloat16.ProductRates(float32=1e6, bfloat16=1e3)  # of a CPU on which even this miniature takes hours
    monkeypatch.setattr(cpu_bfloat16, "product_rates", lambda: slow)
    monkeypatch.setattr(cpu_bfloat16, "_NEVER_SLOW", 0)
    context = pass_context("score", work, ROWS, dtype="bfloat16")
    with monkeypatch.context() as before, pytest.raises(UserError) as caught:
        before.setattr(score, "check_logits", lambda *_: pytest.fail("the model has computed"))
        carry_out(score, context)
    assert re.search(r"1,000 times as long as in float32.*hours.*State dtype: float32", str(caught.value))
    context.identity["dtype"] = "float32"
    carry_out(score, context)
