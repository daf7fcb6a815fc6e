"""The parts of a rehearsal: first rows, samples, miniatures, the server on loopback, the twins of launches."""

import json
import os
import urllib.error
import urllib.request
from io import StringIO
from pathlib import Path

import pytest
import torch
from rehearsal_parts import judged_rows, pool_rows, write_lines, write_own_model
from tiny_recipe import no_gpus  # noqa: F401
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from deita_train.data import first_rows
from deita_train.data.first_rows import WantedRows, write_first_rows, write_matching_rows
from deita_train.data.intake import instruction_fraction
from deita_train.data.pool import PoolSource, build_pool
from deita_train.data.preferences import PreferenceSource, build_preferences
from deita_train.data.source_row import SourceRow
from deita_train.errors import UserError
from deita_train.evaluation.judge_prompts import COMPARE, PAIR, RATE, JudgedTurn, own_prompts
from deita_train.evaluation.verdicts import read_letter, read_rating, read_winner
from deita_train.evolve.prompts import DIRECT_SCORE, TAGS, read_prompts
from deita_train.evolve.score_reading import read_score, read_scores
from deita_train.evolve.tags import read_tags
from deita_train.llm.answers import Answer
from deita_train.llm.loopback import loopback_reply, loopback_server
from deita_train.models.known_models import KNOWN_MODELS
from deita_train.models.miniatures import make_miniature
from deita_train.run.rehearsal import at_hand
from deita_train.run.rehearsal.launches import twin_of
from deita_train.run.rehearsal.rewriting import Rewriter, rewritten

TEXTS = ["Name a colour. Green, or 17 others."] * 20


def wanted(dataset, rows, role="conversations", reach="local", **more):
    return WantedRows("pool", role, str(dataset), rows, {}, reach, **more)


def rows_of(made):
    return [json.loads(line) for line in Path(made.file).read_text().splitlines()]


def test_the_first_rows_are_the_file_s_own_up_to_so_many_usable_ones(tmp_path):
    rows = pool_rows(10)
    rows[1]["conversations"][0]["value"] = "  "
    made = write_first_rows(wanted(write_lines(tmp_path / "mine.jsonl", rows), 4), tmp_path / "made")
    assert rows_of(made) == rows[:5]  # one of the five cannot be used
    assert (Path(made.file).name, made.is_own, made.rows) == ("mine.jsonl", True, 5)


def test_of_a_share_of_the_instructions_only_those_are_kept(tmp_path):
    file = write_lines(tmp_path / "mine.jsonl", pool_rows(40))
    made = write_first_rows(wanted(file, 3, instruction_share=(0.0, 0.5)), tmp_path / "made")
    asked = [[{"role": "user", "content": row["conversations"][0]["value"]}] for row in rows_of(made)]
    assert len(asked) == 3 and all(instruction_fraction(messages) < 0.5 for messages in asked)


def test_ranked_answers_come_with_all_answers_to_the_same_instructions(tmp_path):
    file = write_lines(tmp_path / "mine.jsonl", judged_rows(questions=20, systems=5))
    made = write_first_rows(wanted(file, 16, role="scorer", ranked=True), tmp_path / "made")
    questions = [row["conversations"][0]["value"] for row in rows_of(made)]
    assert len(set(questions)) == 8 and all(questions.count(one) == 5 for one in questions)


def test_a_table_of_scores_is_cut_to_the_rows_of_the_pool(tmp_path):
    bare = [{"conversations": row["conversations"]} for row in pool_rows(30)]
    made = write_first_rows(wanted(write_lines(tmp_path / "p.jsonl", bare), 5, needs_ids=True), tmp_path / "made")
    assert made.ids == tuple(f"p:{place}" for place in range(5))
    scores = [{"id": f"p:{place}", "quality_scores": [place % 6 + 1]} for place in range(29, -1, -1)]
    cut = write_matching_rows(str(write_lines(tmp_path / "s.jsonl", scores)), made.ids, tmp_path / "cut")
    assert [row["id"] for row in rows_of(cut)] == ["p:4", "p:3", "p:2", "p:1", "p:0"]


