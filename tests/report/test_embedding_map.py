import json
import re
import tracemalloc

import datasets
import numpy as np
import pytest
from fake_run import edit_json, keep_stages

from deita_train.data.embeddings import write_embeddings
from deita_train.report.figures.map_figures import rows_by_fate, rows_by_source, source_colours
from deita_train.report.results import embedding_map
from deita_train.report.results.embedding_map import KEPT, OTHER, REJECTED, read_embedding_map
from deita_train.report.results.principal_plane import PrincipalPlane
from deita_train.report.results.summary import read_summary
from deita_train.report.sections.map_section import map_section

LABELS = {KEPT: "kept", REJECTED: "rejected", OTHER: "unseen"}
# Unit vectors that differ by 0.6 either way along the second axis and by 0.3 along the third.
LONG, SHORT = np.sqrt(1 - 0.36), np.sqrt(1 - 0.09)
PLANTED = np.array([[LONG, 0.6, 0, 0], [LONG, -0.6, 0, 0], [SHORT, 0, 0.3, 0], [SHORT, 0, -0.3, 0]], np.float32)


def write(folder, vectors, *, ranks=None, blocked=(), sources=None, order=None, embedded=None):
    """A selection's trace and the embeddings of its rows, which are called 0, 1, 2 and so on."""
    number = len(vectors)
    names = [str(row) for row in range(number)]
    ranks = {} if ranks is None else ranks
    trace = {
        "id": names,
        "source": ["here"] * number if sources is None else sources,
        "selection_rank": [ranks.get(row) for row in range(number)],
        "blocked_by": ["0" if row in blocked else None for row in range(number)],
    }
    features = datasets.Features({"id": datasets.Value("string"), "source": datasets.Value("string"),
        "selection_rank": datasets.Value("int64"), "blocked_by": datasets.Value("string")})  # fmt: skip
    datasets.Dataset.from_dict(trace, features).save_to_disk(str(folder / "select" / "trace"))
    rows = np.arange(number) if order is None else np.array(order)
    write_embeddings(folder / "embed" / "data", [names[row] for row in rows], np.asarray(vectors, np.float32)[rows])
    return folder / "select", folder / "embed"


def test_axes_shares_and_points_are_those_of_the_planted_rows(tmp_path):
    # Lengths do not count: each row is brought to unit length.
    vectors = PLANTED * np.array([[1], [3], [0.5], [2]], np.float32)
    found = read_embedding_map(*write(tmp_path, vectors, ranks={0: 0}), center=False)
    np.testing.assert_allclose(found.points, [[0.6, 0], [-0.6, 0], [0, 0.3], [0, -0.3]], atol=1e-6)
    # Sums of squares: 2 * 0.36, 2 * 0.09, and of the first coordinate 4 times a quarter of the difference squared.
    total = 0.72 + 0.18 + (SHORT - LONG) ** 2
    assert found.shares == pytest.approx((0.72 / total, 0.18 / total), abs=1e-6)
    assert found.fates.tolist() == [KEPT, OTHER, OTHER, OTHER]
    assert (found.sampled, found.embedded, found.not_embedded) == (4, 4, 0)


def test_centred_rows_are_taken_less_their_mean():
    around = np.array([[2, 0, 0], [-2, 0, 0], [3, 0, 0], [-3, 0, 0], [0, 1, 0], [0, -1, 0]], np.float32)
    plane = PrincipalPlane.of(around + np.float32([7, 8, 9]), center=True)
    # Less the mean (7, 8, 9) and at unit length: four rows at 1 along the first axis, two along the second.
    assert plane.shares == pytest.approx((2 / 3, 1 / 3), abs=1e-6)
    expected = [[1, 0], [-1, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]
    np.testing.assert_allclose(plane.points(around + np.float32([7, 8, 9])), expected, atol=1e-5)


def test_the_components_are_those_of_a_singular_value_decomposition():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(500, 40)).astype(np.float32) * np.float32(0.8) ** np.arange(40, dtype=np.float32)
    plane = PrincipalPlane.of(rows, center=False)
    units = rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    _, sizes, axes = np.linalg.svd(units - units.mean(axis=0), full_matrices=False)
    assert plane.shares == pytest.approx(tuple(sizes[:2] ** 2 / (sizes**2).sum()), rel=1e-4)
    np.testing.assert_allclose(np.abs((plane.axes.T * axes[:2]).sum(axis=1)), [1, 1], atol=1e-4)
    assert (plane.axes[np.abs(plane.axes).argmax(axis=0), [0, 1]] > 0).all(), "the sign is fixed"


