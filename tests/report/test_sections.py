import json
from dataclasses import replace

import datasets
import numpy as np
from fake_run import edit_json, keep_stages

from deita_train.report.figures.comparison_figure import comparison_png, plane_of
from deita_train.report.page import write_report
from deita_train.report.results.groups import groups_of
from deita_train.report.results.summary import read_summary
from deita_train.report.sections.all_sections import sections_of
from deita_train.report.sections.answer_section import answer_section
from deita_train.report.sections.comparison_section import comparison_section
from deita_train.report.sections.intake_sections import pool_section
from deita_train.report.sections.scorer_section import scorer_section
from deita_train.selection.measures.compared import as_json
from deita_train.selection.measures.comparison import compare
from deita_train.store.model_links import place_link


def titles(run):
    summary = read_summary(*run)
    return [section.title for section in sections_of(summary, groups_of(summary))]


def test_sections_are_there_when_their_data_is(run, undrawn):
    assert titles(run) == [
        "Result", "From pool to subset", "Selection", "Map of the embeddings", "Scorers", "Training", "Pool",
        "Cards for the Hub", "Time", "Provenance", "Recipe",
    ]  # fmt: skip
    keep_stages(run[0], "pool", "score.quality")
    assert titles(run) == ["Scorers", "Pool", "Time", "Provenance", "Recipe"]
    keep_stages(run[0], "score.quality")
    assert "Scorers" in write_report(*run).read_text()


def test_rows_that_could_not_be_ranked_are_counted_with_the_reason(run, undrawn):
    def text():
        summary = read_summary(*run)
        return next(s for s in sections_of(summary, groups_of(summary)) if s.title == "Selection").text

    assert text().startswith("The base run kept 80 of the pool's 400 rows with the method deita. Rows")
    drops = {"ifd_not_below_one": 38, "not_selected": 282}
    edit_json(run[1] / "select-deita" / "manifest.json", lambda manifest: manifest.update(drops=drops))
    assert "deita. 38 could not be ranked: 38 have an IFD of 1 or more. Rows" in text()


def test_a_number_that_rows_lack_is_named_with_why(run, undrawn, monkeypatch):
    summary = read_summary(*run)
    stages = summary.base_cell.stages
    select = stages["select"]
    metrics = {**select.metrics, "method": "ifd", "columns": {"ifd": {"selected": 0.7, "pool": 0.5, "lacking": 10}}}
    manifest = {**select.manifest, "drops": {"no_value": 10, "not_selected": 310}}
    monkeypatch.setitem(stages, "select", replace(select, metrics=metrics, manifest=manifest))
    of = {
        "rows": 400, "measured": 390, "nulls": {"answer_beyond_max_length": 10}, "max_length": 64, "truncated": 9,
    }  # fmt: skip
    monkeypatch.setitem(stages, "perplexity", replace(select, metrics=of))
    text = next(s for s in sections_of(summary, groups_of(summary)) if s.title == "Selection").text
    assert "10 could not be ranked: 10 have no ifd." in text
    assert (
        "Perplexity and IFD are known of 390 of 400 rows (without: 10 answer beyond max length); 9 rows were cut"
        in text
    )
    assert "cut at 64 tokens. The mean ifd is over the rows that have one: 10 of the pool's lack it." in text


def test_rows_that_were_not_drawn_are_usable(run, undrawn, monkeypatch):
    summary = read_summary(*run)
    pool = summary.base_cell.stages["pool"]
    drops = {**pool.metric("drops"), "not_sampled": 280}
    monkeypatch.setitem(summary.base_cell.stages, "pool", replace(pool, metrics={**pool.metrics, "drops": drops}))
    assert pool_section(summary, groups_of(summary)).text.startswith("430 rows read, 680 usable, 400 of them drawn;")


