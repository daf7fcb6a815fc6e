"""A step's loss is the mean over its global batch, whatever the micro-batch and the number of ranks."""

import pytest
from forked_ranks import fork_ranks
from global_batches import Draw, check_draw, drawn, make_rows, train_draws
from transformers import LlamaForCausalLM

from deita_train.errors import UserError

# By the number of ranks, so that each is started once.
ALONE = [
    Draw("per_token", 13, 1, 2, 4, 2),
    *(Draw("sigmoid", 13, 1, micro, 8 // micro, 2) for micro in (1, 2, 4, 8)),
    Draw("sigmoid+sft", 13, 1, 8, 1),
    Draw("per_token", 13, 1, 2, 2, drop=True),
    Draw("dft", 11, 1, 2, 2),
    Draw("weighted", 11, 1, 2, 2),
]
OF_TWO = [
    # Three rows are left, and the second rank has none for the second micro-batch.
    Draw("per_token", 11, 2, 1, 4),
    Draw("per_conversation", 11, 2, 2, 2, packing=True),
    Draw("sigmoid+sft", 11, 2, 1, 4),
    Draw("sigmoid", 13, 2, 4, 1, order="random"),
    Draw("smoothed", 9, 2, 2, 2),
    Draw("dft", 11, 2, 2, 1, packing=True),
    Draw("weighted", 11, 2, 1, 2),
]
# One row is left: two ranks have none at all.
OF_THREE = [Draw("per_conversation", 7, 3, 2, 1), Draw("ipo", 7, 3, 1, 2)]
DRAWN = [drawn(seed) for seed in range(200)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("global_batches")
    make_rows(made)
    return made


@pytest.mark.parametrize("draw", ALONE, ids=lambda draw: draw.name)
def test_one_process_trains_as_by_hand(folder, draw):
    train_draws(folder, [draw])
    check_draw(folder, draw)


def test_a_model_whose_forward_takes_no_count_of_tokens_trains_as_by_hand(folder, monkeypatch):
    monkeypatch.setattr(LlamaForCausalLM, "accepts_loss_kwargs", False, raising=False)
    for draw in (Draw("per_token", 7, 1, 2, 2), Draw("per_conversation", 7, 1, 2, 2)):
        train_draws(folder, [draw])
        check_draw(folder, draw)


def test_rows_that_fill_no_global_batch_are_not_all_left_out(folder):
    with pytest.raises(UserError, match="3 rows do not fill a global batch of 8"):
        train_draws(folder, [Draw("per_token", 3, 1, 2, 4, drop=True)])


@pytest.mark.parametrize("draws", [OF_TWO, OF_THREE], ids=["two ranks", "three ranks"])
def test_ranks_train_as_by_hand(processes, folder, draws):
    on_ranks(processes, folder, draws)
    for draw in draws:
        check_draw(folder, draw)


@pytest.mark.faults
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("part", range(5))
def test_drawn_trainings_are_as_by_hand(processes, folder, ranks, part):
    draws = [draw for draw in DRAWN if draw.ranks == ranks][part::5]
    assert len(draws) > 5
    on_ranks(processes, folder, draws)
    for draw in draws:
        check_draw(folder, draw)


def on_ranks(processes, folder, draws):
    [ranks] = {draw.ranks for draw in draws}
    log = folder / f"{draws[0].name}.log"
    codes = fork_ranks(processes, train_draws, (folder, draws), ranks, log)
    assert codes == [0] * ranks, "".join(path.read_text() for path in sorted(folder.glob(f"{log.name}*")))
