"""No table of a page is wider than its place on a phone, in a window, on a desktop and on paper, as Chromium has it."""

import html
import json
import re
import shutil
import subprocess

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-sync", "--disable-component-update", "--allow-file-access-from-files",
    "--virtual-time-budget=4000", "--hide-scrollbars",
)  # fmt: skip
# Opens every fold, and writes how wide the page and each table's place are and how wide what they hold.
MEASURES = """<script>addEventListener("load", () => {
  document.querySelectorAll("details").forEach((fold) => (fold.open = true));
  const root = document.documentElement;
  const found = [["page", root.scrollWidth, root.clientWidth, ""]];
  document.querySelectorAll(".scroll, .examples").forEach((place) => {
    const table = place.querySelector("table");
    const set = table ? getComputedStyle(table).display : "rows";
    found.push([place.textContent.trim().slice(0, 60), place.scrollWidth, place.clientWidth, set]);
  });
  parent.document.body.append(Object.assign(parent.document.createElement("pre"), {
    className: "measured", textContent: JSON.stringify(found),
  }));
});</script>"""
# A4 without its margins is 174 mm wide: 657 pixels of CSS.
PHONE, WINDOW, DESKTOP, PAPER = 400, 700, 1280, 657


def measured(pages, folder):
    """By width, what Chromium measures of a page: (what, width of its content, its own width, how a table is set).

    In frames, because a window cannot be as narrow as a phone.
    """
    frames = []
    for width, page in pages.items():
        (folder / f"{width}.html").write_text(page.replace("</body>", f"{MEASURES}</body>"))
        frames.append(f'<iframe src="{width}.html" style="width: {width}px; height: 900px; border: 0"></iframe>')
    (folder / "frames.html").write_text(f"<!DOCTYPE html><body>{''.join(frames)}</body>")
    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={folder / 'user'}", "--window-size=1400,1000", "--dump-dom"]
    done = subprocess.run([*command, f"file://{folder / 'frames.html'}"], capture_output=True, text=True, timeout=120)
    found = re.findall(r'<pre class="measured">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert len(found) == len(pages), f"Chromium measured {len(found)} pages: {done.stderr[-2000:]}"
    by_width = {lines[0][2]: lines for lines in (json.loads(html.unescape(text)) for text in found)}
    assert set(by_width) == set(pages)
    return by_width


def too_wide(found):
    return [(what, content, own) for what, content, own, _ in found if content > own]


def as_printed(page):
    """The page with the rules of paper in place of those of a screen."""
    printed = page.replace("@media print", "@media all").replace("@page { margin: 18mm; }", "")
    assert printed.count("@media all") == 1
    return printed.replace("main, footer { max-width: 62rem; margin: 0 auto; padding: 0 1.5rem; }", "")


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: nothing sets the page")
@pytest.mark.parametrize("name", ["run", "swept"])
def test_no_table_is_wider_than_its_place(name, reports, tmp_path):
    page = (reports[name] / "report.html").read_text()
    found = measured({width: page for width in (PHONE, WINDOW, DESKTOP)} | {PAPER: as_printed(page)}, tmp_path)
    assert {width: too_wide(lines) for width, lines in found.items()} == {width: [] for width in found}
    for width in (DESKTOP, PAPER):  # these have room for every table as a table
        assert len(found[width]) > 8 and {set_as for _, _, _, set_as in found[width][1:]} == {"table", "rows"}
    assert "block" in {set_as for _, _, _, set_as in found[PHONE]}


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: nothing sets the page")
def test_tables_that_stayed_tables_would_be_too_wide_for_a_phone(reports, tmp_path):
    page = re.sub(
        r'class="scroll (texts )?(fits-\d+|blocks)"', 'class="scroll"', (reports["run"] / "report.html").read_text()
    )
    assert len(too_wide(measured({PHONE: page}, tmp_path)[PHONE])) > 1
