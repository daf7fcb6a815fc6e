import json
from types import NoneType, UnionType
from typing import Annotated, Union, get_args, get_origin

import pytest
from pydantic import ValidationError

from deita_train.errors import UserError
from deita_train.recipe.data_sections import Pool, Section, Source, WeightedSource
from deita_train.recipe.llm_sections import LlmEndpoint
from deita_train.recipe.loading import load_recipe
from deita_train.recipe.schema import Recipe

ONE_ORIGIN = "state either dataset: (a file, a folder or a Hub id) or builtin:, and not both"
SFT = {"model": "m", "global_batch_size": 8}
DPO = {"global_batch_size": 8, "preferences": {"dataset": "x"}}
NO_EFFECT = "would have no effect here, because a dataset: is read whole; leave it out"
NOT_GENERATED = "would have no effect here, because builtin: data is generated; leave it out"
TWICE = "rows and fraction say twice how many rows are drawn; state one of them"
WANTS_SAMPLE = "streaming: needs sample:, the number of rows to read; a stream is for data larger than the disk"
WANTS_STREAM = "sample would have no effect without streaming: true; rows: draws that many rows"
ONE_WEIGHT = "sources: one weight alone would have no effect; state it for the others too, or leave it out"
ORIGIN_OF_A_SCORER = "state either model: (a published scorer) or train:, and not both"
WANTS_ROWS = "builtin: needs rows:, the number of rows to generate"
QUICKSTART = {"builtin": "quickstart", "rows": 5}
PRETRAIN = {"data": QUICKSTART, "global_batch_size": 8}
TRAINED = {"data": QUICKSTART, "model": "base", "global_batch_size": 8}


def trained(**changes):
    """Scorers with other labelled data."""
    return {"scorers": {"quality": {"train": {**TRAINED, "data": changes}}}}


def refusal(folder, data, *sets):
    path = folder / "recipe.yaml"
    path.write_text(json.dumps({"name": "tiny", **data}))
    with pytest.raises(UserError) as caught:
        load_recipe(path, sets)
    return str(caught.value).removeprefix(f"{path}:1: ")


def no_range(share):
    return f"instruction_share: {share} is not a range; [0.0, 0.5] is the first half"


