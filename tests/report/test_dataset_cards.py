"""Cards of selections: what their heads and texts say, against runs built in code."""

import json
from dataclasses import replace

import datasets
import huggingface_hub
import pytest
from huggingface_hub import DatasetCard as HubsOwn
from test_cards import change, parts

from deita_train.report.cards.dataset_cards import dataset_cards_of, type_words
from deita_train.report.page import write_report
from deita_train.report.results.summary import read_summary
from deita_train.report.templating import render_dataset_card
from deita_train.selection.settings import METHODS


def cards(run):
    return {card.file: render_dataset_card(card) for card in dataset_cards_of(read_summary(*run))}


def test_every_selection_has_one_card_and_the_base_run_a_short_name(run, undrawn):
    found = cards(run)
    assert sorted(found) == ["select-random-1.md", "select-random-2.md", "select-random-3.md", "select.md"]
    written = (write_report(*run).parent / "cards").iterdir()
    assert found == {path.name: path.read_text() for path in written if path.name.startswith("select")}
    assert "It belongs to the cell random-2 of a sweep, which sets select.method: random" in found["select-random-2.md"]
    assert "--stage select --cell 'random-2' --output" in found["select-random-2.md"]
    assert "It belongs to the cell" not in found["select.md"] and "--cell" not in found["select.md"]


