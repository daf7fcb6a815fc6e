import re
import shutil
from html.parser import HTMLParser

import pytest
from fake_run import edit_json

from deita_train.errors import UserError
from deita_train.report import page
from deita_train.report.page import publish, write_report


class Page(HTMLParser):
    """Collects what a browser would need: ids, links, anything fetched, and whether tags are balanced."""

    VOID = frozenset({"meta", "br", "wbr"})

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


@pytest.mark.parametrize("name", ["run", "swept"])
def test_page_is_one_self_contained_balanced_file(name, reports):
    path = reports[name] / "report.html"
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


@pytest.mark.parametrize(("name", "num_figures"), [("run", 16), ("swept", 21)])
def test_markdown_shows_every_figure_and_escapes_tables(name, num_figures, reports):
    folder = reports[name]
    text = (folder / "report.md").read_text()
    named = re.findall(r"!\[[^]]*\]\((figures/[^)]*)\)", text)
    drawn = sorted(f"figures/{path.name}" for path in (folder / "figures").iterdir())
    assert sorted(named) == drawn and len(drawn) == num_figures
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1
    assert r"asks \| \<b\>for" in text
    assert "```yaml\nname: fake  # <script>" in text


def test_report_is_the_same_bytes_again(run, reports):
    path = write_report(*run)
    assert path == run[0] / "report" / "report.html"
    first, again = (
        {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        for folder in (reports["run"], path.parent)
    )
    assert len(first) > 15 and first == again
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


def test_a_report_that_fails_half_way_leaves_the_old_one(run, monkeypatch, undrawn):
    path = write_report(*run)
    before = path.read_bytes()
    monkeypatch.setattr(page, "publish", lambda partial, place: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_report(*run)
    assert path.read_bytes() == before
    files = ["recipe.resolved.yaml", "recipe.stated.yaml", "report", "stages.json"]
    assert sorted(path.name for path in run[0].iterdir()) == files


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