DATA = "scorers.quality.train.data"
OWN_VALIDATORS = [
    (
        {"report_to": ["trackio", "wandb"]},
        "report_to: wandb has a section of its own: state wandb: {} and leave it out here",
    ),
    ({"report_to": ["trackio", "trackio"]}, "report_to: trackio, trackio: name each once"),
    ({"report_to": ["none", "trackio"]}, "report_to: none, trackio: none stands alone"),
    ({"report_to": []}, "report_to: [] is a list; expected at least 1 items"),
    ({"report_to": "trackio"}, "report_to: 'trackio' is text; expected a list (write [trackio])"),
    ({"pool": {}}, f"pool: {ONE_ORIGIN}"),
    ({"scores": {}}, "scores: name a file for at least one dimension: complexity: or quality:"),
    ({"pool": {**QUICKSTART, "dataset": "x"}}, f"pool: {ONE_ORIGIN}"),
    ({"pool": {"builtin": "quickstart"}}, f"pool: {WANTS_ROWS}"),
    ({"pool": {"dataset": "x", "rows": 3, "fraction": 0.5}}, f"pool: {TWICE}"),
    ({"pool": {**QUICKSTART, "fraction": 0.5}}, f"pool: fraction {NOT_GENERATED}"),
    ({"pool": {**QUICKSTART, "name": "a", "data_files": "b"}}, f"pool: data_files, name {NOT_GENERATED}"),
    ({"pool": {"dataset": "x", "sample": 3}}, f"pool: {WANTS_STREAM}"),
    ({"pool": {"dataset": "x", "streaming": True}}, f"pool: {WANTS_SAMPLE}"),
    ({"pool": {**QUICKSTART, "streaming": True, "sample": 3}}, f"pool: sample, streaming {NOT_GENERATED}"),
    ({"pool": {"sources": [{"dataset": "x", "weight": 1}, {"dataset": "y"}]}}, f"pool: {ONE_WEIGHT}"),
    (
        {"pool": {"sources": [{"dataset": "x", "weight": 1, "rows": 5}, {"dataset": "y", "weight": 2}]}},
        "pool.sources.0: rows and weight say twice how many rows are drawn; state one of them",
    ),
    (
        {"evaluate": {"preferences": {"dataset": "x", "streaming": True}}},
        f"evaluate.preferences: {WANTS_SAMPLE}",
    ),
    (
        {"evaluate": {"preferences": {"dataset": "x", "streaming": True, "sample": 5, "seed": 1}}},
        f"evaluate.preferences: seed {NO_EFFECT}",
    ),
    (
        {"evaluate": {"preferences": {"dataset": "x", "rows": 5}}},
        "evaluate.preferences: rows: is for builtin:, which generates that many; sample: draws that many pairs",
    ),
    ({"pool": {"dataset": "x", "seed": 3}}, f"pool: seed {NO_EFFECT}"),
    ({"pool": {"dataset": "x", "instruction_share": [0.5, 0.5]}}, f"pool: {no_range([0.5, 0.5])}"),
    ({"pool": {"dataset": "x", "instruction_share": [-0.1, 0.5]}}, f"pool: {no_range([-0.1, 0.5])}"),
    ({"pool": {"dataset": "x", "instruction_share": [0.5, 1.5]}}, f"pool: {no_range([0.5, 1.5])}"),
    (
        {"pool": {"sources": [QUICKSTART], "split": "train", "dataset": "x"}},
        "pool: sources: stands alone; move dataset, split into an entry of it",
    ),
    ({"pool": {"sources": [QUICKSTART, {"builtin": "quickstart"}]}}, f"pool.sources.1: {WANTS_ROWS}"),
    ({"pool": {"sources": [{}]}}, f"pool.sources.0: {ONE_ORIGIN}"),
    ({"evaluate": {"heldout": {"dataset": "x", "seed": 3}}}, f"evaluate.heldout: seed {NO_EFFECT}"),
    (
        {"evaluate": {"heldout": {"dataset": "x", "instruction_share": [0.6, 0.5]}}},
        f"evaluate.heldout: {no_range([0.6, 0.5])}",
    ),
    ({"sft": {"model": "m", "global_batch_size": 8, "data": {}}}, f"sft.data: {ONE_ORIGIN}"),
    (
        {"base": {"builtin": "miniature", "pretrain": {"global_batch_size": 8, "data": {"builtin": "quickstart"}}}},
        f"base.pretrain.data: {WANTS_ROWS}",
    ),
    (trained(), f"{DATA}: {ONE_ORIGIN}"),
    (trained(dataset="x", **QUICKSTART), f"{DATA}: {ONE_ORIGIN}"),
    (trained(builtin="quickstart"), f"{DATA}: builtin: needs rows:, the number of rows to generate"),
    (trained(dataset="x", rows=3), f"{DATA}: rows {NO_EFFECT}"),
    (trained(dataset="x", seed=3), f"{DATA}: seed {NO_EFFECT}"),
    (
        trained(dataset="x", rank_within_instruction=True),
        f"{DATA}: rank_within_instruction: needs label:, the column by which answers are ranked",
    ),
    (trained(dataset="x", instruction_share=[1, 0]), f"{DATA}: {no_range([1.0, 0.0])}"),
    ({"select": {}}, "select: method deita needs budget:, the rows to keep"),
    ({"select": {"method": "random"}}, "select: method random needs budget:, the rows to keep"),
    ({"select": {"method": "whole_pool", "budget": 5}}, "select: method whole_pool has no budget: leave it out"),
    ({"evaluate": {}}, "evaluate: state heldout: (conversations), preferences: (pairs), or both"),
    (
        {"evaluate": {"preferences": {"dataset": "x"}, "samples": 2}},
        "evaluate: samples: are answers to the prompts of heldout:; state it, or leave samples: out",
    ),
    ({"scorers": {}}, "scorers: name at least one scorer: complexity: or quality:"),
    ({"scorers": {"quality": {}}}, f"scorers.quality: {ORIGIN_OF_A_SCORER}"),
    ({"scorers": {"complexity": {"model": "m", "train": TRAINED}}}, f"scorers.complexity: {ORIGIN_OF_A_SCORER}"),
]


