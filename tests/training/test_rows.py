import datasets
import pytest

from deita_train.data.rendering import IGNORED, RenderedPair
from deita_train.errors import UserError
from deita_train.training.rows import LabelledRow, PairRow, RowCount, write_pair_rows, write_training_rows

WITHOUT_LOSS = LabelledRow("silent", [1, 2, 3], [IGNORED] * 3)


def test_rows_and_their_account(tmp_path):
    rows = [
        LabelledRow("a", [1, 2, 3, 4], [IGNORED, IGNORED, 3, 4]),
        WITHOUT_LOSS,
        LabelledRow("b", [5, 6], [IGNORED, 6], truncated=True),
    ]
    count = write_training_rows(rows, tmp_path / "rows")
    assert count == RowCount(rows=2, tokens=6, loss_tokens=3, truncated=1, without_loss=1, without_loss_ids=["silent"])
    written = datasets.load_from_disk(str(tmp_path / "rows"))
    assert written.to_list() == [
        {"input_ids": [1, 2, 3, 4], "labels": [IGNORED, IGNORED, 3, 4], "length": 4, "id": "a", "tokens": 4},
        {"input_ids": [5, 6], "labels": [IGNORED, 6], "length": 2, "id": "b", "tokens": 2},
    ]
    assert str(written.features["labels"].feature.dtype) == "int32"


def test_a_label_on_the_first_token_is_no_loss(tmp_path):
    # Nothing predicts the first token: trainers shift the labels by one.
    first_only = LabelledRow("first", [1, 2], [1, IGNORED])
    both = LabelledRow("both", [1, 2], [1, 2])
    count = write_training_rows([first_only, both], tmp_path / "rows")
    assert (count.rows, count.loss_tokens, count.without_loss_ids) == (1, 1, ["first"])


def test_only_the_first_five_silent_rows_are_named(tmp_path):
    rows = [LabelledRow(f"r{number}", [1, 2], [IGNORED] * 2) for number in range(7)]
    count = write_training_rows([*rows, LabelledRow("a", [1, 2], [IGNORED, 2])], tmp_path / "rows")
    assert (count.without_loss, count.without_loss_ids) == (7, ["r0", "r1", "r2", "r3", "r4"])


def test_the_output_names_every_silent_row_with_the_reason(tmp_path, capsys):
    cut = [LabelledRow(f"cut{number}", [1, 2], [IGNORED] * 2, truncated=True) for number in range(7)]
    write_training_rows([WITHOUT_LOSS, *cut, LabelledRow("a", [1, 2], [IGNORED, 2])], tmp_path / "rows")
    assert capsys.readouterr().out.splitlines() == [
        "silent has no loss and is left out: no_answer",
        *(f"cut{number} has no loss and is left out: no_answer_within_max_length" for number in range(7)),
    ]


def test_the_output_names_every_silent_pair_with_the_reason(tmp_path, capsys):
    pairs = {
        "equal": RenderedPair([1], [2], [2], False),
        "a": RenderedPair([1], [2], [3], False),
        "equal-cut": RenderedPair([1], [2], [2], True),
        "beyond": RenderedPair([1], [], [], True),
    }
    write_pair_rows([PairRow(name, pair, 0.0, 0.0) for name, pair in pairs.items()], tmp_path / "rows")
    assert capsys.readouterr().out.splitlines() == [
        "equal has no loss and is left out: equal_answers",
        "equal-cut has no loss and is left out: equal_answers_within_max_length",
        "beyond has no loss and is left out: no_answer_within_max_length",
    ]


def test_no_row_left_tells_what_took_them_and_what_to_do(tmp_path):
    refused = {}

    def rows():
        yield WITHOUT_LOSS
        refused["refused_by_template"] = 2  # known once all rows were tried

    with pytest.raises(UserError) as caught:
        write_training_rows(rows(), tmp_path / "rows", refused)
    assert str(caught.value) == (
        "none of 3 rows has a token to learn from (refused_by_template: 2, no_answer: 1); the first are silent. Check "
        "the rows' answers, or choose another chat_template, or state unsupported_fields: text, which writes them as "
        "text."
    )
    with pytest.raises(UserError) as caught:
        write_pair_rows([], tmp_path / "rows", {"prompt_not_prefix": 4})
    assert str(caught.value) == (
        "none of 4 rows has a token to learn from (prompt_not_prefix: 4). Choose another chat_template."
    )


@pytest.mark.parametrize(("rows", "part"), [([WITHOUT_LOSS] * 2, "none of 2 rows"), ([], "none of 0 rows")])
def test_no_row_left_is_the_users_error(tmp_path, rows, part):
    with pytest.raises(UserError, match=part) as caught:
        write_training_rows(rows, tmp_path / "rows")
    assert "max_length" not in str(caught.value)
    assert not (tmp_path / "rows").exists()
    assert ("silent" in str(caught.value)) == bool(rows)


def test_a_truncated_row_without_loss_is_not_counted_as_truncated(tmp_path):
    cut = LabelledRow("cut", [1, 2], [IGNORED] * 2, truncated=True)
    count = write_training_rows([cut, LabelledRow("a", [1, 2], [IGNORED, 2])], tmp_path / "rows")
    assert (count.truncated, count.without_loss) == (0, 1)


def test_pairs_and_their_account(tmp_path):
    rows = [
        PairRow("a", RenderedPair([1, 2], [3, 9], [4, 5, 9], False), -1.5, -2.5),
        PairRow("equal", RenderedPair([1, 2], [3], [3], True), -1.0, -1.0),
        PairRow("full", RenderedPair([1, 2], [], [], True), 0.0, 0.0),
        PairRow("b", RenderedPair([1], [7], [8], True), -0.5, -0.25),
    ]
    count = write_pair_rows(rows, tmp_path / "rows")
    silent = ["equal", "full"]
    assert count == RowCount(rows=2, tokens=13, loss_tokens=7, truncated=1, without_loss=2, without_loss_ids=silent)
    written = datasets.load_from_disk(str(tmp_path / "rows")).to_list()
    assert written == [
        {
            "prompt_ids": [1, 2],
            "chosen_ids": [3, 9],
            "rejected_ids": [4, 5, 9],
            "ref_chosen_logps": -1.5,
            "ref_rejected_logps": -2.5,
            "length": 5,
            "id": "a",
            "tokens": 9,
        },
        {
            "prompt_ids": [1],
            "chosen_ids": [7],
            "rejected_ids": [8],
            "ref_chosen_logps": -0.5,
            "ref_rejected_logps": -0.25,
            "length": 2,
            "id": "b",
            "tokens": 4,
        },
    ]


def test_no_pair_left_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match=r"none of 1 rows .* first are equal"):
        write_pair_rows([PairRow("equal", RenderedPair([1], [2], [2], False), 0.0, 0.0)], tmp_path / "rows")