def test_each_row_is_kept_rejected_or_neither(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(6, 3))
    # Rows 4 and 5 have no embedding, as where only those that the walk needed were embedded; the table is in its order.
    places = write(tmp_path, vectors, ranks={2: 0, 0: 1}, blocked=(3,), order=[2, 3, 0, 1])
    found = read_embedding_map(*places, center=False)
    assert found.rows == {KEPT: 2, REJECTED: 1, OTHER: 1}
    assert (found.embedded, found.not_embedded) == (4, 2)
    # Kept rows by rank, then the rejected one, then the other.
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    plane = PrincipalPlane.of(vectors[[2, 3, 0, 1]].astype(np.float32), center=False)
    np.testing.assert_allclose(found.points, (units[[2, 0, 3, 1]] - plane.middle) @ plane.axes, atol=1e-5)
    assert found.fates.tolist() == [KEPT, KEPT, REJECTED, OTHER]


@pytest.mark.parametrize(
    "vectors",
    [[[1, 0], [0, 1]], [[1], [2], [-3]], [[1, 2]] * 5, [[1, 0], [0, 0], [np.nan, 1]]],
    ids=["two rows", "one dimension", "all alike", "one direction"],
)
def test_no_plane_without_two_directions(tmp_path, vectors):
    assert read_embedding_map(*write(tmp_path, vectors), center=False) is None


def test_rows_without_a_direction_are_not_drawn(tmp_path):
    vectors = np.vstack([PLANTED, np.zeros((1, 4)), np.full((1, 4), np.inf)])
    found = read_embedding_map(*write(tmp_path, vectors), center=False)
    assert found.points.shape == (4, 2) and np.isfinite(found.points).all()


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """20,000 rows: 5,000 kept, 2,000 rejected."""
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(20_000, 64)).astype(np.float32) * np.float32(0.9) ** np.arange(64, dtype=np.float32)
    order = rng.permutation(20_000).tolist()
    ranks = {row: rank for rank, row in enumerate(order[:5000])}
    sources = [f"source {row % 9}" for row in range(20_000)]
    return write(tmp_path_factory.mktemp("large"), vectors, ranks=ranks, blocked={*order[5000:7000]}, sources=sources)


def test_of_a_large_pool_a_bounded_number_is_drawn(large):
    found = read_embedding_map(*large, center=False)
    assert found.rows == {KEPT: 5000, REJECTED: 2000, OTHER: 13_000}
    drawn = {fate: int((found.fates == fate).sum()) for fate in LABELS}
    assert drawn == {KEPT: 1200, REJECTED: 800, OTHER: 2000}
    for svg in (rows_by_fate(found, LABELS), rows_by_source(found)):
        assert len(svg) < 100_000
        assert len(re.findall(r"M-?[\d.]+ -?[\d.]+h0", svg)) == 4000


def test_the_map_is_the_same_bytes_again(large, monkeypatch):
    monkeypatch.setattr(embedding_map, "SAMPLED_NUMBERS", 2**16)
    first, again = (read_embedding_map(*large, center=True) for _ in range(2))
    assert first.points.tobytes() == again.points.tobytes() and first.shares == again.shares
    assert rows_by_fate(first, LABELS) == rows_by_fate(again, LABELS)
    assert rows_by_source(first) == rows_by_source(again)


def test_only_a_sample_of_the_embeddings_enters_memory(large, monkeypatch):
    monkeypatch.setattr(embedding_map, "SAMPLED_NUMBERS", 2**16)
    read_embedding_map(*large, center=True)  # what is imported or kept once
    tracemalloc.start()
    try:
        found = read_embedding_map(*large, center=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found.sampled, found.embedded) == (1024, 20_000)
    # The embeddings have 5.1 MB: 4,000 drawn rows take 1 MB as they are and 1 MB each time they are computed with.
    assert peak < 4.5e6