@pytest.mark.parametrize(("data", "message"), OWN_VALIDATORS)
def test_what_a_section_s_own_check_refuses(tmp_path, data, message):
    assert refusal(tmp_path, data) == message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "a b"}, "name: 'a b' is text; expected text like ^[A-Za-z0-9][A-Za-z0-9._-]*$"),
        ({"name": ".hidden"}, "name: '.hidden' is text; expected text like ^[A-Za-z0-9][A-Za-z0-9._-]*$"),
        ({"seed": 1.5}, "seed: 1.5 is a decimal number; expected a whole number"),
        ({"seed": True}, "seed: true is a boolean; expected a whole number"),
        ({"sfft": {}}, "sfft: unknown key (did you mean sft?)"),
        ({"sft": {**SFT, "lr": 1e-5}}, "sft.lr: unknown key (did you mean trainer.learning_rate?)"),
        ({"sft": {**SFT, "max_steps": 2}}, "sft.max_steps: unknown key (did you mean trainer.max_steps?)"),
        ({"dpo": {**DPO, "beta": 0.2}}, "dpo.beta: unknown key (did you mean trainer.beta?)"),
        ({"sft": {**SFT, "lora": {}}}, "sft.lora: unknown key (did you mean peft?)"),
        ({"sft": {**SFT, "max_seq_length": 9}}, "sft.max_seq_length: unknown key (did you mean trainer.max_length?)"),
        ({"pool": "x"}, "pool: 'x' is text; expected a mapping"),
        ({"pool": {"sources": []}}, "pool.sources: [] is a list; expected at least 1 items"),
        (
            {"pool": {"dataset": "x", "instruction_share": [0.1]}},
            "pool.instruction_share: [0.1] is a list; expected at least 2 items",
        ),
        (
            {"pool": {"dataset": "x", "roles": {"human": "person"}}},
            "pool.roles.human: 'person' is not allowed; expected user, assistant, system or tool",
        ),
        (
            {"pool": {"dataset": "x", "format": "sharegptt"}},
            "pool.format: 'sharegptt' is not allowed (did you mean sharegpt?); expected sharegpt, messages, alpaca, "
            "prompt_completion, instruction_response, question_answer or query_response",
        ),
        (
            {"pool": {"dataset": "x", "data_files": 5}},
            "pool.data_files: 5 is a whole number; expected text or a list (put it in quotes)",
        ),
        (
            {"pool": {"dataset": "x", "data_files": [5]}},
            "pool.data_files.0: 5 is a whole number; expected text (put it in quotes)",
        ),
        ({"pool": {"dataset": "x", "fraction": 1}}, "pool.fraction: 1 is a whole number; expected less than 1.0"),
        ({"select": {"budget": 0}}, "select.budget: 0 is a whole number; expected more than 0 or a mapping"),
        (
            {"select": {"budget": "6_000"}},
            "select.budget: '6_000' is text; expected a whole number, {share: 0.1} or {tokens: 5000000} (write it "
            "without quotes and underscores)",
        ),
        ({"select": {"budget": 5, "threshold": -1}}, "select.threshold: -1 is a whole number; expected more than -1.0"),
        ({"select": {"budget": 5, "methd": "random"}}, "select.methd: unknown key (did you mean method?)"),
        ({"sft": {"model": "m"}}, "sft.global_batch_size: missing key"),
        (
            {"scorers": {"quality": {"model": "m", "max_unscored_share": 1.5}}},
            "scorers.quality.max_unscored_share: 1.5 is a decimal number; expected at most 1.0",
        ),
        (
            {"base": {"builtin": "miniature", "architecture": {"vocab_size": 299}, "pretrain": PRETRAIN}},
            "base.architecture.vocab_size: 299 is a whole number; expected at least 300",
        ),
    ],
)
def test_types_and_limits(tmp_path, data, message):
    assert refusal(tmp_path, data) == message


