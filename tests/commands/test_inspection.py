"""`inspect` on the tiny recipe, of which nothing is made but a base's tokenizer: one token for each byte."""

import datasets
import pytest
from tiny_recipe import dpo_recipe, no_gpus, plan, recipe  # noqa: F401
from typer.testing import CliRunner

from deita_train.cli import app
from deita_train.commands.inspection import inspect_row
from deita_train.data.quickstart import make_pool, make_scorer_rows
from deita_train.errors import UserError
from deita_train.training.miniature import train_tokenizer

pytestmark = pytest.mark.usefixtures("no_gpus")
SEED, ROWS, SCORER_ROWS = 7, 60, 40  # as the tiny recipe has them


def publish(made, label):
    """Leave what a published artefact is recognised by."""
    folder = made.store.path(made.cells[0].nodes[label].id)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    return folder


def planned(folder, data=None, *sets):
    """A plan whose base is made."""
    made = plan(folder, data or dpo_recipe(), *sets)
    base = made.cells[0].nodes["base"]
    model = publish(made, "base") / "model"
    train_tokenizer([], 259, base.identity["chat_template"], model)
    (model / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 1024}')
    return made


def facts(shown):
    return dict(shown.facts)


def marked(shown):
    return [token.id for sequence in shown.sequences for token in sequence.tokens if token.marked]


def num_bytes(*texts):
    return sum(len(text.encode()) for text in texts)


def test_sft_is_shown_first_and_its_rows_are_the_pools_until_some_are_selected(tmp_path):
    made = planned(tmp_path)
    shown = inspect_row(made, None, None)
    first = make_pool(ROWS, SEED)[0]
    assert facts(shown)["row"].startswith(f"{first['id']}, source {first['source']} (the first with a loss)")
    assert facts(shown)["data"] == f"pool (select is not made yet), read from its source, {ROWS} rows"
    assert facts(shown)["tokenizer"] == f"of base, {made.cells[0].nodes['base'].id}"
    assert facts(shown)["template"] == "vicuna_v1.1"
    answers = [message["content"] for message in first["messages"] if message["role"] == "assistant"]
    # Each answer is written as a space, its bytes and the end of turn.
    assert len(marked(shown)) == sum(1 + num_bytes(answer) + 1 for answer in answers)
    assert (shown.verb, shown.max_length) == ("trained", 1024)  # of sft's 2,048 what the base's context holds


def test_a_published_selection_is_what_sft_reads(tmp_path):
    made = planned(tmp_path)
    chosen = make_pool(ROWS, SEED)[9]
    table = [{name: chosen[name] for name in ("id", "messages", "source")}]
    datasets.Dataset.from_list(table).save_to_disk(str(publish(made, "select") / "data"))
    shown = inspect_row(made, "sft", None)
    assert facts(shown)["row"].startswith(chosen["id"])
    assert facts(shown)["data"] == f"select, {made.cells[0].nodes['select'].id}, 1 rows"
    with pytest.raises(UserError, match=r"--row no: sft has no such row. Its rows: .*; the first are " + chosen["id"]):
        inspect_row(made, "sft", "no")


def test_a_row_that_parity_holds_out_is_reported(tmp_path):
    made = planned(tmp_path, dpo_recipe(sft__parity=True))
    rows = [{name: row[name] for name in ("id", "messages", "source")} for row in make_pool(ROWS, SEED)[:10]]
    assert "note" not in facts(inspect_row(made, "sft", rows[5]["id"]))  # until select is made nobody can tell
    datasets.Dataset.from_list(rows).save_to_disk(str(publish(made, "select") / "data"))
    # Of ten rows the one at place 5 is held out: see tests/training/test_parity.py.
    notes = [facts(inspect_row(made, "sft", row["id"])).get("note", "") for row in rows]
    assert ["holds this row out" in note for note in notes] == [place == 5 for place in range(10)]


@pytest.mark.parametrize("label", ["dpo", "reference"])
def test_pairs_with_parity_are_shown_as_they_are_read(tmp_path, label):
    shown = inspect_row(planned(tmp_path, dpo_recipe(dpo__parity=True)), label, None)
    assert facts(shown)["template"] == "vicuna_v1.1 with its roles in lower case (dpo.parity)"
    prompt = "".join(segment.text for segment in shown.sequences[0].segments)
    assert "user's questions. user: " in prompt and prompt.endswith(" assistant:") and "USER: " not in prompt


def test_a_row_by_its_id(tmp_path):
    wanted = make_pool(ROWS, SEED)[17]["id"]
    assert facts(inspect_row(planned(tmp_path), "embed", wanted))["row"].startswith(wanted)


@pytest.mark.parametrize("label", ["embed", "score.quality"])
def test_a_pass_without_a_stated_length_is_shown_with_the_models_context(tmp_path, label):
    assert inspect_row(planned(tmp_path), label, None).max_length == 1024


def test_a_stated_length_is_shown(tmp_path):
    assert inspect_row(planned(tmp_path, None, "embedding.max_length=700"), "embed", None).max_length == 700


def test_an_unknown_row_names_the_nearest(tmp_path):
    made = planned(tmp_path)
    known = [row["id"] for row in make_pool(ROWS, SEED)]
    with pytest.raises(
        UserError, match=f"--row {known[3]}x: embed has no such row. Its rows: .*; the nearest are {known[3]}; "
    ):
        inspect_row(made, "embed", known[3] + "x")
    with pytest.raises(UserError, match=f"; the first are {known[0]}; {known[1]}; {known[2]}\\.$"):
        inspect_row(made, "embed", "QQQQ")


