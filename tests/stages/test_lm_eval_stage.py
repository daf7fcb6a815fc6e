"""Tasks of lm-evaluation-harness with a miniature, offline: figures by hand, kills, ranks, the leaderboard itself."""

import json
import math
import os
from dataclasses import replace
from functools import partial

import pytest
import torch
from lm_eval_tasks import choice_rows, lm_eval_context, write_choice_task, write_rows, write_task
from pass_stages import TEMPLATE, carry_out, make_model

from deita_train.errors import UserError
from deita_train.inference.batch_inference import Pass
from deita_train.stages.checks import content_digest
from deita_train.stages.context import Progress
from deita_train.stages.evaluating import lm_eval
from deita_train.stages.inference import batched_pass as passes

pytest.importorskip("lm_eval", reason="the extra eval is not installed")

from deita_train.evaluation import harness_requests


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    make_model(folder / "model")
    return folder


@pytest.fixture
def tasks(tmp_path):
    write_choice_task(tmp_path / "tasks")
    return str(tmp_path / "tasks")


def by_hand(plain, context, choice):
    """The log-likelihood of a choice after a context, token by token."""
    model, tokenizer = plain
    whole, asked = tokenizer(f"{context} {choice}")["input_ids"], tokenizer(context)["input_ids"]
    assert whole[: len(asked)] == asked
    with torch.no_grad():
        logits = model(torch.tensor([whole])).logits[0].log_softmax(-1)
    return sum(float(logits[place - 1, whole[place]]) for place in range(len(asked), len(whole)))


def test_a_figure_is_what_a_hand_computes(work, plain, tasks):
    table, result = carry_out(lm_eval, lm_eval_context(work, ["local_choice"], include=[tasks]))
    acc, acc_norm, chosen = [], [], []
    for row in choice_rows(7):
        likelihoods = [by_hand(plain, f"Question: {row['question']}\nAnswer:", choice) for choice in row["choices"]]
        weighed = [value / len(choice) for value, choice in zip(likelihoods, row["choices"], strict=True)]
        acc.append(float(likelihoods.index(max(likelihoods)) == row["answer"]))
        acc_norm.append(float(weighed.index(max(weighed)) == row["answer"]))
        chosen.append(row["choices"][likelihoods.index(max(likelihoods))])
    assert table["score"] == acc and table["answer"] == chosen and 0 < sum(acc) < 7
    assert table["id"] == [f"local_choice/{number}" for number in range(7)]
    assert table["question"] == [f"Question: {row['question']}\nAnswer:" for row in choice_rows(7)]
    assert table["target"] == [row["choices"][row["answer"]] for row in choice_rows(7)]
    assert set(table["metric"]) == {"acc"} and set(table["reason"]) == {None}
    assert (result.rows_in, result.rows_out) == (7, 7)
    assert result.metrics["results"].keys() == {"local_choice"}
    found = result.metrics["results"]["local_choice"]
    assert found["value"] == pytest.approx(sum(acc) / 7, abs=1e-12) and found["unit"] == "share"
    assert found["low"] < found["value"] < found["high"] and found["questions"] == 7
    measured = result.metrics["tasks"]["local_choice"]
    assert measured["figures"]["acc_norm,none"]["value"] == pytest.approx(sum(acc_norm) / 7, abs=1e-12)
    assert (measured["shots"], measured["version"], measured["available"]) == (0, "2.5", 7)
    assert result.metrics["requests"] == 21
    json.dumps(result.metrics)


def test_generated_answers_are_the_models_own(work, plain, tmp_path):
    model, tokenizer = plain
    questions = ["Name three rivers of Europe, please.", "How are you today?", "Why? " * 9]

    def written(question):
        asked = tokenizer(question, return_tensors="pt")["input_ids"]
        ids = model.generate(asked, max_new_tokens=6, do_sample=False, pad_token_id=2)[0, asked.shape[1] :]
        return tokenizer.decode([token for token in ids if token > 2])

    answers = [written(question) for question in questions]
    targets = [answers[0], "something else", answers[2]]
    rows = [{"question": question, "target": target} for question, target in zip(questions, targets, strict=True)]
    write_task(
        tmp_path / "tasks", "local_words", {"test": write_rows(tmp_path / "data.jsonl", rows)},
        output_type="generate_until", doc_to_text="question", doc_to_target="target",
        generation_kwargs={"until": ["</s>"], "max_gen_toks": 6},
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    )  # fmt: skip
    context = lm_eval_context(work, ["local_words"], include=[str(tmp_path / "tasks")])
    table, result = carry_out(lm_eval, context)
    assert table["answer"] == answers and table["score"] == [1, 0, 1]
    assert result.metrics["results"]["local_words"]["value"] == pytest.approx(2 / 3)