def test_the_head_names_the_files_the_size_and_the_hubs_data(run):
    text = cards(run)["select.md"]
    front, _ = parts(text)
    assert front == {
        "tags": ["deita", "data-selection"],
        "size_categories": ["n<1K"],
        "source_datasets": ["org/pool"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
    }
    data = HubsOwn(text, ignore_metadata_errors=False).data
    assert data.license is None and data.language is None and data.source_datasets == ["org/pool"]


@pytest.mark.parametrize(
    ("rows", "category"),
    [(999, "n<1K"), (1000, "1K<n<10K"), (6000, "1K<n<10K"), (10_000, "10K<n<100K"), (10**6, "1M<n<10M")],
)
def test_the_size_is_one_of_the_hubs_classes(run, rows, category):
    change(run[1] / "select-deita" / "metrics.json", rows_out=rows)
    assert parts(cards(run)["select.md"])[0]["size_categories"] == [category]


def test_the_text_says_what_the_manifests_say(run):
    change(run[1] / "select-deita" / "manifest.json", drops={"not_selected": 315, "no_scored_turn": 5})
    _, found = parts(cards(run)["select.md"])
    assert "80 conversations that deita-train selected from 400 of org/pool." in found["What it is"]
    assert "content digest " + "0123456789abcdef" * 4 in found["What it is"]
    origin = found["What it was selected from"]
    assert "430 rows read, 400 usable; dropped: empty reply: 20, no user turn: 10." in origin
    assert f"| org/pool on the Hub | commit {'c' * 40}, split train |" in origin
    assert r"| mine\_1.jsonl, a local file or folder | content digest dddddddddddd |" in origin
    how = found["How it was selected"]
    assert "80 of 400 rows were kept by the method deita, which keeps the rows with the highest score first" in how
    assert "Of the others, 315 were not chosen, 5 have no score to be ranked by. The seed of the recipe is 7." in how
    assert "| budget | 80 |" in how and "| threshold | 0.9 (highest" in how
    digest = "0123456789ab"
    scorer = (
        rf"a scorer trained in this run (artefact scorer-complexity, content digest {digest}) on org/base on the Hub"
    )
    assert f"| complexity scores | {scorer} at commit {'b' * 40}; rank correlation 0.910 on 50 held-out rows |" in how
    assert "| embeddings | a local folder (content digest aaaaaaaaaaaa), 128 dimensions |" in how
    assert (
        "```yaml\nname: fake\n```\n\n    deita-train run recipe.yaml --until select\n" in found["How to make it again"]
    )
    assert "name: fake  # <script>\nseed: 7" in found["Recipe"] and "torch 2.13.0, trl 1.16.0." in found["Versions"]
    assert 'load_dataset("user/name", split="train")' in found["How to load it"]
    assert "chosen by a model's scores" in found["Limits"]


def test_a_run_of_an_earlier_version_has_only_the_resolved_recipe(run):
    (run[0] / "recipe.stated.yaml").unlink()
    _, found = parts(cards(run)["select.md"])
    assert found["How to make it again"].startswith("\nWrite the recipe whose settings the section Recipe lists")


def test_columns_have_their_types_and_meanings(run):
    _, found = parts(cards(run)["select.md"])
    assert [line for line in found["Columns"].splitlines() if line.startswith("| ")][1:] == [
        "| id | string | the name of the row; no other has it |",
        "| messages | list of {role: string, content: string} | the conversation: role and content of each message, "
        "in order |",
        r"| near\_duplicate | bool | from the data that was selected from |",
        r"| true\_quality | float64 | from the data that was selected from |",
    ]


def test_types_in_words():
    text = datasets.Value("string")
    assert type_words(datasets.List(datasets.List(datasets.Value("float32")))) == "list of list of float32"
    assert type_words(datasets.List({"role": text, "calls": datasets.Json()})) == "list of {role: string, calls: JSON}"


def test_evol_score_and_measured_columns_are_explained_by_how_they_were_made(run):
    store = run[1] / "select-deita"
    manifest = json.loads((store / "manifest.json").read_text())
    rows = datasets.Dataset.from_dict({"id": ["a"], "evol_score": [1.0], "perplexity": [2.0]})
    (card,) = (card for card in dataset_cards_of(read_summary(*run)) if card.is_base)
    rows.save_to_disk(str(store.parent / "other" / "data"))

    def meanings(**changed):
        item = replace(card.item, folder=store.parent / "other", manifest=manifest | changed)
        return {name: meaning for name, _, meaning in replace(card, item=item).columns}

    assert meanings()["evol_score"] == "complexity times quality, the sum over the user turns; null for none"
    assert meanings()["perplexity"] == "from the data that was selected from"
    changed = {"config": manifest["config"] | {"score_turns": "mean"}, "parents": {"perplexity": "pool-0"}}
    assert "the mean over the user turns" in meanings(**changed)["evol_score"]
    assert meanings(**changed)["perplexity"].startswith("perplexity of the answers under the model")


def test_what_the_rows_were_searched_for_is_told(run):
    (card,) = (card for card in dataset_cards_of(read_summary(*run)) if card.is_base)

    def told():
        return " ".join(parts(render_dataset_card(card))[1]["Questions of benchmarks"].split())

    assert told() == "Not searched for: the rows may repeat questions of benchmarks."
    stages = card.cell.stages
    stages["contamination.selected"] = replace(
        stages["pool"], metrics={"found": 1, "rows": 80, "benchmarks": {"mt_bench": {}, "alpaca_eval": {}}}
    )
    assert told().startswith(
        r"The kept rows were searched for the questions of mt\_bench, alpaca\_eval: 1 row of 80 repeats one. A row "
        "repeats a question if it has 13 successive words of it"
    )
    removed = replace(stages["pool"], metrics={"found": 3, "rows": 400, "benchmarks": {"mine.jsonl": {}}})
    stages["decontaminate"] = replace(removed, manifest={**removed.manifest, "id": "found-1"})
    assert "removed" not in told(), "the selection did not read it"
    card.item.manifest["parents"]["contamination"] = "found-1"
    assert told().startswith(
        "3 rows of the 400 that repeat a question of mine.jsonl were removed before the selection. The kept rows"
    )


@pytest.fixture
def pool_card(tmp_path, monkeypatch):
    """Puts a card of the pool into the Hub's cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / "datasets--org--pool" / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    return (snapshot / "README.md").write_text


@pytest.mark.parametrize(
    ("head", "licence"),
    [
        ("---\nlicense: apache-2.0\nlanguage: en\n---\n", {"license": "apache-2.0"}),
        ("---\nlicense:\n- mit\n---\n", {"license": "mit"}),
        ("---\nlicense: [mit, apache-2.0]\n---\n", {}),
        ("---\nlanguage: en\n---\n", {}),
        ("no head", {}),
    ],
)
def test_the_licence_is_what_the_pools_card_states(run, pool_card, head, licence):
    pool_card(head)
    change(run[1] / "pool-0" / "manifest.json", config={"sources": [{"hub": "org/pool", "revision": "c" * 40}]})
    text = cards(run)["select.md"]
    front, found = parts(text)
    assert {name: front[name] for name in front if name.startswith("license")} == licence
    assert HubsOwn(text).data.license == licence.get("license") and "language" not in front
    said = "as the card of org/pool states it" if licence else "Whoever publishes it must state it"
    assert said in " ".join(found["Licence"].split())


def test_a_licence_of_some_of_the_data_is_told_and_not_stated_for_all(run, pool_card):
    pool_card("---\nlicense: mit\n---\n")  # the other source of the fake pool is a local file
    front, found = parts(cards(run)["select.md"])
    assert "license" not in front
    assert "org/pool: mit, as its card states; \nmine\\_1.jsonl: not known." in found["Licence"]


def test_selected_pairs_have_a_card(swept):
    summary = read_summary(*swept)
    stages = summary.base_cell.stages
    rows = datasets.Dataset.from_dict(
        {"id": ["a"], "prompt": [[{"role": "user", "content": "x"}]], "chosen": ["y"], "rejected": ["z"], "score": [1]}
    )
    pairs = stages["dpo_data"]
    rows.save_to_disk(str(pairs.folder / "data"))
    config = {"by": "margin", "order": "smallest", "budget": 32}
    manifest = {**pairs.manifest, "id": "pairs-1", "config": config, "drops": {"not_selected": 266, "no_value": 2}}
    metrics = {"rows_in": 300, "rows_out": 32, "drops": {}, "margin": {"selected": 0.25, "all": 3.0}}
    stages["dpo_pairs"] = replace(pairs, manifest=manifest, metrics=metrics)
    (card,) = (card for card in dataset_cards_of(summary) if card.label == "dpo_pairs")
    front, found = parts(render_dataset_card(card))
    assert card.file == "dpo_pairs.md" and front["tags"] == ["deita", "data-selection", "dpo"]
    assert front["source_datasets"] == ["org/pairs"]
    assert "32 preference pairs that deita-train selected from 300 of org/pairs." in found["What it is"]
    assert "305 pairs read, 300 usable" in found["What it was selected from"]
    how = " ".join(found["How it was selected"].split())
    assert how.startswith(
        "32 pairs of 300 were kept: those with the smallest margin between the chosen and the rejected answer, by "
        "their log-probabilities under the SFT model of this run, which started from org/base on the Hub"
    )
    assert (
        "The budget was 32; the mean margin is 0.2500 of the kept pairs and 3.000 of all. Of the others, 266 were"
        in how
    )
    assert "2 have no number to be ranked by" in how and "| selection |" not in how
    assert "| chosen | string | the better answer |" in found["Columns"]
    assert found["Questions of benchmarks"].strip().startswith("Not searched for: the pairs may")
    stages["contamination.dpo_data"] = replace(pairs, metrics={"found": 2, "rows": 300, "benchmarks": {"mt_bench": {}}})
    told = parts(render_dataset_card(card))[1]["Questions of benchmarks"]
    assert r"All pairs, before the selection, were searched for the questions of mt\_bench: 2 pairs of 300" in told
    config["by"] = "score"
    assert "by the data's score. The budget" in " ".join(
        parts(render_dataset_card(card))[1]["How it was selected"].split()
    )


def test_every_method_is_described(run):
    (card,) = (card for card in dataset_cards_of(read_summary(*run)) if card.is_base)
    for method in METHODS:
        card.item.manifest["config"]["method"] = method
        assert card.method_words, method
    card.item.manifest["config"]["method"] = "one of tomorrow"
    assert "kept by the method one of tomorrow." in render_dataset_card(card)