def test_only_the_sources_of_a_pool_have_a_weight(tmp_path):
    assert refusal(tmp_path, {"pool": {"dataset": "x", "weight": 1}}).startswith("pool.weight: unknown key")
    sft = {"model": "m", "global_batch_size": 8, "data": {"dataset": "x", "weight": 1}}
    assert refusal(tmp_path, {"sft": sft}).startswith("sft.data.weight: unknown key")


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_a_threshold_is_finite(tmp_path, value):
    message = refusal(tmp_path, {"select": {"budget": 5}}, f"select.threshold={value}")
    assert message.startswith(f"--set select.threshold={value}: select.threshold: ")


def test_a_pool_is_one_source_or_several():
    one = Pool.model_validate({"dataset": "x", "split": "train", "roles": {"bot": "assistant"}})
    assert one.all_sources() == [Source(dataset="x", split="train", roles={"bot": "assistant"})]
    several = Pool.model_validate({"sources": [{"dataset": "b"}, {"dataset": "a"}]})
    assert [source.dataset for source in several.all_sources()] == ["b", "a"]


def test_a_pool_and_a_source_have_the_same_keys():
    assert set(Pool.model_fields) - {"sources", "deduplicate", "mix"} == set(Source.model_fields)
    assert set(WeightedSource.model_fields) - set(Source.model_fields) == {"weight"}


@pytest.mark.parametrize(
    ("fields", "draw"),
    [
        ({"dataset": "x"}, {}),
        ({"dataset": "x", "rows": 5}, {"rows": 5}),
        ({"dataset": "x", "fraction": 0.5}, {"fraction": 0.5}),
        ({"dataset": "x", "weight": 2}, {"weight": 2.0}),
        ({"dataset": "x", "streaming": True, "sample": 9, "rows": 5}, {"rows": 5}),
        (QUICKSTART, {}),
        ({**QUICKSTART, "weight": 2}, {"weight": 2.0}),
    ],
)
def test_what_is_drawn_of_a_source(fields, draw):
    source = WeightedSource.model_validate(fields)
    assert source.draw == draw and source.is_drawn == bool(draw)
    if draw:
        assert WeightedSource.model_validate({**fields, "seed": 3}).seed == 3


def test_files_of_a_dataset_are_a_pattern_or_a_list():
    assert Source.model_validate({"dataset": "x", "data_files": "a*"}).patterns == ["a*"]
    assert Source.model_validate({"dataset": "x", "data_files": ["b", "a"]}).patterns == ["b", "a"]
    assert Source.model_validate({"dataset": "x"}).patterns == []


def members(annotation):
    """The types in a field's annotation, those of unions and in lists included."""
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType, list):
        return [member for argument in get_args(annotation) for member in members(argument)]
    if get_origin(annotation) is dict and get_args(annotation)[1] is LlmEndpoint:
        return [LlmEndpoint]
    return [] if annotation is NoneType else [annotation]