@pytest.mark.parametrize("reach", ["stream", "cache"])
def test_rows_of_the_hub_are_streamed_where_it_answers_and_else_read_from_its_cache(reach, tmp_path, monkeypatch):
    asked = []

    def hub_rows(dataset, **how):
        asked.append((dataset, how))
        return (SourceRow(number, f"{dataset}, row {number}", row) for number, row in enumerate(pool_rows(100)))

    monkeypatch.setattr(first_rows, "hub_rows", hub_rows)
    read = {"revision": "v1", "split": "train", "config": "math", "data_files": ["a/*.json"]}
    made = write_first_rows(WantedRows("pool", "conversations", "who/rows", 5, read, reach), tmp_path / "made")
    assert rows_of(made) == pool_rows(5) and made.is_own
    assert asked == [("who/rows", {**read, "streaming": reach == "stream"})]


def test_the_hub_is_asked_once_whether_it_answers(monkeypatch):
    calls = []

    def refuse(url, timeout):
        calls.append(url)
        raise urllib.error.URLError("no route")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(
        at_hand, "resolve_commit", lambda kind, name, revision: "c" * 40 if name == "in/cache" else None
    )
    reach = at_hand.Reach()
    try:
        assert [reach.of_model(name, None) for name in ("in/cache", "not/here", "./no/folder")] == [
            "hub",
            "none",
            "unknown",
        ]
        assert [reach.of_data(name, None) for name in ("in/cache", "not/here")] == ["cache", "none"]
        assert len(calls) == 1 and os.environ["HF_HUB_OFFLINE"] == "1"
    finally:
        os.environ.pop("HF_HUB_OFFLINE", None)
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: StringIO())
    reach = at_hand.Reach()
    assert (reach.of_data("in/cache", None), reach.of_data("not/here", None)) == ("stream", "unknown")
    assert reach.of_model("not/here", None) == "unknown"


def test_a_url_that_does_not_answer_becomes_a_sample(tmp_path):
    nobody = "http://127.0.0.1:9/rows.jsonl"
    assert at_hand.Reach().of_data(nobody, None) == "url"
    made = write_first_rows(wanted(nobody, 6, reach="url"), tmp_path / "made")
    assert not made.is_own and "not known here" in made.words


def test_what_cannot_be_read_is_told_with_the_stage(tmp_path):
    (tmp_path / "broken.jsonl").write_text('{"a": 1\n')
    with pytest.raises(UserError, match=r"^pool: .*broken\.jsonl:1"):
        write_first_rows(wanted(tmp_path / "broken.jsonl", 3), tmp_path / "made")


def test_the_sample_of_a_released_selection_has_its_oddities_and_is_read(tmp_path):
    made = write_first_rows(wanted("hkust-nlp/deita-6k-v0", 12, reach="none"), tmp_path / "made")
    rows = rows_of(made)
    assert Path(made.file).suffix == ".json" and not made.is_own
    assert rows[0]["conversations"][0]["from"] == "gpt" and len(rows[1]["conversations"]) == 900
    pool, report = build_pool([PoolSource.from_dataset(made.file)])
    assert (len(pool), report.drops) == (11, {"empty_message": 1})


def test_the_sample_of_ultrafeedback_has_its_columns_and_is_read(tmp_path):
    name = "HuggingFaceH4/ultrafeedback_binarized"
    made = write_first_rows(wanted(name, 6, role="pairs", reach="none"), tmp_path / "made")
    columns = {"prompt", "prompt_id", "chosen", "rejected", "messages", "score_chosen", "score_rejected"}
    assert set(rows_of(made)[0]) == columns
    pairs, report = build_preferences(PreferenceSource.from_dataset(made.file), None, None)
    assert len(pairs) == 6 and report.format == "ultrafeedback"


@pytest.mark.parametrize(
    "form", ["sharegpt_pairs", "prompt_pairs", "question_pairs", "instruction_pairs", "transcript_pairs"]
)
def test_a_sample_of_unknown_pairs_has_the_form_that_the_recipe_states(form, tmp_path):
    made = write_first_rows(wanted("a/b", 4, role="pairs", reach="none", format=form), tmp_path / "made")
    assert "not known here" in made.words
    assert len(build_preferences(PreferenceSource.from_dataset(made.file, format=form), None, None)[0]) == 4


@pytest.mark.parametrize("form", ["sharegpt", "messages", "alpaca", "prompt_completion", "query_response"])
def test_a_sample_of_unknown_conversations_has_the_form_that_the_recipe_states(form, tmp_path):
    made = write_first_rows(wanted("a/b", 6, reach="none", format=form, columns={"rating": "number"}), tmp_path / "m")
    pool, _ = build_pool([PoolSource.from_dataset(made.file, format=form)])
    assert len(pool) >= 5 and "rating" in pool.column_names


