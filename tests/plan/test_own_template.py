"""`chat_template: tokenizer`: the model's own template, found in its files at planning time."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny_recipe import dpo_recipe, graph, no_gpus, plan, recipe  # noqa: F401

from deita_train.data.shipped_templates import TEMPLATES_DIR
from deita_train.errors import UserError
from deita_train.plan.model_templates import own_template

pytestmark = pytest.mark.usefixtures("no_gpus")
COMMIT = "a" * 40
MARKED = "{{ bos_token }}{% generation %}{{ messages[0]['content'] }}{% endgeneration %}"
OTHER = MARKED.replace("bos_token", "eos_token")
UNMARKED = "{{ messages[0]['content'] }}"


def make_folder(folder, jinja=None, stated=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": stated} if stated is not None else {}))
    if jinja is not None:
        (folder / "chat_template.jinja").write_text(jinja)
    return folder


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"jinja": MARKED}, MARKED),
        ({"stated": MARKED}, MARKED),
        ({"jinja": MARKED, "stated": OTHER}, MARKED),
        ({"stated": [{"name": "tool_use", "template": OTHER}, {"name": "default", "template": MARKED}]}, MARKED),
        ({"stated": [{"name": "tool_use", "template": OTHER}]}, None),
        ({}, None),
    ],
)
def test_where_a_folder_has_its_template(tmp_path, files, found):
    assert own_template({}, str(make_folder(tmp_path / "m", **files))) == found


def test_it_is_what_transformers_reads(tmp_path):
    from deita_train.data.rendering import load_tokenizer
    from deita_train.training.miniature import train_tokenizer

    train_tokenizer([], 259, MARKED, tmp_path)
    assert own_template({}, str(tmp_path)) == load_tokenizer(str(tmp_path)).chat_template == MARKED
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": OTHER}))
    assert own_template({}, str(tmp_path)) == load_tokenizer(str(tmp_path)).chat_template
    (tmp_path / "chat_template.jinja").unlink()
    assert own_template({}, str(tmp_path)) == load_tokenizer(str(tmp_path)).chat_template == OTHER


def test_the_key_holds_the_text_of_the_models_own(tmp_path):
    folder = make_folder(tmp_path / "m", jinja=MARKED)
    own = {"sft__model": str(folder), "sft__chat_template": "tokenizer"}
    sft = graph(tmp_path, recipe(**own))["sft"]
    assert sft.identity["chat_template"] == MARKED
    counted = graph(tmp_path, recipe(**own, select__budget={"tokens": 1000}))["lengths"]
    assert counted.identity["chat_template"] == MARKED
    (tmp_path / "mine.jinja").write_text(MARKED)
    named = graph(tmp_path, recipe(**{**own, "sft__chat_template": str(tmp_path / "mine.jinja")}))["sft"]
    assert named.key == sft.key


def test_of_a_base_that_the_recipe_makes_it_is_the_bases(tmp_path):
    keys = {graph(tmp_path, recipe(sft__chat_template=name))["sft"].key for name in ("tokenizer", "vicuna_v1.1")}
    assert len(keys) == 1


def test_evaluation_of_a_model_with_its_own(tmp_path):
    folder = make_folder(tmp_path / "m", jinja=MARKED)
    evaluate = {"model": str(folder), "chat_template": "tokenizer", "heldout": {"builtin": "quickstart_heldout"}}
    evaluate["heldout"]["rows"] = 4
    nodes = graph(tmp_path, {"name": "only", "evaluate": evaluate})
    assert nodes["evaluate.base"].identity["chat_template"] == MARKED


def refusal(folder, **changes):
    with pytest.raises(UserError) as caught:
        graph(folder, recipe(sft__chat_template="tokenizer", **changes))
    return str(caught.value).removeprefix(f"{folder / 'r.yaml'}: ")


def test_a_model_without_a_template_is_reported_if_its_own_is_asked_for(tmp_path):
    bare = make_folder(tmp_path / "bare")
    assert refusal(tmp_path, sft__model=str(bare)) == (
        f"sft.chat_template: tokenizer: {bare} has no chat template of its own (a base model rarely has one); name a "
        "template instead."
    )


def test_an_own_template_without_marks_is_taken_as_it_is_and_its_answers_are_found_in_the_rows(tmp_path):
    unmarked = make_folder(tmp_path / "unmarked", jinja=UNMARKED)
    identity = graph(tmp_path, recipe(sft__model=str(unmarked), sft__chat_template="tokenizer"))["sft"].identity
    assert (identity["chat_template"], identity["published_template"]) == (UNMARKED, None)


def test_without_a_stated_template_a_model_gets_its_own_and_a_base_the_default(tmp_path):
    bare, own = make_folder(tmp_path / "bare"), make_folder(tmp_path / "own", jinja=MARKED)
    nodes = [graph(tmp_path, recipe(sft__model=str(folder)))["sft"] for folder in (bare, own)]
    vicuna = (TEMPLATES_DIR / "vicuna_v1.1.jinja").read_text(encoding="utf-8")
    assert [node.identity["chat_template"] for node in nodes] == [vicuna, MARKED]
    assert [node.runtime["template"] for node in nodes] == [
        "vicuna_v1.1, the default for a model without a template",
        "the model's own template",
    ]


def test_a_template_known_to_trl_is_trained_in_its_form_and_published_as_it_was(tmp_path):
    trl = Path(find_spec("trl").submodule_search_locations[0]) / "chat_templates"
    qwen, marked = (trl / f"qwen3{form}.jinja" for form in ("", "_training"))
    folder = make_folder(tmp_path / "m", jinja=qwen.read_text(encoding="utf-8"))
    node = graph(tmp_path, recipe(sft__model=str(folder)))["sft"]
    assert node.identity["chat_template"] == marked.read_text(encoding="utf-8")
    assert node.identity["published_template"] == qwen.read_text(encoding="utf-8")
    assert node.runtime["template"] == "the model's own template in trl's training form of qwen3"


def test_a_damaged_file_is_reported(tmp_path):
    folder = make_folder(tmp_path / "m")
    (folder / "tokenizer_config.json").write_text('{"chat_template": ')
    assert "tokenizer_config.json is not valid JSON" in refusal(tmp_path, sft__model=str(folder))


@pytest.mark.parametrize(("section", "label"), [("embedding", "embed"), ("perplexity", "perplexity")])
def test_a_pass_over_the_pool_takes_the_models_own(tmp_path, section, label):
    folder = make_folder(tmp_path / "m", jinja=MARKED)
    (tmp_path / "mine.jinja").write_text(MARKED)
    own, named = (
        graph(tmp_path, recipe(**{section: {"model": str(folder), "chat_template": name}}))[label]
        for name in ("tokenizer", str(tmp_path / "mine.jinja"))
    )
    assert own.identity["chat_template"] == MARKED and own.key == named.key


@pytest.mark.parametrize("section", ["embedding", "perplexity"])
def test_a_pass_with_the_own_template_of_a_base_that_the_recipe_makes(tmp_path, section):
    label = {"embedding": "embed"}.get(section, section)
    keys = {
        graph(tmp_path, recipe(**{section: {"model": "base", "chat_template": name}}))[label].key
        for name in ("tokenizer", "vicuna_v1.1")
    }
    assert len(keys) == 1


def test_a_file_needs_marks_for_a_loss_and_none_for_an_embedding(tmp_path):
    (tmp_path / "unmarked.jinja").write_text("\ufeff" + UNMARKED, encoding="utf-8")
    named = {"model": str(make_folder(tmp_path / "m")), "chat_template": str(tmp_path / "unmarked.jinja")}
    assert graph(tmp_path, recipe(embedding=named))["embed"].identity["chat_template"] == UNMARKED
    with pytest.raises(UserError, match=r"perplexity\.chat_template: .*unmarked\.jinja: it does not mark what the"):
        graph(tmp_path, recipe(perplexity=named))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty Hub cache without a network; returns where the files of org/m at COMMIT belong."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache" / "models--org--m" / "snapshots" / COMMIT


HUB = {"hub": "org/m", "revision": COMMIT}


def test_a_hub_models_template_is_taken_from_the_cache(tmp_path, cache):
    make_folder(cache, jinja=MARKED)
    hub = {"sft__model": "org/m", "sft__revision": COMMIT, "sft__chat_template": "tokenizer"}
    assert graph(tmp_path, recipe(**hub))["sft"].identity["chat_template"] == MARKED
    make_folder(cache, jinja=MARKED)
    (cache / "chat_template.jinja").unlink()
    (cache / "tokenizer_config.json").write_text(json.dumps({"chat_template": OTHER}))
    assert own_template(HUB, "org/m") == OTHER


def test_what_the_cache_has_needs_no_network(cache, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)
    make_folder(cache, jinja=MARKED)
    assert own_template(HUB, "org/m") == MARKED
    (cache / "chat_template.jinja").unlink()
    known_absent = cache.parent.parent / ".no_exist" / COMMIT
    known_absent.mkdir(parents=True)
    (known_absent / "chat_template.jinja").touch()
    assert own_template(HUB, "org/m") is None


def test_what_is_missing_is_fetched_at_the_commit_of_the_plan(cache, monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub.errors import RemoteEntryNotFoundError

    fetched = make_folder(tmp_path / "fetched", stated=MARKED)
    asked = []

    def download(hub, name, revision):
        asked.append((hub, name, revision))
        if not (fetched / name).exists():
            raise RemoteEntryNotFoundError.__new__(RemoteEntryNotFoundError)
        return str(fetched / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert own_template(HUB, "org/m") == MARKED
    assert asked == [("org/m", name, COMMIT) for name in ("chat_template.jinja", "tokenizer_config.json")]


def test_what_can_be_found_nowhere_is_reported(tmp_path, cache):
    told = refusal(tmp_path, sft__model="org/m", sft__revision=COMMIT)
    assert told.startswith(
        f"sft.chat_template: tokenizer: chat_template.jinja of org/m at {COMMIT} is not in the local"
    )
    assert told.endswith("Check the network and your access to it (hf auth login), or name a template.")


def test_our_own_templates_can_be_a_models_own(tmp_path):
    names = sorted(path.stem for path in TEMPLATES_DIR.glob("*.jinja"))
    assert len(names) == 6
    for name in names:
        text = (TEMPLATES_DIR / f"{name}.jinja").read_text(encoding="utf-8")
        folder = make_folder(tmp_path / name, jinja=text)
        sft = graph(tmp_path, recipe(sft__model=str(folder), sft__chat_template="tokenizer"))["sft"]
        assert sft.identity["chat_template"] == text


def test_what_follows_says_which_template_the_training_has(tmp_path):
    own = {"sft__model": str(make_folder(tmp_path / "own", jinja=MARKED)), "sft__chat_template": None}
    unmarked = {"sft__model": str(make_folder(tmp_path / "plain", jinja=UNMARKED)), "sft__chat_template": "tokenizer"}
    (tmp_path / "mine.jinja").write_text(MARKED)
    file = {"sft__chat_template": str(tmp_path / "mine.jinja")}
    for changes, words in (
        (own, "the model's own template"),
        (unmarked, "the model's own template (answers located by rendering)"),
        (file, str(tmp_path / "mine.jinja")),
        ({"sft__chat_template": "zephyr"}, "zephyr"),
    ):
        nodes = graph(tmp_path, dpo_recipe(**changes))
        for label in ("sft", "reference", "dpo", "evaluate.base", "evaluate.dpo"):
            assert nodes[label].runtime["template"] == words, label


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"sft.chat_template: nix.jinja does not exist \(looked in /"):
        graph(tmp_path, recipe(sft__chat_template="nix.jinja"))


def test_later_sections_treat_rows_as_sft_does_unless_they_say_otherwise(tmp_path):
    how = {"sft__unsupported_fields": "text", "sft__max_refused_share": 0.25}
    nodes = plan(tmp_path, dpo_recipe(**how, dpo__max_refused_share=0.5)).cells[0].nodes
    for label, share in (("sft", 0.25), ("reference", 0.5), ("dpo", 0.5), ("evaluate.base", 0.25)):
        assert nodes[label].identity["unsupported_fields"] == "text"
        assert nodes[label].runtime["max_refused_share"] == share
    own = plan(tmp_path, dpo_recipe(**how, evaluate__unsupported_fields="drop")).cells[0].nodes
    assert own["evaluate.base"].identity["unsupported_fields"] == "drop"
    plain = plan(tmp_path, dpo_recipe()).cells[0].nodes
    assert plain["dpo"].runtime["max_refused_share"] == 0.01 and "unsupported_fields" not in plain["dpo"].hashed
