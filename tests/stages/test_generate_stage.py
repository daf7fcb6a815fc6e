"""Answers of a model of the run: turns, temperatures and reasons against one row at a time, without batches."""

import json

import datasets
import pytest
import torch
from generate_stages import CONTEXT, QUESTIONS, TOKENS, generate_context, question
from pass_stages import TEMPLATE, make_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from deita_train.errors import UserError
from deita_train.evaluation.dialogues import EARLIER_TURN, drawing_seed
from deita_train.inference.generation import Prompt, _Drawing
from deita_train.stages.evaluating import generate, local_answers


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate")
    make_model(folder / "model", context_length=CONTEXT)
    return folder


def answered(folder, **changes):
    """The table's rows, and the result."""
    context = generate_context(folder, **changes)
    generate.prepare(context)
    result = generate.run(context)
    return list(datasets.load_from_disk(str(context.data_dir))), result


def by_hand(plain, questions, temperature=lambda category: 0.0, seed=None):
    """Every turn alone, each token from a forward pass over all before it, by transformers' own template."""
    model, tokenizer = plain
    rows = []
    for asked in questions:
        messages = [{"role": "system", "content": asked["system"]}] if asked["system"] else []
        reason = None
        for turn, text in enumerate(asked["turns"]):
            row = {"id": asked["id"], "turn": turn, "prompt": text}
            messages.append({"role": "user", "content": text})
            ids = tokenizer.apply_chat_template(
                messages, chat_template=TEMPLATE, add_generation_prompt=True, return_dict=False
            )
            if reason or len(ids) >= CONTEXT:
                reason = EARLIER_TURN if reason else "prompt_too_long"
                rows.append({**row, "answer": None, "tokens": 0, "ended": False, "reason": reason})
                continue
            drawing = _Drawing(
                [Prompt(ids, TOKENS, temperature(asked["category"]), drawing_seed(seed, asked["id"], turn))]
            )
            written, ended = one_by_one(model, ids, min(TOKENS, CONTEXT - len(ids)), tokenizer.eos_token_id, drawing)
            answer = tokenizer.decode(written, skip_special_tokens=True).strip()
            messages.append({"role": "assistant", "content": answer})
            rows.append({**row, "answer": answer, "tokens": len(written), "ended": ended, "reason": None})
    return rows


def one_by_one(model, ids, limit, stop, drawing):
    written = []
    for _ in range(limit):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*ids, *written]]), use_cache=False).logits[:, -1]
        token = int(drawing(None, logits).argmax())
        if token == stop:
            return written, True
        written.append(token)
    return written, False


@pytest.mark.parametrize("max_batch_tokens", [None, 1, 300])
def test_each_turn_is_asked_after_the_models_own_answer(work, plain, max_batch_tokens):
    rows, result = answered(work, max_batch_tokens=max_batch_tokens)
    expected = by_hand(plain, QUESTIONS)
    assert rows == expected
    assert {row["reason"] for row in rows} == {None, "prompt_too_long", EARLIER_TURN}
    assert len({row["answer"] for row in rows}) > 5
    answers = [row for row in rows if row["answer"] is not None]
    assert (result.rows_in, result.rows_out, result.drops) == (len(rows), len(rows), {})
    assert result.metrics["asked"] == len(rows) and result.metrics["answers"] == len(answers)
    assert result.metrics["unanswered"] == {"prompt_too_long": 2, EARLIER_TURN: 2}
    assert result.metrics["truncated_share"] == sum(not row["ended"] for row in answers) / len(answers)
    assert result.metrics["mean_tokens"] == sum(row["tokens"] for row in answers) / len(answers)


