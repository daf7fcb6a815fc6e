"""Which sections' models may execute code of their own, by `trust_remote_code` of the recipe."""

import pytest
from tiny_recipe import no_gpus, plan, recipe  # noqa: F401

from deita_train.errors import UserError

pytestmark = pytest.mark.usefixtures("no_gpus")
TRAINED = ("sft", "scorers")


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Two folders that are models by their looks, named as sections name them."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(f'{{"name": "{name}"}}')
    return tmp_path


def passes(**changes):
    """A recipe of passes over models from outside."""
    data = recipe("base", "scorers", "sft", "evaluate", **{"embedding__model": "one", "select__method": "random"})
    data["perplexity"] = {"model": "two"}
    data["scorers"] = {"quality": {"model": "two"}}
    return data | changes


def trusted(made):
    return {
        label for label, node in made.cells[0].nodes.items() if node.identity.get("model", {}).get("trust_remote_code")
    }


def test_only_what_is_listed_is_trusted_and_other_keys_stay(models):
    plain, listed = plan(models, passes()), plan(models, passes(trust_remote_code=["two"]))
    assert trusted(plain) == set()
    assert trusted(listed) == {"perplexity", "score.quality"}
    keys = [{label: node.key for label, node in made.cells[0].nodes.items()} for made in (plain, listed)]
    assert {label for label in keys[0] if keys[0][label] != keys[1][label]} == trusted(listed)


def test_encoders_and_evaluated_models_too(models):
    data = passes(trust_remote_code=["one"])
    data["embedding"] = {"sentence_transformer": "one"}
    data["evaluate"] = {"model": "one", "heldout": {"builtin": "quickstart_heldout", "rows": 16}}
    assert trusted(plan(models, data)) == {"embed", "evaluate.base"}


def test_a_name_that_no_section_uses_is_an_error(models):
    with pytest.raises(UserError, match=r"trust_remote_code: no section names a model tvo \(did you mean 'two'\?\)"):
        plan(models, passes(trust_remote_code=["one", "tvo"]))
    with pytest.raises(UserError, match="the recipe names none"):
        plan(models, recipe(trust_remote_code=["base"]))
    with pytest.raises(UserError, match="trust_remote_code"):
        plan(models, passes(trust_remote_code=[]))


def test_a_sweep_over_models_may_use_a_name_in_one_cell(models):
    sweep = {"embedding.model": ["two"], "until": "embed"}
    data = passes(trust_remote_code=["two"], sweep=sweep)
    del data["perplexity"], data["scorers"]
    made = plan(models, data)
    assert trusted(made) == set()
    assert made.cells[1].nodes["embed"].identity["model"]["trust_remote_code"] is True


@pytest.mark.parametrize(
    ("where", "changes"),
    [
        ("sft.model", {"sft__model": "one"}),
        ("scorers.quality.train.model", {"scorers__quality__train__model": "one"}),
        ("dpo.model", {"dpo__model": "one"}),
    ],
)
def test_a_training_is_refused_because_its_folder_would_hold_no_code(models, where, changes):
    data = recipe(trust_remote_code=["one"], **changes)
    if where == "dpo.model":
        data["dpo"] |= {"preferences": {"builtin": "quickstart_preferences", "rows": 9}, "global_batch_size": 8}
        del data["sft"], data["evaluate"]
    with pytest.raises(UserError, match=rf"{where}: one is under trust_remote_code, and a training publishes a folder"):
        plan(models, data)