def test_three_fields_are_unions_with_a_section():
    """What `validation` relies on when it looks for the section that a key stands in."""
    todo, seen, unions = [Recipe], set(), []
    while todo:
        section = todo.pop()
        seen.add(section)
        for name, field in section.model_fields.items():
            inside = members(field.annotation)
            sections = [one for one in inside if isinstance(one, type) and issubclass(one, Section)]
            assert "deita_train" not in str([one for one in inside if one not in sections])
            if sections and len(inside) > 1:
                unions.append(f"{section.__name__}.{name}")
            todo += [one for one in sections if one not in seen]
    assert len(seen) > 15 and sorted(unions) == ["PairSelection.budget", "ScorerTraining.data", "Select.budget"]


def test_the_defaults_of_the_paper():
    recipe = Recipe.model_validate({"name": "a", "select": {"budget": 6000}})
    assert recipe.select is not None
    assert (recipe.select.method, recipe.select.threshold, recipe.select.score) == ("deita", 0.9, "evol")


@pytest.mark.parametrize(
    ("embedding", "message"),
    [
        ({}, "state either model: .* or sentence_transformer:"),
        ({"model": "a", "sentence_transformer": "b"}, "state either model: .* or sentence_transformer:"),
        ({"sentence_transformer": "b", "pooling": "last_token"}, "pooling would have no effect beside"),
        ({"sentence_transformer": "b", "chat_template": "x"}, "chat_template would have no effect beside"),
        ({"model": "a", "pooling": "max"}, "'last_token' or 'mean'"),
        ({"model": "a", "storage": "bfloat16"}, "'float32' or 'float16'"),
    ],
)
def test_an_embedding_has_one_encoder_and_nothing_without_effect(embedding, message):
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate({"name": "a", "embedding": embedding})


SFT = {"model": "a", "global_batch_size": 4}


@pytest.mark.parametrize(
    ("sft", "is_per_conversation"),
    [
        ({}, False),
        ({"loss": "per_token"}, False),
        ({"loss": "per_conversation"}, True),
        ({"parity": True}, True),
        ({"parity": True, "loss": "per_conversation"}, True),
        ({"parity": True, "trainer": {"loss_type": "nll", "label_smoothing_factor": 0}}, True),
        ({"trainer": {"loss_type": "dft"}}, False),
    ],
)
def test_parity_has_the_loss_per_conversation(sft, is_per_conversation):
    recipe = Recipe.model_validate({"name": "a", "sft": {**SFT, **sft}})
    assert recipe.sft is not None and recipe.sft.is_per_conversation == is_per_conversation


@pytest.mark.parametrize(
    ("sft", "message"),
    [
        ({"parity": True, "loss": "per_token"}, "loss: per_token would have no effect beside parity: true"),
        ({"loss": "per_row"}, "'per_token' or 'per_conversation'"),
        ({"parity": True, "trainer": {"loss_type": "dft"}}, "trainer.loss_type weights tokens differently"),
        ({"loss": "per_conversation", "trainer": {"label_smoothing_factor": 0.1}}, "trainer.label_smoothing_factor"),
    ],
)
def test_a_loss_that_cannot_be_is_refused(sft, message):
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate({"name": "a", "sft": {**SFT, **sft}})


def test_a_length_to_shorten_to_is_refused_beside_parity():
    scorer = {"model": "org/m", "parity": True}
    assert Recipe.model_validate({"name": "a", "scorers": {"quality": scorer}}).scorers.quality.parity
    with pytest.raises(ValidationError, match="max_length would have no effect beside parity: true"):
        Recipe.model_validate({"name": "a", "scorers": {"quality": {**scorer, "max_length": 2048}}})


def test_a_recipe_cannot_be_changed():
    recipe = Recipe.model_validate({"name": "a", "select": {"budget": 5}})
    with pytest.raises(ValidationError, match="frozen"):
        recipe.select.budget = 6
    with pytest.raises(ValidationError, match="frozen"):
        recipe.name = "b"


def test_whole_numbers_stand_for_decimal_ones():
    assert Recipe.model_validate({"name": "a", "select": {"budget": 5, "threshold": 1}}).select.threshold == 1.0