def test_an_answer_has_the_room_that_the_context_leaves(work, plain):
    tokenizer = plain[1]
    words = "Why? " * 60
    while (
        len(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": words}], chat_template=TEMPLATE, return_dict=False
            )
        )
        > CONTEXT - 9
    ):
        words = words.removesuffix("Why? ")
    questions = [question("tight", words.strip()), *QUESTIONS[:2]]
    rows, _ = answered(work, questions=questions)
    assert rows == by_hand(plain, questions)
    assert 0 < rows[0]["tokens"] < TOKENS and not rows[0]["ended"]


def test_answers_are_drawn_by_the_category_the_seed_and_the_question(work, tmp_path_factory, plain):
    by_category = {"writing": 2.0, "math": 0.0, "stem": 1.0}
    rows, _ = answered(work, temperature=by_category, seed=5)
    assert rows == by_hand(plain, QUESTIONS, lambda category: by_category.get(category, 0.0), seed=5)
    greedy = by_hand(plain, QUESTIONS)
    differs = {row["id"] for row, other in zip(rows, greedy, strict=True) if row["answer"] != other["answer"]}
    assert "two" in differs and differs <= {"two", "middle"}
    # One question alone has the same answers.
    alone = tmp_path_factory.mktemp("alone")
    (alone / "model").symlink_to(work / "model")
    assert answered(alone, questions=QUESTIONS[1:2], temperature=by_category, seed=5)[0] == rows[1:3]


def test_what_is_in_a_shard_is_not_generated_again(work, monkeypatch):
    """Batches of a row each; the third one of the second turn is the last before an end."""
    calls = []
    kept = local_answers.generate

    def ends(model, prompts, stops, max_rows):
        if len(calls) == 7:
            raise KeyboardInterrupt
        calls.append([len(prompt.ids) for prompt in prompts])
        return kept(model, prompts, stops, max_rows)

    context = generate_context(work, max_batch_tokens=1)
    generate.prepare(context)
    monkeypatch.setattr(local_answers, "generate", ends)
    with pytest.raises(KeyboardInterrupt):
        generate.run(context)
    assert [len(lengths) for lengths in calls] == [1] * 7
    before, calls = calls, []
    generate.run(context)
    rows = list(datasets.load_from_disk(str(context.data_dir)))
    assert len(before) + len(calls) == sum(row["answer"] is not None for row in rows) == 8
    assert rows == by_hand((AutoModelForCausalLM.from_pretrained(work / "model"), tokenizer_of(work)), QUESTIONS)


def tokenizer_of(folder):
    return AutoTokenizer.from_pretrained(folder / "model")


def test_a_damaged_shard_is_made_again(work, capsys):
    first, _ = answered(work, max_batch_tokens=1)
    context = generate_context(work, max_batch_tokens=1)
    path = min((context.work_dir / "shards" / "turn-1").glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-9])
    generate.run(context)
    assert list(datasets.load_from_disk(str(context.data_dir))) == first
    assert f"{path} is not trusted" in capsys.readouterr().out


NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE


def test_a_question_that_the_template_cannot_write_is_a_reason_or_an_error(work):
    with pytest.raises(UserError, match=r"evaluate: the chat template cannot write 1 of 6 rows.*system: "):
        generate.prepare(generate_context(work, chat_template=NO_SYSTEM))
    rows, result = answered(work, chat_template=NO_SYSTEM, max_refused_share=0.2)
    assert {row["id"]: row["reason"] for row in rows if row["turn"] == 0}["system"] == "refused_by_template"
    assert result.metrics["unanswered"]["refused_by_template"] == 1


def test_no_answer_at_all_is_an_error(work):
    context = generate_context(work, questions=[QUESTIONS[3]])
    generate.prepare(context)
    with pytest.raises(UserError, match=r"generate\.base: no question was answered: \{'prompt_too_long': 1"):
        generate.run(context)


def test_the_metrics_are_json(work):
    _, result = answered(work)
    metrics = json.loads(json.dumps(result.metrics))
    assert metrics["empty_share"] == 0 and metrics["tokens_per_second"] > 0 and "spending" not in metrics