def test_a_scorers_row_is_trained_on_its_digit_and_end(tmp_path):
    made = planned(tmp_path)
    first = make_scorer_rows("quality", SCORER_ROWS, SEED)[0]
    shown = inspect_row(made, "train_scorer.quality", None)
    (sequence,) = shown.sequences
    # The control tokens are 0, 1 and 2, and the bytes follow in order from "!": the digit d is the 16 + d - 1-th.
    digit, end = marked(shown)
    assert end == 1
    assert [segment.text for segment in sequence.segments if segment.state == "marked"] == [
        str(first["score"]),
        "</s>",
    ]
    assert digit == 3 + ord(str(first["score"])) - ord("!")
    assert facts(shown)["prompt"] == "the quality scorer's"
    assert f"{SCORER_ROWS} labelled rows" in facts(shown)["data"]


def test_a_scorer_still_to_be_trained_has_the_tokenizer_of_its_base(tmp_path):
    made = planned(tmp_path)
    shown = inspect_row(made, "score.complexity", None)
    assert facts(shown)["tokenizer"].startswith("of base, ")
    assert (shown.verb, marked(shown)) == ("", [])


@pytest.mark.parametrize(
    ("label", "verb", "data"),
    [
        ("dpo", "trained", "dpo_data"),
        ("reference", "measured", "dpo_data"),
        ("evaluate_pairs.dpo", "measured", "heldout_pairs"),
    ],
)
def test_pairs(tmp_path, label, verb, data):
    shown = inspect_row(planned(tmp_path), label, None)
    assert [sequence.title for sequence in shown.sequences] == ["prompt", "chosen", "rejected"]
    assert shown.verb == verb
    assert facts(shown)["data"].startswith(f"{data}, read from its source")


def test_every_stage_that_gives_rows_to_a_model_can_be_shown(tmp_path):
    made = planned(tmp_path)
    with pytest.raises(UserError) as caught:
        inspect_row(made, "select", None)
    listed = str(caught.value).split("it has ")[1].rstrip(".").split(", ")
    kinds = {"base", "train_scorer", "score", "embed", "sft", "log_probs", "dpo", "evaluate", "generate"}
    assert listed == [label for label, node in made.cells[0].nodes.items() if node.kind in kinds]
    assert len(listed) == 15
    for label in listed:
        assert inspect_row(made, label, None).sequences


def test_a_recipe_without_rows_for_a_model(tmp_path):
    made = plan(tmp_path, {"name": "p", "pool": {"builtin": "quickstart", "rows": 5}})
    with pytest.raises(UserError, match="no stage that gives rows to a model"):
        inspect_row(made, None, None)


def test_without_sft_and_dpo_the_first_other_stage_is_shown(tmp_path):
    made = planned(tmp_path, recipe("sft", "evaluate"))
    assert facts(inspect_row(made, None, None))["stage"].startswith("base: ")


@pytest.mark.parametrize(
    ("label", "says"),
    [("sft", "sft takes the tokenizer of base, which is"), ("base", "base trains its own tokenizer, and is")],
)
def test_a_base_that_is_not_made_names_the_command_that_makes_it(tmp_path, label, says):
    made = plan(tmp_path, dpo_recipe(), "seed=8")
    command = f"deita-train run {tmp_path}/recipe.yaml --set seed=8 --runs {tmp_path}/runs --until base"
    with pytest.raises(UserError) as caught:
        inspect_row(made, label, None)
    assert str(caught.value) == f"{says} not made yet. Make it first: {command}"


def test_a_model_from_outside_gives_its_own_tokenizer(tmp_path):
    model = tmp_path / "model"
    train_tokenizer([], 259, "", model)
    (model / "config.json").write_text('{"model_type": "llama"}')
    pool = {"builtin": "quickstart", "rows": 6}
    made = plan(tmp_path, dpo_recipe("base", "scorers", "embedding", "select", sft__model=str(model), sft__data=pool))
    assert facts(inspect_row(made, "sft", None))["tokenizer"] == f"of {model}"
    assert facts(inspect_row(made, "evaluate.dpo", None))["tokenizer"] == f"of {model}"


def test_no_row_has_a_loss_within_a_short_limit(tmp_path):
    made = planned(tmp_path, None, "sft.trainer.max_length=20")
    with pytest.raises(UserError, match="sft: no row has a token to learn from or to measure within max_length 20"):
        inspect_row(made, "sft", None)
    wanted = make_pool(ROWS, SEED)[0]["id"]
    shown = inspect_row(made, "sft", wanted)
    assert facts(shown)["note"] == "no token has a loss: the row is left out"
    assert len(shown.sequences[0].tokens) == 20


def test_the_command(tmp_path):
    planned(tmp_path)
    path, runs = str(tmp_path / "recipe.yaml"), str(tmp_path / "runs")
    # One with more tokens than are listed: each of its bytes is one.
    row = next(row for row in make_pool(ROWS, SEED) if num_bytes(*(m["content"] for m in row["messages"])) > 300)
    answer = CliRunner().invoke(app, ["inspect", path, "--runs", runs, "--row", row["id"]])
    assert answer.exit_code == 0, answer.output
    last = next(m["content"] for m in reversed(row["messages"]) if m["role"] == "assistant")
    assert f"[[ {last}</s>]]" in answer.output
    assert "--all-tokens lists them" in answer.output
    whole = CliRunner().invoke(app, ["inspect", path, "--runs", runs, "--row", row["id"], "--all-tokens"])
    assert "--all-tokens lists them" not in whole.output
    shorter = ["--row", row["id"], "--set", "sft.trainer.max_length=300"]
    cut = CliRunner().invoke(app, ["inspect", path, "--runs", runs, *shorter])
    assert "tokens beyond max_length 300 (" in cut.output