def test_a_miniature_of_one_s_own_model_has_its_tokenizer_and_a_few_narrow_layers(tmp_path):
    write_own_model(tmp_path / "own", num_hidden_layers=5, max_position_embeddings=777)
    made = make_miniature(str(tmp_path / "own"), None, "sft", TEXTS, tmp_path / "made", trust_code=False)
    config, own = AutoConfig.from_pretrained(made.miniature), AutoConfig.from_pretrained(tmp_path / "own")
    assert (config.num_hidden_layers, config.hidden_size, config.max_position_embeddings) == (2, 64, 777)
    assert config.vocab_size == own.vocab_size and config.eos_token_id == own.eos_token_id and made.shape is None
    tokens = [
        AutoTokenizer.from_pretrained(folder)("Name 17 colours.").input_ids
        for folder in (tmp_path / "own", made.miniature)
    ]
    assert tokens[0] == tokens[1]
    again = make_miniature(str(tmp_path / "own"), None, "sft", TEXTS, tmp_path / "again", trust_code=False)
    first, second = (AutoModelForCausalLM.from_pretrained(one.miniature).state_dict() for one in (made, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", KNOWN_MODELS)
def test_a_known_model_has_a_shape_for_planning_and_a_miniature_for_running(name, tmp_path):
    known = KNOWN_MODELS[name]
    made = make_miniature(name, None, "sft", TEXTS, tmp_path / "made", trust_code=False)
    shape, small = AutoConfig.from_pretrained(made.shape), AutoConfig.from_pretrained(made.miniature)
    assert shape.model_type == small.model_type == known.architecture
    layers = known.shape.get("num_hidden_layers", known.shape.get("n_layer"))
    assert shape.num_hidden_layers == layers and small.num_hidden_layers < 8
    tokenizer = AutoTokenizer.from_pretrained(made.miniature)
    assert all(getattr(tokenizer, role) == token for role, token in known.tokens.items())
    assert tokenizer.get_vocab().keys() >= set(known.added)
    assert (tokenizer.chat_template is not None) == (known.template is not None)
    assert small.vocab_size == len(tokenizer) and small.eos_token_id == tokenizer.eos_token_id
    digits = {tokenizer("1 " + digit).input_ids[-1] for digit in "123456"}
    assert len(digits) == 6


def test_a_model_of_which_nothing_is_known_is_a_small_llama_and_said_so(tmp_path):
    made = make_miniature("who/knows", None, "sft", TEXTS, tmp_path / "made", trust_code=False)
    assert "nothing is known" in made.words
    own = make_miniature("who/codes", None, "sft", TEXTS, tmp_path / "own", trust_code=True)
    assert "its own code is not executed" in own.words.replace("the model's own code", "its own code")


def test_each_of_the_package_s_prompts_gets_an_answer_that_is_read():
    turn = JudgedTurn("What is 2 + 2?", "4", ("four",))
    both = JudgedTurn("What is 2 + 2?", None, ("four", "five"))

    def answer(request):
        return Answer(loopback_reply(request.messages[-1]["content"]), "stop", 1, 1)

    assert 1 <= read_rating(answer(own_prompts(RATE).request([turn], attempt=0, max_tokens=9))) <= 10
    assert read_winner(answer(own_prompts(PAIR).request([both], attempt=0, max_tokens=9))) in ("first", "second", "tie")
    compared = own_prompts(COMPARE).comparison("Add.", "a", "b", attempt=0, max_tokens=9, top_logprobs=None)
    assert read_letter(answer(compared)) in ("first", "second")
    complexity, quality = (read_prompts(of, None) for of in ("complexity", "quality"))
    versions = ["text 1", "text 2", "text 3"]
    assert len(set(read_scores(loopback_reply(complexity.render_ranking(versions)), 3))) > 1
    assert len(set(read_scores(loopback_reply(quality.render_ranking(versions, instruction="Add.")), 3))) > 1
    assert read_score(loopback_reply(complexity.render(DIRECT_SCORE, instruction="Add."))) in range(1, 7)
    tags = read_prompts("tags", None)
    assert len(read_tags(loopback_reply(tags.render(TAGS, instruction="Add.")))) == 2
    evolved = loopback_reply(complexity.render("deepen", instruction="Add 2 and 2."))
    assert evolved.startswith("<evolved>Add 2 and 2. ") and evolved.endswith("</evolved>")


def test_fastchat_s_forms_get_an_answer_that_is_read():
    rate = 'rate on a scale of 1 to 10 by strictly following this format: "[[rating]]", for example: "Rating: [[5]]".'
    pair = 'output your verdict: "[[A]]" if assistant A is better, "[[B]]" if B is better, "[[C]]" for a tie.'
    assert isinstance(read_rating(Answer(loopback_reply(rate), "stop", 1, 1)), float)
    assert read_winner(Answer(loopback_reply(pair), "stop", 1, 1)) in ("first", "second", "tie")


def test_the_server_gives_probabilities_where_they_are_asked_for():
    asked = {
        "model": "m",
        "messages": [{"role": "user", "content": "Answer with one letter, A or B"}],
        "logprobs": True,
    }
    with loopback_server() as address:
        request = urllib.request.Request(f"{address}/chat/completions", json.dumps(asked).encode())
        with urllib.request.urlopen(request, timeout=20) as reply:
            body = json.load(reply)
    assert {one["token"] for one in body["choices"][0]["logprobs"]["content"][0]["top_logprobs"]} == {"A", "B"}
    assert body["usage"]["total_tokens"] == sum(body["usage"][of] for of in ("prompt_tokens", "completion_tokens"))


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("single_gpu", "cpu"), ("ddp", "cpu_ddp"), ("multi_gpu", "cpu_ddp"), ("zero1", "cpu_zero2"),
        ("zero2", "cpu_zero2"), ("zero3", "cpu_zero3"), ("zero3_offload", "cpu_zero3"), ("zero3_2nodes", "cpu_zero3"),
        ("fsdp1", "cpu_fsdp2"), ("fsdp2", "cpu_fsdp2"), ("cpu", "cpu"), ("cpu_zero3", "cpu_zero3"),
    ],
)  # fmt: skip
def test_every_launch_has_its_twin(name, twin, no_gpus):  # noqa: F811
    assert twin_of(name) == twin


