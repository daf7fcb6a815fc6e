import json
from dataclasses import replace

import huggingface_hub
import pytest
from fake_run import edit_json
from huggingface_hub import ModelCard
from ruamel.yaml import YAML

from deita_train.data.shipped_templates import shipped_template, template_name
from deita_train.report.cards.card_names import PLACE
from deita_train.report.cards.model_cards import cards_of
from deita_train.report.page import write_report
from deita_train.report.results.summary import read_summary
from deita_train.report.tables.result_tables import result_tables
from deita_train.report.templating import render_card


def parts(text):
    """A card's front matter as data, and its parts' texts by title."""
    _, front, body = text.split("---\n", 2)
    found = {title: rest for title, _, rest in (part.partition("\n") for part in body.split("\n## ")[1:])}
    return YAML(typ="safe").load(front), found


def cards(run):
    return {card.file: render_card(card) for card in cards_of(read_summary(*run))}


def page(run):
    """The report as Markdown, without the signs that escape."""
    write_report(*run)
    return (run[0] / "report" / "report.md").read_text().replace("\\", "")


def change(path, **values):
    edit_json(path, lambda record: record.update(values))


def test_every_tuned_model_has_one_card_and_the_base_run_a_short_name(swept, undrawn):
    # 21 trainings by SFT of which one failed, whose DPO failed too, and one more DPO that failed.
    found = cards(swept)
    assert {"sft.md", "dpo.md"} <= set(found) and len(found) == 20 + 19
    written = {path.name: path.read_text() for path in (write_report(*swept).parent / "cards").iterdir()}
    assert found == {name: text for name, text in written.items() if not name.startswith("select")}
    assert "sft-random-40-1.md" in found and "sft-random-160-3.md" not in found
    assert "It belongs to the cell random, budget 40, seed 1 of a sweep" in found["sft-random-40-1.md"]
    assert "It belongs to the cell" not in found["sft.md"]


def test_front_matter_names_base_and_data_of_the_hub_only(run, swept):
    front, _ = parts(cards(run)["sft.md"])
    assert front == {
        "base_model": "org/base",
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["deita", "trl", "sft"],
        "datasets": ["org/pool"],
    }
    front, _ = parts(cards(swept)["dpo.md"])
    assert front["base_model"] == "org/base" and front["tags"] == ["deita", "trl", "sft", "dpo"]
    assert sorted(front["datasets"]) == ["org/pairs", "org/pool"]
    assert parts(cards(swept)["sft.md"])[0]["tags"] == ["deita", "trl", "sft"], "DPO is not in this model"


def test_the_hubs_own_reader_takes_the_head_of_every_card(run, swept):
    for text in [*cards(run).values(), cards(swept)["dpo.md"]]:
        data = ModelCard(text, ignore_metadata_errors=False).data
        assert (data.library_name, data.pipeline_tag, data.base_model) == (
            "transformers",
            "text-generation",
            "org/base",
        )
        assert {"trl", "sft"} <= set(data.tags) and "org/pool" in data.datasets and data.license is None
    assert "dpo" in data.tags