def test_rows_that_were_never_embedded_are_counted(run, undrawn):
    def section():
        summary = read_summary(*run)
        return next(s for s in sections_of(summary, groups_of(summary)) if s.title == "Selection")

    assert "were embedded" not in section().text
    (figure,) = [figure for figure in section().figures if figure.name == "nearest-similarity"]
    trace = datasets.load_from_disk(str(run[1] / "select-deita" / "trace"))
    reached = len(trace) - trace["nearest_similarity"].count(None)
    assert f"It covers these {reached} rows and not the other {400 - reached} of the pool." in figure.text
    edit_json(run[1] / "embed-0" / "metrics.json", lambda found: found.update(rows_embedded=256, rows_saved=144))
    assert section().text.endswith("Only the 256 rows that the walk needed were embedded; 144 of 400 were saved.")


def test_a_run_without_any_artefact_still_has_a_page(run, undrawn):
    keep_stages(run[0])
    assert titles(run) == ["Recipe"]
    assert "neither selected rows nor evaluated" in write_report(*run).read_text()


def test_what_the_rows_of_the_pool_hold_is_told(run, undrawn):
    def notes():
        summary = read_summary(*run)
        return next(s for s in sections_of(summary, groups_of(summary)) if s.title == "Pool").notes

    left_out = "Columns of the source that were left out: lang."
    assert notes() == (left_out,)
    found = {"json_columns": {"meta": "lists or objects (first at p:1)"}, "message_fields": {"score": 2}}
    edit_json(run[1] / "pool-0" / "metrics.json", lambda metrics: metrics.update(found))
    assert notes() == (
        left_out,
        "Column 'meta' is kept as JSON: lists or objects (first at p:1).",
        "2 messages with a field 'score', which is kept, and which only a chat template of your own may read.",
    )


def test_a_selection_that_does_not_walk_has_no_similarities(run):
    def change(record):
        record["cells"] = record["cells"][3:]
        record["cells"][0]["base"] = True

    edit_json(run[0] / "stages.json", change)
    summary = read_summary(*run)
    assert summary.trace.nearest_similarity is None
    selection = next(s for s in sections_of(summary, groups_of(summary)) if s.title == "Selection")
    assert [figure.name for figure in selection.figures] == ["length", "turns"]
    assert selection.tables == () and "passed over" not in selection.text


def test_a_scorer_that_looks_like_a_wrong_model_is_named_beside_its_scores(run):
    sure = scorer_section(read_summary(*run), ())
    assert [note for note in sure.notes if "wrong model" in note] == []
    path = run[1] / "score-quality" / "metrics.json"
    edit_json(path, lambda metrics: metrics.update(wrong_model_suspected=True, digit_mass_mean=0.312))
    found = [note for note in scorer_section(read_summary(*run), ()).notes if "wrong model" in note]
    assert len(found) == 1 and "quality scorer" in found[0] and "only 31.2% of its probability" in found[0]


def test_a_comparison_of_methods_has_its_section(run, undrawn):
    run_dir, store = run
    rows = {
        "id": ["a", "b", "c", "d"],
        "messages": [[{"role": "user", "content": "q"}, {"role": "assistant", "content": "x" * n}] for n in range(4)],
    }
    found = compare(
        datasets.Dataset.from_dict(rows), np.eye(4, dtype=np.float32), {"deita": ["a", "b"], "random": ["b", "c"]}
    )
    folder = store / "compare-1"
    folder.mkdir()
    select = next(store.glob("select-*"))
    (folder / "manifest.json").write_text((select / "manifest.json").read_text().replace(select.name, "compare-1"))
    (folder / "metrics.json").write_text(json.dumps({"comparison": as_json(found)}))
    record = json.loads((run_dir / "stages.json").read_text())
    next(cell for cell in record["cells"] if cell["base"])["stages"]["compare"] = "compare-1"
    (run_dir / "stages.json").write_text(json.dumps(record))
    figures = comparison_section(read_summary(run_dir, store), ()).figures
    assert [figure.draw().startswith("<svg") for figure in figures] == [True, True]
    page = write_report(run_dir, store)
    text = (page.parent / "report.md").read_text()
    section = text[text.index("## Methods compared") :]
    assert "How diverse the selections are" in section and "| 1 deita | 1.00 | 0.33 |" in section
    # Without scores NovelSum stands over the length; a row has 1 + n characters.
    assert "NovelSum (higher is more diverse) against mean characters of a row" in section
    assert (page.parent / "figures" / "methods-in-plane.svg").exists()
    assert (page.parent / "figures" / "method-overlap.svg").exists()
    assert comparison_png(found).startswith(b"\x89PNG")
    assert plane_of(found).points["deita"][0] == 1.5 and plane_of(found).points["random"][0] == 2.5