def test_texts_and_questions_that_lie_in_the_choices(work, plain, tmp_path):
    model, tokenizer = plain
    texts = ["How are you today?", "Name three rivers of Europe, please."]
    write_task(
        tmp_path / "tasks", "local_texts", {"test": write_rows(tmp_path / "texts.jsonl", [{"t": t} for t in texts])},
        output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{t}}",
        metric_list=[{"metric": "word_perplexity"}],
    )  # fmt: skip
    rows = [
        {"sentence": f"The _ is {word}.", "option1": "river", "option2": "answer", "answer": "2"} for word in ("a", "b")
    ]
    data = {"allenai/winogrande": copy_of_a_dataset(tmp_path / "winogrande", ["winogrande_xl"], rows.__getitem__, {
        "train": 2, "validation": 2,
    })}  # fmt: skip
    include = [str(tmp_path / "tasks")]
    context = lm_eval_context(work, ["local_texts", "winogrande"], include=include, data=data)
    table, result = carry_out(lm_eval, context)
    assert table["question"] == [*texts, *(row["sentence"] for row in rows)]
    assert table["score"][:2] == [None, None] and table["reason"][0] == "measured_over_all_questions_together"
    likelihood = 0.0
    for text in texts:  # the first token is measured after the one that begins or ends a sequence
        ids = torch.tensor([[model.config.bos_token_id, *tokenizer(text)["input_ids"]]])
        with torch.no_grad():
            likelihood += float(-model(ids, labels=ids).loss) * (ids.shape[1] - 1)
    expected = math.exp(-likelihood / sum(len(text.split()) for text in texts))
    found = result.metrics["results"]
    assert found["local_texts"]["value"] == pytest.approx(expected, rel=1e-4)
    assert found["local_texts"]["higher_is_better"] is False and found["local_texts"]["low"] is None
    assert found["winogrande"]["questions"] == 2
    requests = lm_eval._read_requests(context.prepared_dir / "requests.parquet")
    assert [request.values for request in requests if request.document == 1][1:] == [
        ("The river", " is b."),
        ("The answer", " is b."),
    ]
    with pytest.raises(UserError, match=r"data: no task reads winogrande; the tasks read json"):
        lm_eval.prepare(lm_eval_context(work, ["local_texts"], include=include, data={"winogrande": "x"}))


def test_a_killed_stage_asks_nothing_twice_and_ends_with_the_same_bytes(work, tasks, tmp_path, monkeypatch):
    whole = lm_eval_context(work, ["local_choice"], include=[tasks], num_fewshot=2)
    carry_out(lm_eval, whole)
    expected = content_digest(whole.work_dir)

    monkeypatch.setattr(passes, "Pass", partial(Pass, flush_seconds=-1.0))
    answered, asked = harness_requests.answered, []

    def counted(model, requests, seed):
        if len(asked) == 2 and not killed:
            killed.append(True)
            raise KeyboardInterrupt
        asked.append([request.arguments for request in requests])
        return answered(model, requests, seed)

    killed = []
    monkeypatch.setattr(harness_requests, "answered", counted)
    (tmp_path / "again").mkdir()
    context = replace(whole, work_dir=tmp_path / "again")
    context.prepared_dir.mkdir()
    lm_eval.prepare(context)
    with pytest.raises(KeyboardInterrupt):
        lm_eval.run(context)
    result = lm_eval.run(context)
    assert killed and len(asked) == 4 and len({arguments for batch in asked for arguments in batch}) == 21
    assert sum(map(len, asked)) == result.metrics["requests"] == 21
    assert content_digest(context.work_dir) == expected


def be_a_rank(folder, tasks):
    """Target of a child."""
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    launch = {"config_file": "cpu_ddp", "num_processes": 2, "distributed_type": "MULTI_GPU", "use_cpu": True}
    context = lm_eval_context(folder, ["local_choice"], include=[tasks], launch=launch)
    progress = context.progress if rank == 0 else Progress(None)
    lm_eval.run(replace(context, rank=rank, world_size=world_size, progress=progress))


def test_two_ranks_write_what_one_does(processes, work, made, tasks, tmp_path):
    from forked_ranks import fork_ranks

    alone = lm_eval_context(work, ["local_choice"], include=[tasks])
    carry_out(lm_eval, alone)
    together = tmp_path / "together"
    together.mkdir()
    (together / "model").symlink_to(made / "model")
    context = lm_eval_context(together, ["local_choice"], include=[tasks])
    lm_eval.prepare(context)
    log = tmp_path / "log"
    assert fork_ranks(processes, be_a_rank, (together, tasks), 2, log) == [0, 0], log.read_text()
    assert content_digest(context.work_dir) == content_digest(alone.work_dir)
    assert len(list((context.work_dir / "shards").glob("*.parquet"))) == 2  # each rank has computed some


