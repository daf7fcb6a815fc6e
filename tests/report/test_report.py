import json
import re
import shutil
import warnings
from dataclasses import replace
from html.parser import HTMLParser

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deita_train.errors import UserError
from deita_train.report import page
from deita_train.report.figures import curves, drawing
from deita_train.report.figures import stage_figures as figures
from deita_train.report.figures.comparison_figure import comparison_png, plane_of
from deita_train.report.page import publish, write_report
from deita_train.report.results.groups import estimate, groups_of
from deita_train.report.results.quantities import heldout_loss
from deita_train.report.results.summary import read_summary
from deita_train.report.results.verdict import headline, verdict
from deita_train.report.sections.report_sections import sections_of
from deita_train.report.sections.selection_sections import scorer_section
from deita_train.report.tables import formats
from deita_train.report.tables.result_tables import kept_table, model_table, result_tables
from deita_train.selection.measures.compared import as_json
from deita_train.selection.measures.comparison import compare


def edit_json(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def keep_stages(run_dir, *labels, cells=1):
    """Cut the run down to some stages of its first cells."""

    def change(record):
        record["cells"] = record["cells"][:cells]
        for cell in record["cells"]:
            cell["stages"] = {label: cell["stages"][label] for label in labels}

    edit_json(run_dir / "stages.json", change)


def titles(run):
    summary = read_summary(*run)
    return [section.title for section in sections_of(summary, groups_of(summary))]


class Page(HTMLParser):
    """Collects what a browser would need: ids, links, anything fetched, and whether tags are balanced."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.fetched, self.open, self.tags = [], [], [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.tags.add(tag)
        if "id" in named:
            self.ids.append(named["id"])
        self.links += [named[name] for name in ("href", "xlink:href") if name in named]
        self.fetched += [named["src"]] if "src" in named else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_cells_that_differ_in_seeds_form_one_group(run):
    groups = groups_of(read_summary(*run))
    assert [(group.label, len(group.cells), group.base) for group in groups] == [
        ("deita", 3, True), ("random", 3, False),
    ]  # fmt: skip
    # The three deita cells share one selection; the three random ones have their own.
    assert [len(group.artefacts("select")) for group in groups] == [1, 3]
    assert groups[0].estimate("evaluate.sft", heldout_loss).n == 3


def test_the_base_group_comes_first_and_numbers_are_named(run):
    def change(record):
        for place, cell in enumerate(record["cells"]):
            cell["base"] = place == 4
            cell["settings"]["select.budget"] = 1000 * (1 + place % 2)

    edit_json(run[0] / "stages.json", change)
    groups = groups_of(read_summary(*run))
    assert [group.label for group in groups] == [
        "random, budget 1,000", "deita, budget 1,000", "deita, budget 2,000", "random, budget 2,000",
    ]  # fmt: skip
    assert groups[0].base and not any(group.base for group in groups[1:])


def test_a_run_without_a_sweep_is_named_by_its_method(run):
    keep_stages(run[0], "select")
    assert [group.label for group in groups_of(read_summary(*run))] == ["deita"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formats.count(1234567), "1,234,567"),
        (formats.compact(999), "999"),
        (formats.compact(12_345), "12.3 k"),
        (formats.compact(7_241_732_096), "7.24 B"),
        (formats.significant(-0.01234), "\N{MINUS SIGN}0.0123"),
        (formats.significant(0.0), "0.0"),
        (formats.share(0.0504), "5.0%"),
        (formats.duration(0.84), "0.8 s"),
        (formats.duration(59.6), "1 min 00 s"),
        (formats.duration(3 * 3600 + 5 * 60), "3 h 05 min"),
        (formats.estimated(None), "\N{EN DASH}"),
        (formats.estimated(estimate([2.0])), "2.000"),
        (formats.estimated(estimate([1.0, 2.0, 3.0])), "2.0 ± 2.5"),
        (formats.estimated(estimate([0.5, 0.5]), as_share=True), "50.0%"),
    ],
)
def test_numbers_as_text(text, expected):
    assert text == expected


def test_result_table_by_hand(run):
    result, scorers = result_tables(read_summary(*run))
    assert result.columns == ("", "deita", "random", "for comparison")
    rows = {row[0]: row[1:] for row in result.rows}
    # sd 0.01 and 0.02 over three seeds: half widths 4.302653 * sd / sqrt(3) = 0.0248 and 0.0497.
    assert rows["held-out loss after SFT"] == ("2.300 ± 0.025", "2.400 ± 0.050", "3.200 (before SFT)")
    assert rows["rows kept"] == ("80", "80", "400 (pool)")
    assert rows["planted duplicates rejected"] == ("95.0%", "\N{EN DASH}", "")
    assert rows["near duplicate share"][2] == "25.0% (pool)"
    assert rows["seeds"] == ("3", "3", "")
    assert scorers.columns[0] == "scorer" and [row[0] for row in scorers.rows] == ["complexity", "quality"]
    assert {len(row) for row in scorers.rows} == {len(scorers.columns)}


def test_calibration_of_the_scorers_by_hand(run):
    (_, (table, _)) = scorer_section(read_summary(*run), ()).tables
    titles = ["scorer", "bias", "slope", "intercept", *(f"label {label}" for label in range(1, 7))]
    assert [column.title for column in table.columns] == titles
    absent = "\N{EN DASH}"
    by_label = ("1.25 (30)", absent, absent, "3.50 (20)", absent, absent)
    assert table.rows == (
        ("complexity", "\N{MINUS SIGN}0.12", "1.50", "\N{MINUS SIGN}0.75", *by_label),
        ("quality", "\N{MINUS SIGN}1.12", "1.50", "\N{MINUS SIGN}0.75", *by_label),
    )


def test_a_scorer_that_looks_like_a_wrong_model_is_named_beside_its_scores(run):
    sure = scorer_section(read_summary(*run), ())
    assert [note for note in sure.notes if "wrong model" in note] == []
    path = run[1] / "score-quality" / "metrics.json"
    edit_json(path, lambda metrics: metrics.update(wrong_model_suspected=True, digit_mass_mean=0.312))
    found = [note for note in scorer_section(read_summary(*run), ()).notes if "wrong model" in note]
    assert len(found) == 1 and "quality scorer" in found[0] and "only 31.2% of its probability" in found[0]


def test_the_recipe_as_written_is_not_counted_beside_its_twin(run):
    summary = read_summary(*run)
    first, *others = summary.cells
    written = replace(first, settings={}, label="as written")
    doubled = replace(summary, cells=(written, replace(first, base=False), *others))
    groups = groups_of(doubled)
    assert [(group.label, len(group.cells), group.base) for group in groups] == [
        ("deita", 3, True),
        ("random", 3, False),
    ]


def test_tables_by_group_have_a_reference_and_one_row_per_group(run):
    summary = read_summary(*run)
    groups = groups_of(summary)
    for table, reference in ((model_table(groups), "before SFT"), (kept_table(summary, groups), "pool")):
        assert [row[0] for row in table.rows] == [reference, "deita", "random"]
        assert table.num_references == 1
        assert {len(row) for row in table.rows} == {len(table.columns)}
    assert [(column.title, column.note) for column in model_table(groups).columns[2:]] == [
        ("held-out loss after SFT", "lower is better"),
    ]  # fmt: skip


def test_verdict_says_what_the_numbers_say(run):
    summary = read_summary(*run)
    text = " ".join(verdict(summary, groups_of(summary)))
    assert "kept 80 of the pool's 400 rows (20.0%) with the method deita" in text
    assert "2.300 ± 0.025 nats per token (mean and 95% interval over 3 seeds), lower than the 3.200 before it" in text
    assert "0.100 lower than that of random" in text and "excludes zero" in text


def test_verdict_turns_with_the_numbers(run):
    for seed, loss in enumerate((2.45, 2.41, 2.37), start=1):
        edit_json(
            run[1] / f"evaluate-deita-{seed}" / "metrics.json",
            lambda record, loss=loss: record["heldout"].update(loss_per_token=loss),
        )
    summary = read_summary(*run)
    text = " ".join(verdict(summary, groups_of(summary)))
    assert "0.010 higher than that of random" in text
    assert "includes zero, so these seeds do not tell the two apart" in text


def test_verdict_of_single_seeds_claims_no_certainty(run):
    def change(record):
        record["cells"] = [record["cells"][0], record["cells"][3]]

    edit_json(run[0] / "stages.json", change)
    summary = read_summary(*run)
    text = " ".join(verdict(summary, groups_of(summary)))
    assert "(one seed)" in text and "the spread between seeds is unknown" in text


def test_headline_has_at_most_four_numbers(run):
    summary = read_summary(*run)
    numbers = headline(summary, groups_of(summary))
    assert [number.label for number in numbers] == [
        "held-out loss after SFT",
        "rows kept",
        "near-duplicates among the kept rows",
        "rank correlation of the scorers",
    ]
    assert numbers[0].value == "2.300 ± 0.025" and numbers[3].value == "0.91 / 0.81"


def test_sections_are_there_when_their_data_is(run):
    assert titles(run) == [
        "Result", "Selection", "Scorers", "Training", "Pool", "Model cards", "Time", "Provenance", "Recipe",
    ]  # fmt: skip
    keep_stages(run[0], "pool", "score.quality")
    assert titles(run) == ["Scorers", "Pool", "Time", "Provenance", "Recipe"]
    keep_stages(run[0], "score.quality")
    assert "Scorers" in write_report(*run).read_text()


def test_a_run_without_any_artefact_still_has_a_page(run):
    keep_stages(run[0])
    assert titles(run) == ["Recipe"]
    assert "neither selected rows nor evaluated" in write_report(*run).read_text()


def test_a_selection_that_does_not_walk_has_no_similarities(run):
    def change(record):
        record["cells"] = record["cells"][3:]
        record["cells"][0]["base"] = True

    edit_json(run[0] / "stages.json", change)
    summary = read_summary(*run)
    assert summary.trace.rejections == () and summary.trace.nearest_similarity is None
    selection = next(s for s in sections_of(summary, groups_of(summary)) if s.title == "Selection")
    assert [figure.name for figure in selection.figures] == ["length", "turns"]
    assert selection.tables == () and "passed over" not in selection.text


def test_rejections_run_from_the_nearest_pair_to_the_closest_call(run):
    rejections = read_summary(*run).trace.rejections
    similarities = [rejection.similarity for rejection in rejections]
    assert len(rejections) == 5 and similarities == sorted(similarities, reverse=True)
    for rejection in rejections:
        twin = int(rejection.blocked_by.removeprefix("pool:"))
        assert rejection.id == f"pool:{twin + 1}"
        assert rejection.kept_opening == f"Row {twin} asks | <b>for</b> help with a list."
    trace = datasets.load_from_disk(str(run[1] / "select-deita" / "trace"))
    rejected = [row["nearest_similarity"] for row in trace if row["blocked_by"] is not None]
    assert (similarities[0], similarities[-1]) == (max(rejected), min(rejected))


@pytest.mark.parametrize("name", ["run", "swept"])
def test_page_is_one_self_contained_balanced_file(name, request):
    run = request.getfixturevalue(name)
    path = write_report(*run)
    assert path == run[0] / "report" / "report.html"
    text = path.read_text()
    parsed = Page(text)
    assert parsed.open == []
    assert len(parsed.ids) == len(set(parsed.ids)) > 20
    assert parsed.fetched == [] and "script" not in parsed.tags and "link" not in parsed.tags
    beside = {link for link in parsed.links if not link.startswith("#")}
    assert all(link[1:] in parsed.ids for link in set(parsed.links) - beside) and parsed.links
    assert beside and all((path.parent / link).is_file() for link in beside)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(parsed.ids)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    # Only the names of SVG's namespaces are addresses, and a browser never fetches those.
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink",
    }  # fmt: skip
    assert "&lt;script&gt;alert(1)" in text and "fake &lt;run&gt;" in text
    assert "prefers-color-scheme: dark" in text and "@media print" in text


@pytest.mark.parametrize(("name", "num_figures"), [("run", 13), ("swept", 18)])
def test_markdown_shows_every_figure_and_escapes_tables(name, num_figures, request):
    run = request.getfixturevalue(name)
    folder = write_report(*run).parent
    text = (folder / "report.md").read_text()
    named = re.findall(r"!\[[^]]*\]\((figures/[^)]*)\)", text)
    drawn = sorted(f"figures/{path.name}" for path in (folder / "figures").iterdir())
    assert sorted(named) == drawn and len(drawn) == num_figures
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1
    assert r"asks \| \<b\>for" in text
    assert "```yaml\nname: fake  # <script>" in text


def test_report_is_the_same_bytes_again(run):
    folder = write_report(*run).parent
    first = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write_report(*run)
    assert first == {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert [path.name for path in run[0].iterdir() if path.name.startswith(".report")] == []


@pytest.mark.parametrize("exchanges", [True, False])
def test_publishing_replaces_the_whole_folder(tmp_path, monkeypatch, exchanges):
    if not exchanges:
        monkeypatch.setattr(page, "_exchange", lambda first, second: False)
    for text in ("old", "new"):
        partial = tmp_path / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        (partial / text).write_text(text)
        publish(partial, tmp_path / "report")
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["new"]


def test_a_report_that_fails_half_way_leaves_the_old_one(run, monkeypatch):
    path = write_report(*run)
    before = path.read_bytes()
    monkeypatch.setattr(page, "publish", lambda partial, place: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_report(*run)
    assert path.read_bytes() == before
    assert sorted(path.name for path in run[0].iterdir()) == ["recipe.resolved.yaml", "report", "stages.json"]


@pytest.mark.parametrize("missing", ["metrics.json", "manifest.json"])
def test_a_missing_file_of_an_artefact_is_named(run, missing):
    (run[1] / "embed-0" / missing).unlink()
    with pytest.raises(UserError, match=f"embed-0/{missing}"):
        write_report(*run)


def test_a_missing_metric_is_named_with_its_file(run):
    edit_json(run[1] / "score-quality" / "metrics.json", lambda record: record.pop("digit_mass_mean"))
    with pytest.raises(AssertionError, match=r"score-quality/metrics.json has no 'digit_mass_mean'"):
        write_report(*run)


def test_a_folder_that_is_no_run_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match=r"stages\.json"):
        write_report(tmp_path, tmp_path)


def test_a_colour_of_a_figure_follows_the_page():
    values = {"a": [1.0, 2.0], "b": [], "c": [1.5]}
    svg = curves.estimates_by_group("loss", "loss", values, 1.2)
    assert svg == curves.estimates_by_group("loss", "loss", values, 1.2)
    left = re.findall(r"#[0-9a-f]{6}", re.sub(r"var\(--[a-z0-9-]+, #[0-9a-f]{6}\)", "", drawing.themed(svg)))
    assert set(left) <= {"#000000"}


def test_long_names_of_groups_fit_and_keep_their_colours():
    labels = [f"a long method's name, budget {budget},000, center true" for budget in range(1, 9)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curves.estimates_by_group("loss", "loss", {label: [1.0, 2.0] for label in labels})
        curves.training_curves("loss", "loss", labels, [curves.Curve(label, (1, 2), (2.0, 1.0)) for label in labels])
        # The second group keeps the second colour when the first has no run.
        svg = curves.training_curves("loss", "loss", ["a", "b"], [curves.Curve("b", (1, 2), (2.0, 1.0))])
    assert drawing.series_colour(1) in svg and drawing.series_colour(0) not in svg


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=30), st.integers(1, 30))
def test_length_bins_hold_every_row(lengths, num_kept):
    pool = np.array(lengths, dtype=float)
    shares = []
    original = figures._compared_histogram

    def count_rows(name, title, axis, pool, selected, bins, log=False):
        shares.append((np.histogram(pool, bins)[0].sum(), len(pool)))
        return ""

    figures._compared_histogram = count_rows
    try:
        figures.length_distribution(pool, pool[:num_kept])
    finally:
        figures._compared_histogram = original
    assert shares[0][0] == shares[0][1]


def test_a_comparison_of_methods_has_its_section(run):
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