def test_every_launch_file_is_among_these():
    files = {path.stem for path in (Path(__file__).parents[2] / "accelerate_configs").glob("*.yaml")}
    gpus = {
        "single_gpu",
        "ddp",
        "multi_gpu",
        "zero1",
        "zero2",
        "zero3",
        "zero3_offload",
        "zero3_2nodes",
        "fsdp1",
        "fsdp2",
    }
    assert files == gpus | {"cpu", "cpu_ddp", "cpu_zero2", "cpu_zero3", "cpu_fsdp2"}


def test_of_swept_numbers_the_first_is_kept_and_of_words_all():
    data = {
        "select": {"method": "deita", "budget": 6000},
        "sft": {"seed": 1},
        "sweep": {
            "select.method": ["deita", "random", "longest_response"],
            "select.budget": [{"share": 0.1}, {"share": 0.2}],
            "sft.peft": [{"r": 8}, {"r": 16}],
            "sft.seed": [1, 2, 3],
        },
    }
    small, told = rewritten(data, lambda recipe: None, few=True)
    assert small["sweep"] == {
        "select.method": ["deita", "random", "longest_response"], "select.budget": [{"share": 0.1}],
        "sft.peft": [{"r": 8}, {"r": 16}], "sft.seed": [1],
    }  # fmt: skip
    assert [one.path for one in told] == ["sweep.select.budget", "sweep.sft.seed"]
    assert rewritten(data, lambda recipe: None, few=False)[0] == data


def test_a_sweep_over_many_selections_ends_with_them():
    data = {"select": {"method": "deita"}, "sweep": {"select.method": ["deita", "random", "kmeans", "ifd", "gist"]}}
    assert rewritten(data, lambda recipe: None, few=True)[0]["sweep"]["until"] == "select"


def test_a_swept_value_is_replaced_as_the_recipe_s_own_is():
    def rule(recipe: Rewriter) -> None:
        recipe.put("sft.model", f"small {recipe.at('sft.model')}", "small")

    small, _ = rewritten({"sft": {"model": "a"}, "sweep": {"sft.model": ["a", "b"]}}, rule, few=True)
    assert small == {"sft": {"model": "small a"}, "sweep": {"sft.model": ["small a", "small b"]}}
