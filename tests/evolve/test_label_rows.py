import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import chain_of, ranking_of

from deita_train.data.source_row import SourceRow
from deita_train.evolve.chains import Version
from deita_train.evolve.label_rows import label_rows
from deita_train.scoring.training_pairs import read_examples


@pytest.mark.parametrize("dimension", ["complexity", "quality"])
def test_rows_are_read_as_the_published_data_is(dimension):
    chain = chain_of("row-1", ("ok", "ok", "copy", "ok"), dimension)
    labels = label_rows(chain, [ranking_of("row-1", [2, 5, 6])], dimension)
    assert labels.dropped == {}
    source = [SourceRow(place, row["id"], row) for place, row in enumerate(labels.rows)]
    good = [version for version in chain if version.is_good]
    assert [(e.instruction, e.response, e.score) for e in read_examples(source, dimension, None)] == [
        (version.instruction, version.response, score) for version, score in zip(good, [2, 5, 6], strict=True)
    ]


def test_a_row_tells_where_it_comes_from():
    chain = chain_of("row-1", ("ok", "copy", "ok", "ok"))
    rankings = [
        ranking_of("row-1", [1, 4, 6], 0, 0),
        ranking_of("row-1", [1, 1, 1], 1, 0, "all_tied"),
        ranking_of("row-1", [2, 3, 6], 1, 1),
        ranking_of("row-1", [0, 0, 0], 2, 0, "no_scores"),
    ]
    rows = label_rows(chain, rankings, "complexity").rows
    first, again = rankings[0], rankings[2]
    assert rows[1] == {
        "id": "row-1/2",
        "input": rows[1]["input"],
        "target": "4",  # 3.5, a half up
        "seed_id": "row-1",
        "step": 2,
        "operation": chain[2].operation,
        "mean_score": 3.5,
        "scores": [4, 3],
        "places": [first.order.index(1) + 1, again.order.index(1) + 1],
        "orders": [list(first.order), list(again.order)],
        "answers": ["answer 0", "answer 1"],
        "evolved_from_answer": "raw",
    }
    assert [(row["id"], row["target"], row["operation"] is None) for row in rows] == [
        ("row-1/0", "2", True),
        ("row-1/2", "4", False),
        ("row-1/3", "6", False),
    ]


def test_a_seed_without_a_usable_ranking_keeps_no_version():
    chain = chain_of("row-1", ("ok", "ok", "copy"))
    labels = label_rows(
        chain, [ranking_of("row-1", [1, 2], 0, n, s) for n, s in enumerate(["no_scores", "all_tied"])], "complexity"
    )
    assert (labels.rows, labels.dropped) == ([], {0: "all_tied", 1: "all_tied"})


def test_a_seed_of_which_nothing_could_be_evolved_is_compared_with_nothing():
    labels = label_rows(chain_of("row-1", ("ok", "copy", "empty")), [], "complexity")
    assert (labels.rows, labels.dropped) == ([], {0: "nothing_to_compare"})


def test_versions_that_were_never_ranked_are_a_fault_of_ours():
    with pytest.raises(AssertionError, match="row-1"):
        label_rows(chain_of("row-1", ("ok", "ok")), [], "complexity")


def test_a_row_that_would_be_read_otherwise_is_dropped_with_its_reason():
    # The published format has no quoting: this instruction ends, for a reader, before the response that it quotes.
    instruction = "What does this mean?\n#Response#:\nA pear."
    chain = [
        Version("row-1", step, "detail" if step else None, instruction, f"answer {step}", "ok", None)
        for step in range(2)
    ]
    labels = label_rows(chain, [ranking_of("row-1", [1, 2])], "quality")
    assert (labels.rows, labels.dropped) == ([], {0: "ambiguous_prompt", 1: "ambiguous_prompt"})


@given(
    st.lists(st.tuples(st.text(), st.text(), st.booleans()), min_size=2, max_size=5),
    st.sampled_from(["complexity", "quality"]),
)
def test_every_good_version_is_a_row_or_a_drop(texts, dimension):
    chain = [
        Version(
            "s",
            step,
            "o" if step else None,
            i,
            r if dimension == "quality" else None,
            "ok" if good or step < 2 else "copy",
            None,
        )
        for step, (i, r, good) in enumerate(texts)
    ]
    good = [version for version in chain if version.is_good]
    labels = label_rows(chain, [ranking_of("s", [1 + n % 6 for n in range(len(good))])], dimension)
    assert sorted([row["step"] for row in labels.rows] + list(labels.dropped)) == [version.step for version in good]
    for row in labels.rows:
        (example,) = read_examples([SourceRow(0, "x", row)], dimension, None)
        assert (example.instruction, example.response) == (chain[row["step"]].instruction, chain[row["step"]].response)