def test_the_report_says_where_the_models_are(run, swept):
    (section,) = (one for one in sections_of(read_summary(*run), ()) if one.title == "Cards for the Hub")
    assert section.notes == (), "a run without links"
    assert section.links == (("sft", "cards/sft.md"), ("select", "cards/select.md"))
    # 6 models, and the selections by deita and by random with three seeds.
    assert section.text == (
        "Each tuned model and each selection has a README.md for the Hub, and deita-train push uploads both. "
        "8 cards of the sweep's other cells are beside them, named by artefact."
    )
    run_dir, store = swept
    model = next(store.glob("sft-deita*")) / "model"
    model.mkdir(exist_ok=True)
    for link in ("sft", "dpo", "cells/random, seed 1/sft"):
        place_link(run_dir / link, model)
    (section,) = (one for one in sections_of(read_summary(*swept), ()) if one.title == "Cards for the Hub")
    assert section.notes == (
        "In this run's folder, sft and dpo lead to the models of the base run.",
        "The models of the sweep's other cells are in its folder cells, such as cells/random, seed 1/sft.",
    )
    (run_dir / "dpo").unlink()
    (section,) = (one for one in sections_of(read_summary(*swept), ()) if one.title == "Cards for the Hub")
    assert section.notes[0] == "In this run's folder, sft leads to the model of the base run."


def answered(text, *, is_ended=True):
    return {"prompt": "Why | <b>so</b>?\nTell me.", "answer": text, "tokens": 3, "is_ended": is_ended}


def test_answers_of_the_base_runs_models_stand_side_by_side(run, undrawn):
    given = {
        "evaluate-base": {"answers": {"r1": answered("No\nidea"), "r2": answered("<script>")}},
        "evaluate-deita-1": {"answers": {"r1": answered("Because"), "r2": answered("it is", is_ended=False)}},
    }
    for name, metrics in given.items():
        edit_json(run[1] / name / "metrics.json", lambda old, new=metrics: old.update(new))
    summary = read_summary(*run)
    section = answer_section(summary, groups_of(summary))
    (table,) = section.tables
    assert table.titles == ("prompt", "base", "SFT")
    prompt = "Why | <b>so</b>?\nTell me."
    assert table.rows == ((prompt, "No\nidea", "Because"), (prompt, "<script>", "it is\N{HORIZONTAL ELLIPSIS}"))
    assert "2 held-out prompts" in section.text and "was cut off" in table.note
    page = write_report(*run).read_text()
    assert "&lt;script&gt;" in page and '<td class="prose"><script>' not in page
    assert r"Why \| \<b\>so\</b\>? Tell me." in (run[0] / "report" / "report.md").read_text()


def test_without_answers_there_is_no_section_of_them(run):
    summary = read_summary(*run)
    assert answer_section(summary, groups_of(summary)) is None


def test_a_cleaned_pool_is_part_of_the_funnel(run, undrawn, monkeypatch):
    summary = read_summary(*run)
    pool = summary.base_cell.stages["pool"]
    drops = {"exact_copy": 30, "near_copy": 10}
    examples = {"exact_copy": ["b repeats a (similarity 1.000)"]}
    metrics = {"rows_in": 400, "rows_out": 360, "drops": drops, "examples": examples, "mean_turns": 2.0}
    monkeypatch.setitem(summary.base_cell.stages, "clean_pool", replace(pool, metrics=metrics))
    section = pool_section(summary, groups_of(summary))
    assert section.text.startswith(
        "430 rows read, 400 usable, 360 left once the pool was cleaned; a conversation has 2.0 t"
    )
    assert ("clean pool", "exact_copy", "30", "7.5%") in section.tables[0].rows
    assert ("exact_copy", ("b repeats a (similarity 1.000)",)) in section.quotes