@pytest.fixture
def base_card(tmp_path, monkeypatch):
    """Puts a card of the base into the Hub's cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / "models--org--base" / "snapshots" / ("b" * 40)
    snapshot.mkdir(parents=True)
    return (snapshot / "README.md").write_text


OTHER = {"license": "other", "license_name": "my: own", "license_link": "LICENSE"}


@pytest.mark.parametrize(
    ("head", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [x]\n---\n# Base\n", {"license": "apache-2.0"}),
        ("---\r\nlicense: mit\r\n---\r\n", {"license": "mit"}),
        ("---\nlicense: other\nlicense_name: 'my: own'\nlicense_link: LICENSE\n---", OTHER),
        ("---\nlicense_name: mine\n---\n", {}),
        ("---\nlicense: [a, b]\n---\n", {}),
        ("---\nlicense: 'a\n---\n", {}),
        ("---\n- license\n---\n", {}),
        ("# Base\n\n---\nlicense: mit\n---\n", {}),
        ("", {}),
    ],
)
def test_the_licence_is_what_the_bases_card_states(run, base_card, head, licence):
    base_card(head)
    text = cards(run)["sft.md"]
    front, found = parts(text)
    assert {name: front[name] for name in front if name.startswith("license")} == licence
    assert ModelCard(text).data.license == licence.get("license")
    said = "as its card states it" if licence else "The run does not know the licence"
    assert said in " ".join(found["Limits"].split())


def test_a_card_says_what_the_manifests_say(run):
    _, found = parts(cards(run)["sft.md"])
    assert f"from org/base on the Hub at commit {'b' * 40}" in found["What it is"]
    assert "content digest " + "0123456789abcdef" * 4 in found["What it is"]
    data = found["Data"]
    assert "430 rows read, 400 usable; dropped: empty reply: 20, no user turn: 10." in data
    assert f"| org/pool on the Hub | commit {'c' * 40}, split train |" in data
    assert r"| mine\_1.jsonl, a local file or folder | content digest dddddddddddd |" in data
    assert "| rows kept | 80 of 400 |" in data and "| threshold | 0.9 (highest" in data
    assert "rank correlation 0.910 on 50 held-out rows" in data  # of the scorer of complexity
    assert "| trainer.learning\\_rate | 2e-05 |" in found["Method"]
    assert "| 2.290 |" in found["Results"] and "| 3.200 | 2.290 |" in found["Results"]
    assert "name: fake  # <script>\nseed: 7" in found["Recipe"]
    assert "torch 2.13.0, trl 1.16.0." in found["Versions"]


def test_only_a_selection_that_read_scores_tells_of_scorers(swept):
    found = cards(swept)
    by_scores, at_random = (parts(found[name])[1] for name in ("sft.md", "sft-random-40-1.md"))
    assert "| complexity scores | a scorer" in by_scores["Data"] and "chosen by a model's scores" in by_scores["Limits"]
    assert "scores" not in at_random["Data"] + at_random["Limits"]


def test_every_field_of_a_training_is_reported(run):
    manifest = run[1] / "sft-deita-1" / "manifest.json"
    config = json.loads(manifest.read_text())["config"]
    change(manifest, config=config | {"loss": "per_conversation", "parity": True, "new_field": "x|y"})
    _, found = parts(cards(run)["sft.md"])
    assert "mean over conversations of a global batch" in found["Method"]
    assert "| parity | True |" in found["Method"] and r"| new field | x\|y |" in found["Method"]


def test_what_was_not_measured_is_said_to_be_so(run):
    record = json.loads((run[0] / "stages.json").read_text())
    for cell in record["cells"]:
        cell["stages"] = {name: of for name, of in cell["stages"].items() if not name.startswith("evaluate")}
    (run[0] / "stages.json").write_text(json.dumps(record))
    change(run[1] / "scorer-quality" / "metrics.json", heldout=None)
    _, found = parts(cards(run)["sft.md"])
    assert "not measured in this run" in found["Results"] and "| measure |" not in found["Results"]
    assert "rank correlation not measured" in found["Data"]
    assert "Nothing of what the model can do is measured: losses on held-out rows" in found["Limits"]


def test_results_stand_beside_those_of_the_models_before(swept):
    sft, dpo = (card for card in cards_of(read_summary(*swept)) if card.is_base)
    table = dpo.results
    rows = {row[0]: row[1:] for row in table.rows}
    assert table.titles == ("measure", "before SFT", "after SFT", "after DPO")
    # Seed 1 lies 0.01 below the mean loss of its budget, 2.30, and DPO adds 0.05.
    assert rows["held-out loss per assistant token, nats"] == ("3.200", "2.290", "2.340")
    assert rows["chosen answer is the likelier one"] == ("55.0%", "61.0%", "67.0%")
    assert rows["reward accuracy of DPO"] == ("not measured", "not measured", "70.0%")
    assert sft.results.titles == ("measure", "before SFT", "after SFT")


@pytest.mark.parametrize(("merged", "library"), [(False, "peft"), (True, "transformers")])
def test_an_adapter_is_loaded_on_its_base(run, merged, library):
    manifest, metrics = (run[1] / "sft-deita-1" / name for name in ("manifest.json", "metrics.json"))
    config = json.loads(manifest.read_text())["config"]
    change(manifest, config=config | {"peft": {"r": 4}, "merge_adapter": merged})
    change(metrics, frozen_parameters=5_000_000)
    text = cards(run)["sft.md"]
    front, found = parts(text)
    assert front["library_name"] == library
    assert front["base_model_relation"] == ("finetune" if merged else "adapter")
    assert "| peft.r | 4 |" in found["Method"] and "5,000,000" in found["Method"]
    base = f'base = AutoModelForCausalLM.from_pretrained("org/base", revision="{"b" * 40}")'
    assert (base in found["How to load it"]) != merged
    assert text.count(f'place = "{PLACE}"') == 1


def test_a_template_of_ours_is_named_and_another_is_not(run):
    assert template_name(shipped_template("zephyr")) == "zephyr"
    assert template_name("{{ messages }}") is None
    assert "| chat template | the recipe's or the model's own, in chat" in cards(run)["sft.md"]
    assert len(cards_of(read_summary(*run))) == 6


def test_the_run_says_whose_template_it_is(run, undrawn):
    def name_template(words):
        edit_json(run[0] / "stages.json", lambda record: record["nodes"]["sft-deita-1"].update(template=words))
        return cards(run)["sft.md"].replace("\\", ""), page(run)

    own = "the model's own template (answers located by rendering)"
    card, report = name_template(own)
    assert f"| chat template | {own}, in chat" in card and f"Chat template of SFT: {own}." in report
    card, report = name_template("/home/me/mine.jinja")
    assert "| chat template | the file mine.jinja, in chat" in card and "Chat template of SFT: the file" in report
    assert "/home/me" not in card + report


def test_what_the_template_could_not_write_is_told(run, undrawn):
    manifest, metrics = (run[1] / "sft-deita-1" / name for name in ("manifest.json", "metrics.json"))
    assert "that the template does not know | left out |" in cards(run)["sft.md"]
    assert "end of turn" not in cards(run)["sft.md"]
    change(manifest, drops={"fields_not_written": 9, "without_loss": 1})
    change(metrics, end_of_turn=["<|im_end|>"])
    card, text = cards(run)["sft.md"].replace("\\", ""), page(run)
    assert ", 9 left out because the template cannot write them: fields" in card
    assert "| end of turn | <|im_end|> |" in card and "| kind of launch | one process |" in card
    line = "sft: 10 of the 90 selected rows were left out (fields_not_written 9, without_loss 1); trained on 80"
    assert line in text
    assert [row for table in result_tables(read_summary(*run)) for row in table.rows if row[0] == line] == [(line,)]
    config = json.loads(manifest.read_text())["config"]
    change(manifest, config=config | {"unsupported_fields": "text"})
    change(metrics, rows_as_text=20)
    assert "does not know | written as text (20 rows) |" in cards(run)["sft.md"]
    assert "20 rows with fields written as text." in page(run)


def test_a_local_model_and_given_scores_are_named_by_their_content(run):
    run_dir, store = run
    manifest = store / "sft-deita-1" / "manifest.json"
    config = json.loads(manifest.read_text())["config"]
    change(manifest, config=config | {"model": {"content": "a1" * 32, "base": {"hub": "org/base"}}})
    given = store / "scores-1"
    given.mkdir()
    record = json.loads((store / "score-quality" / "manifest.json").read_text())
    record |= {"id": "scores-1", "kind": "scores_file", "config": {"file": {"content": "b2" * 32}}}
    (given / "manifest.json").write_text(json.dumps(record))
    (given / "metrics.json").write_text("{}")

    def replace_scores(stages):
        cell = stages["cells"][0]["stages"]
        del cell["score.quality"], cell["train_scorer.quality"]
        cell["scores.quality"] = "scores-1"

    edit_json(run_dir / "stages.json", replace_scores)
    front, found = parts(cards(run)["sft.md"])
    assert "from a local folder, an adapter on org/base (content digest a1a1a1a1a1a1)." in found["What it is"]
    assert "base_model" not in front
    assert "| quality scores | a file made elsewhere (content digest b2b2b2b2b2b2) |" in found["Data"]


def test_data_behind_a_url_and_all_settings_of_the_selection_are_named(run):
    pool, select = (run[1] / name / "manifest.json" for name in ("pool-0", "select-deita"))
    change(pool, config={"sources": [{"url": "https://x.org/a.jsonl", "files": [{"size": 3}], "split": None}]})
    config = json.loads(select.read_text())["config"]
    change(select, config=config | {"whiten": None, "strata": {"by": "source"}, "only_trained_turns": True})
    _, found = parts(cards(run)["sft.md"])
    assert "| https://x.org/a.jsonl | as its 1 file was when the run began |" in found["Data"]
    assert '| strata | {"by": "source"} |' in found["Data"] and "| only trained turns | True |" in found["Data"]
    assert "whiten" not in found["Data"]


def test_what_was_left_of_the_pool_and_which_pairs_were_trained_on(swept):
    summary = read_summary(*swept)
    stages = summary.base_cell.stages
    drops = {"exact_copy": 3, "not_in_mix": 20}
    stages["clean_pool"] = replace(stages["pool"], metrics={**stages["pool"].metrics, "rows_out": 199, "drops": drops})
    config = {"by": "margin", "order": "smallest", "budget": 32}
    pairs = stages["dpo_data"]
    manifest = {**pairs.manifest, "config": config}
    stages["dpo_pairs"] = replace(pairs, manifest=manifest, metrics={**pairs.metrics, "rows_out": 32})
    found = {card.file: render_card(card) for card in cards_of(summary)}
    cleaned = "\n199 were left once others were dropped: exact\\_copy: 3, not\\_in\\_mix: 20.\n"
    chosen = (
        "\n32 of them were trained on: those with the smallest margin between the chosen and the rejected answer, by "
    )
    assert cleaned in found["sft.md"] and cleaned in found["dpo.md"]
    assert chosen + "the model before DPO.\n" in found["dpo.md"] and chosen not in found["sft.md"]
    config["by"] = "score"
    assert chosen + "the data's score.\n" in {card.file: render_card(card) for card in cards_of(summary)}["dpo.md"]