def test_the_chat_template_is_applied_and_said(work, tasks):
    context = lm_eval_context(work, ["local_choice"], include=[tasks], num_fewshot=1, chat_template=TEMPLATE)
    _, result = carry_out(lm_eval, context)
    requests = lm_eval._read_requests(context.prepared_dir / "requests.parquet")
    asked, choice = requests[0].values
    assert asked.count("USER: ") == 2 and asked.endswith("ASSISTANT:") and choice == choice_rows(1)[0]["choices"][0]
    assert "through the chat template" in result.metrics["notes"][0]
    plain = lm_eval_context(work, ["local_choice"], include=[tasks], num_fewshot=1)
    _, other = carry_out(lm_eval, plain)
    assert "no chat template" in other.metrics["notes"][0]
    assert other.metrics["tasks"]["local_choice"]["shots"] == 1


def test_the_first_questions_alone_are_said_to_be_a_trial(work, tasks):
    table, result = carry_out(lm_eval, lm_eval_context(work, ["local_choice"], include=[tasks], limit=3))
    assert table["id"] == [f"local_choice/{number}" for number in range(3)]
    assert any("Only the first 3 questions" in note for note in result.metrics["notes"])
    assert result.metrics["tasks"]["local_choice"]["available"] == 7


def test_validate_says_how_much_is_asked_once_for_all_models(work, tasks):
    from deita_train.stages.validation import forget_checks

    stages = [lm_eval_context(work, ["local_choice"], include=[tasks], limit=limit) for limit in (None, None, 3)]
    forget_checks()
    assert [list(lm_eval.validate(stage)) for stage in stages] == [
        ["evaluate.lm_eval: 7 questions of 1 task for each model"],
        [],
        ["evaluate.lm_eval: 3 questions of 1 task for each model"],
    ]
    forget_checks()