def test_a_sample_finds_nearly_the_same_plane(large, monkeypatch):
    whole = read_embedding_map(*large, center=False)
    monkeypatch.setattr(embedding_map, "SAMPLED_NUMBERS", 2**18)
    part = read_embedding_map(*large, center=False)
    assert part.sampled == 4096 and whole.sampled == 20_000
    assert part.shares == pytest.approx(whole.shares, rel=0.1)


def test_sources_have_colours_until_these_run_out():
    assert list(source_colours({"b": 9, "a": 3})) == ["b", "a"]
    many = {f"s{number}": 10 - number for number in range(7)}
    assert list(source_colours(many)) == ["s0", "s1", "s2", "s3", "s4", "other sources"]
    assert len(set(source_colours(many).values())) == 6


def section_of(run):
    return map_section(read_summary(*run), ())


def test_the_section_says_what_is_drawn(run):
    section = section_of(run)
    assert [figure.name for figure in section.figures] == ["embedding-map"]
    assert section.text.startswith("Each dot is a conversation. The embeddings, less their mean, at unit length")
    assert "(the principal components), with" in section.text and "not on the map" not in section.text
    assert section.figures[0].text.startswith("80 kept, 25 rejected and 295 unseen: all rows.")
    for name in ("kept", "rejected", "unseen"):
        assert f">{name}</text>" in section.figures[0].svg


def test_rows_that_were_never_embedded_are_counted(run, undrawn):
    folder = run[1] / "embed-0" / "data"
    rows = datasets.load_from_disk(str(folder))
    vectors = np.array(rows["embedding"], np.float32)[:150]
    for file in folder.iterdir():
        file.unlink()
    write_embeddings(folder, rows["id"][:150], vectors)
    edit_json(run[1] / "embed-0" / "metrics.json", lambda found: found.update(rows_embedded=150, rows_saved=250))
    assert section_of(run).text.endswith(
        "250 rows of the pool have no embedding and are not on the map: only those that the walk needed were embedded."
    )


def test_whitened_embeddings_are_shown_as_the_encoder_gave_them(run, undrawn):
    edit_json(run[1] / "select-deita" / "manifest.json", lambda of: of["config"].update(whiten=64))
    text = section_of(run).text
    assert "less their mean" not in text and "The selection compared whitened embeddings" in text


def test_rows_that_could_not_be_selected_are_among_the_unseen(run, undrawn):
    drops = {"contaminated": 3, "not_selected": 317}
    edit_json(run[1] / "select-deita" / "manifest.json", lambda of: of.update(drops=drops))
    assert "Rows that could not be selected at all are among the unseen." in section_of(run).text


def test_a_method_that_does_not_walk_has_kept_rows_and_others(run, undrawn):
    def take_random(record):
        record["cells"] = record["cells"][3:]
        record["cells"][0]["base"] = True

    edit_json(run[0] / "stages.json", take_random)
    assert section_of(run).figures[0].text == "80 kept and 320 not selected: all rows."


def test_sources_are_a_figure_where_there_are_several(run, undrawn):
    folder = run[1] / "select-deita" / "trace"
    trace = datasets.load_from_disk(str(folder))
    sources = [f"source {row % 2}" for row in range(len(trace))]
    changed = trace.remove_columns(["source"]).add_column("source", sources)
    changed.save_to_disk(str(folder.with_name("changed")))
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    folder.with_name("changed").rename(folder)
    assert [figure.name for figure in section_of(run).figures] == ["embedding-map", "embedding-map-sources"]


@pytest.mark.parametrize("stages", [("pool", "embed"), ("pool", "select")])
def test_there_is_no_map_without_embeddings_or_a_selection(run, stages):
    keep_stages(run[0], *stages)
    assert section_of(run) is None


def test_embeddings_made_elsewhere_are_mapped(run, undrawn):
    def rename(record):
        stages = record["cells"][0]["stages"]
        stages["embeddings"] = stages.pop("embed")

    edit_json(run[0] / "stages.json", rename)
    assert json.loads((run[0] / "stages.json").read_text())["cells"][0]["stages"]["embeddings"] == "embed-0"
    assert section_of(run).title == "Map of the embeddings"
