"""Rows of a selection to read: which they are, what is shown of them, and how a page and its Markdown hold them."""

import datasets
import pytest
from fake_run import edit_json

from deita_train.report.page import write_report
from deita_train.report.results.examples import EXCERPT_CHARS, read_examples
from deita_train.report.results.summary import read_summary
from deita_train.report.sections.selection_examples import shown_examples
from deita_train.report.texts import shortened, visible
from deita_train.table import FOLDED_AFTER


def write_selection(folder, rows):
    """A selection and its pool of `rows`: (id, text, rank, similarity, blocker)."""
    ids, texts, ranks, similarities, blockers = (list(values) for values in zip(*rows, strict=True))
    messages = [[{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}] for text in texts]
    pool = datasets.Dataset.from_dict({"id": ids, "messages": messages})
    pool.save_to_disk(str(folder / "pool" / "data"))
    trace = {"id": ids, "selection_rank": ranks, "nearest_similarity": similarities, "blocked_by": blockers}
    trace["evol_score"] = [10.0 * (place + 1) for place in range(len(ids))]
    datasets.Dataset.from_dict(trace).save_to_disk(str(folder / "select" / "trace"))
    return folder / "select", folder / "pool"


WALKED = [
    ("a", "first", 1, 0.5, None),
    ("b", "near the first", None, 0.91, "a"),
    ("c", "best", 0, None, None),
    ("d", "nearer to the best", None, 0.99, "c"),
    ("e", "never reached", None, None, None),
    ("f", "last", 2, 0.6, None),
    ("g", "as near to the best", None, 0.99, "c"),
]


def test_rejected_rows_stand_beside_what_blocked_them(tmp_path):
    found = read_examples(*write_selection(tmp_path, WALKED))
    assert [(of.rejected.id, of.kept.id, of.similarity) for of in found.rejections] == [
        ("d", "c", 0.99), ("g", "c", 0.99), ("b", "a", 0.91),
    ]  # fmt: skip
    first = found.rejections[0]
    assert first.rejected.text == "user: nearer to the best\nassistant: Yes."
    assert (first.rejected.rank, first.rejected.evol_score, first.kept.rank, first.kept.evol_score) == (None, 40, 1, 30)
    assert [row.id for row in found.kept] == ["c", "a", "f"] and found.not_selected == ()
    rejected, kept = shown_examples(found)
    assert rejected.rows[0][0] == "similarity 0.990"
    assert [(row.title, row.id, row.facts) for row in rejected.rows[0][1]] == [
        ("rejected", "d", ("evol score 40.0", "40 characters")),
        ("kept", "c", ("rank 1", "evol score 30.0", "26 characters")),
    ]
    assert [row.facts[0] for row in kept.rows[0][1]] == ["rank 1", "rank 2", "rank 3"]


def test_of_many_rejected_rows_five_are_shown_from_the_nearest_to_the_closest_call(tmp_path):
    rows = [("kept", "kept", 0, None, None)]
    rows += [(f"r{place}", "x", None, 0.9 + place / 100, "kept") for place in range(9)]
    found = read_examples(*write_selection(tmp_path, rows))
    assert [of.rejected.id for of in found.rejections] == ["r8", "r6", "r4", "r2", "r0"]


def test_without_a_walk_kept_rows_stand_beside_rows_that_were_not_selected(tmp_path):
    rows = [(f"r{place}", "x", place if place < 3 else None, None, None) for place in range(12)]
    found = read_examples(*write_selection(tmp_path, rows))
    assert found.rejections == () and [row.id for row in found.kept] == ["r0", "r1", "r2"]
    assert [row.id for row in found.not_selected] == ["r3", "r7", "r11"]
    (beside,) = shown_examples(found)
    assert [[row.title for row in rows] for _, rows in beside.rows] == [["kept", "not selected"]] * 3


def test_where_every_row_is_kept_only_these_are_shown(tmp_path):
    found = read_examples(*write_selection(tmp_path, [("a", "x", 0, None, None), ("b", "x", 1, None, None)]))
    (kept,) = shown_examples(found)
    assert kept.title == "Kept rows" and [row.id for row in kept.rows[0][1]] == ["a", "b"]


def test_a_long_text_says_how_much_of_it_is_not_on_the_page(tmp_path):
    found = read_examples(*write_selection(tmp_path, [("a", "x" * 5000, 0, None, None)]))
    ((_, (row,)),) = shown_examples(found)[0].rows
    # "user: ", 5,000 letters, a new line and "assistant: Yes."
    assert len(row.text) == EXCERPT_CHARS and row.left == 5022 - EXCERPT_CHARS
    assert row.facts[-1] == "5,022 characters"


def test_a_trace_of_another_pool_is_refused(tmp_path):
    select, _ = write_selection(tmp_path, WALKED)
    write_selection(tmp_path / "other", [(f"other {row[0]}", *row[1:]) for row in WALKED])
    with pytest.raises(AssertionError, match="row 3 of the pool is other d, and d in the trace"):
        read_examples(select, tmp_path / "other" / "pool")
    write_selection(tmp_path / "short", WALKED[:1])
    with pytest.raises(AssertionError, match="7 rows of a trace, 1 of its pool"):
        read_examples(select, tmp_path / "short" / "pool")


def test_the_page_and_its_markdown_hold_the_rows(run, undrawn):
    (rejection, *others) = read_summary(*run).examples.rejections
    assert len(others) == 4
    twin = int(rejection.kept.id.removeprefix("pool:"))
    assert rejection.rejected.id == f"pool:{twin + 1}"
    folder = write_report(*run).parent
    page, markdown = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    assert f"user: Row {twin} asks | &lt;b&gt;for&lt;/b&gt; help\nwith a list." in page
    assert "Here \N{SYMBOL FOR ESCAPE} it is." in page and "\x1b" not in page + markdown
    # 40 times 15 characters, the question of 36 or 37 and its role, of which the page shows the first 500.
    left = len(rejection.kept.text) - FOLDED_AFTER
    assert f"<summary>{left} more characters</summary>" in page
    assert rf"user: Row {twin} asks \| \<b\>for\</b\> help with a list." in markdown
    assert f"\\[{left} more characters are on the page\\]" in markdown
    assert "<style" in page and page.count("<article>") == 2 * 5 + 3


def test_a_run_without_a_selection_has_no_examples(run):
    def without(record):
        for cell in record["cells"]:
            del cell["stages"]["select"]

    edit_json(run[0] / "stages.json", without)
    assert read_summary(*run).examples is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tab\tand\nline", "tab\tand\nline"),
        ("a\r\nb", "a\nb"),
        ("a\rb\x00\x1b[31m\x7f", "a\N{SYMBOL FOR CARRIAGE RETURN}b\N{SYMBOL FOR NULL}␛[31m\N{SYMBOL FOR DELETE}"),
        ("\x85\u202eabc\u2066\ufeff", "<U+0085><U+202E>abc<U+2066><U+FEFF>"),
        ("non\u200cjoiner \u200djoiner \u200eleft \u200fright", "non\u200cjoiner \u200djoiner \u200eleft \u200fright"),
    ],
)
def test_what_cannot_be_seen_is_made_visible(text, shown):
    assert visible(text) == shown


def test_a_text_on_one_line_is_cut_with_an_ellipsis():
    assert shortened(" a  b\nc ", 5) == "a b c" and shortened("abc def", 5) == "abc\N{HORIZONTAL ELLIPSIS}"