def test_changed_data_is_read_again_though_path_and_time_are_the_same(work, tasks, tmp_path):
    context = lm_eval_context(work, ["local_choice"], include=[tasks])
    before = carry_out(lm_eval, context)[0]["question"]
    data = tmp_path / "tasks" / "data" / "local_choice.jsonl"
    stamp = data.stat()
    write_rows(data, choice_rows(7, 50))
    os.utime(data, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    (tmp_path / "next").mkdir()
    other = replace(context, work_dir=tmp_path / "next")
    other.prepared_dir.mkdir()
    after = carry_out(lm_eval, other)[0]["question"]
    assert after == [f"Question: {row['question']}\nAnswer:" for row in choice_rows(7, 50)] != before


def test_generated_questions_need_no_data(work):
    context = lm_eval_context(work, ["quickstart_choice"], limit=5, chat_template=TEMPLATE)
    table, result = carry_out(lm_eval, context)
    assert len(set(table["question"])) == 5 and set(table["score"]) <= {0, 1}
    assert result.metrics["tasks"]["quickstart_choice"]["available"] == 200


# The columns of the four datasets of the leaderboard, as their definitions read them.
def _arc(n):
    labels = ["A", "B", "C"]
    return {
        "question": f"Why {n}?" + " Why?" * 12,
        "choices": {"text": WORDS3, "label": labels},
        "answerKey": labels[n % 3],
    }


WORDS3 = ["river", "twelve", "Europe"]


def _hellaswag(n):
    return {
        "activity_label": f"Naming {n}", "ctx_a": "We name rivers.", "ctx_b": "then we", "label": str(n % 3),
        "endings": [f"{word} [step] stop." for word in WORDS3],
    }  # fmt: skip


def _mmlu(n):
    return {"question": f" How many, {n}?", "choices": [*WORDS3, "I do not know"], "answer": n % 4}


def _truthfulqa(n):
    targets = {"choices": WORDS3, "labels": [1, n % 2, 0]}
    return {"question": f"Is it {n}?", "mc1_targets": targets, "mc2_targets": targets}


def copy_of_a_dataset(folder, configs, row, splits):
    """What a copy of a repository of the Hub looks like: files, and a card that says which are which."""
    for split, number in splits.items():
        write_rows(folder / f"{split}.jsonl", [row(n) for n in range(number)])
    files = [{"split": split, "path": f"{split}.jsonl"} for split in splits]
    card = {"configs": [{"config_name": config, "data_files": files} for config in configs]}
    (folder / "README.md").write_text(f"---\n{json.dumps(card)}\n---\n")
    return str(folder)


def subjects():
    from importlib.resources import files

    folder = files("lm_eval.tasks").joinpath("mmlu/default")
    return sorted(file.name[len("mmlu_") : -len(".yaml")] for file in folder.iterdir() if file.name.startswith("mmlu_"))


def test_the_leaderboards_own_definitions_run_on_local_rows(work, tmp_path):
    data = {
        "allenai/ai2_arc": copy_of_a_dataset(
            tmp_path / "arc", ["ARC-Challenge"], _arc, {"train": 26, "validation": 1, "test": 3}
        ),
        "Rowan/hellaswag": copy_of_a_dataset(
            tmp_path / "hellaswag", ["default"], _hellaswag, {"train": 11, "validation": 4}
        ),
        "cais/mmlu": copy_of_a_dataset(tmp_path / "mmlu", subjects(), _mmlu, {"dev": 5, "test": 1}),
        "truthfulqa/truthful_qa": copy_of_a_dataset(
            tmp_path / "truthfulqa", ["multiple_choice"], _truthfulqa, {"validation": 2}
        ),
    }
    context = lm_eval_context(work, ["open_llm_v1"], data=data, batch_size=8)
    table, result = carry_out(lm_eval, context)
    found, measured = result.metrics["results"], result.metrics["tasks"]
    names = ["mean", "arc_challenge", "hellaswag", "mmlu", "truthfulqa_mc2"]
    assert list(found) == names and result.metrics["title"] == "Open LLM Leaderboard"
    assert [found[name]["questions"] for name in names] == [3 + 4 + 57 + 2, 3, 4, 57, 2]
    shots = {name: task["shots"] for name, task in measured.items()}
    assert (shots["arc_challenge"], shots["hellaswag"], shots["truthfulqa_mc2"]) == (25, 10, 0)
    assert {shots[f"mmlu_{subject}"] for subject in subjects()} == {5}
    figures = [
        measured["arc_challenge"]["figures"]["acc_norm,none"]["value"],
        measured["hellaswag"]["figures"]["acc_norm,none"]["value"],
        sum(measured[f"mmlu_{subject}"]["figures"]["acc,none"]["value"] for subject in subjects()) / 57,
        measured["truthfulqa_mc2"]["figures"]["acc,none"]["value"],
    ]
    assert [found[name]["value"] for name in names[1:]] == pytest.approx(figures)
    assert found["mean"]["value"] == pytest.approx(sum(figures) / 4)
    assert any("context" in note for note in result.metrics["notes"])  # 25 examples exceed a miniature's
    asked = dict(zip(table["id"], table["question"], strict=True))
    assert asked["hellaswag/1"] == "Naming 1: We name rivers. Then we" and asked["truthfulqa_mc2/0"] == "Is it 0?"
    requests = lm_eval._read_requests(context.prepared_dir / "requests.parquet")
    arc = next(request for request in requests if request.task == "arc_challenge")
    assert arc.values[0].count("Question: ") == 26 and arc.values == (arc.values[0], " river")


def test_what_is_missing_is_said_before_a_model_is_loaded(tmp_path, tasks, monkeypatch):
    def refused(names, **changes):
        with pytest.raises(UserError) as caught:
            lm_eval.prepare(lm_eval_context(tmp_path, names, **changes))  # the folder has no model
        return str(caught.value)

    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "empty")
    message = refused(["arc_challenge"])
    assert message.startswith("evaluate.lm_eval.tasks: the data of arc_challenge is not at hand: allenai/ai2_arc ")
    assert "evaluate.lm_eval.data" in message

    monkeypatch.setattr("nltk.data.path", [])
    message = refused(["ifeval"])
    assert "python -m nltk.downloader punkt_tab" in message and "ifeval counts sentences" in message

    (tmp_path / "tasks" / "data" / "local_choice.jsonl").unlink()
    message = refused(["local_choice"], include=[tasks])
    assert "the data of local_choice is not there" in message and "local_choice.jsonl" in message


def test_a_task_of_two_names_and_empty_choices_and_too_many_examples_are_refused(work, tasks, tmp_path):
    (tmp_path / "tasks" / "group.yaml").write_text(json.dumps({"group": "both_group", "task": ["local_choice"]}))

    def refused(names, **changes):
        with pytest.raises(UserError) as caught:
            lm_eval.prepare(lm_eval_context(work, names, include=[tasks], **changes))
        return str(caught.value)

    assert "local_choice and both_group both bring local_choice" in refused(["local_choice", "both_group"])
    assert "the prompts of local_choice cannot be written" in refused(["local_choice"], num_fewshot=6)
    rows = choice_rows(3)
    rows[1]["choices"][2] = ""
    write_rows(tmp_path / "tasks" / "data" / "local_choice.jsonl", rows)
    assert "question 1 of local_choice has an empty text to choose" in refused(["local_choice"])


@pytest.mark.faults
def test_an_unknown_name_is_said_with_one_like_it(work):
    with pytest.raises(UserError, match=r"arc_chalenge is no task.*did you mean 'arc_challenge'"):
        lm_eval.prepare(lm_eval_context(work, ["arc_chalenge"]))
