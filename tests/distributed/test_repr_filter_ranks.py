"""The Repr Filter on two real ranks of torch.distributed against one process, bit by bit."""

import numpy as np
import pytest
import torch

from deita_train.errors import UserError
from deita_train.selection.repr_filter.process_group import ProcessGroup
from deita_train.selection.repr_filter.repr_filter import Trace, cut_trace, repr_filter, walk_order

NUM_ROWS, THRESHOLD = 601, 0.9  # an odd number: the ranks do not have the same share


def pool():
    """Clusters whose rows are about 0.9 similar, so that many decisions are close."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((20, 40))
    rows = centres[rng.integers(20, size=NUM_ROWS)] + 0.32 * rng.standard_normal((NUM_ROWS, 40))
    rows[-50:] = rows[:50]
    ids = [f"row-{number}" for number in range(NUM_ROWS)]
    return rows.astype(np.float32), ids, rng.integers(30, size=NUM_ROWS).astype(np.float64)


def walk(group=None, **options):
    return repr_filter(*pool(), threshold=THRESHOLD, block_size=100, group=group, **options)


def on_one_rank(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    group = ProcessGroup()
    gathered = group.gather(np.array([[rank, np.nan]]))
    np.testing.assert_array_equal(gathered, [[[0, np.nan]], [[1, np.nan]]])
    whole = walk(group, budget=None)
    np.savez(f"{folder}/{rank}.npz", **vars(whole))
    np.savez(f"{folder}/{rank}-continued.npz", **vars(walk(group, budget=None, earlier=walk(group, budget=50))))
    embeddings, ids, scores = pool()
    embeddings[-1] = 0  # in the share of rank 1 alone
    with pytest.raises(UserError, match="Rows: 'row-600'"):
        repr_filter(embeddings, ids, scores, budget=1, threshold=THRESHOLD, group=group)
    torch.distributed.destroy_process_group()


def test_two_ranks_have_the_bits_of_one(processes, tmp_path):
    ranks = [processes.Process(target=on_one_rank, args=(rank, tmp_path)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(100)
    assert [rank.exitcode for rank in ranks] == [0, 0]
    trace = walk(budget=None)
    assert trace.num_seen == NUM_ROWS and trace.num_kept > 100 and NUM_ROWS - trace.num_kept > 100
    for name in ("0", "1", "0-continued", "1-continued"):
        found = Trace(**np.load(tmp_path / f"{name}.npz"))
        for column, values in vars(trace).items():
            assert getattr(found, column).tobytes() == values.tobytes(), (name, column)
    _, ids, scores = pool()
    assert cut_trace(trace, walk_order(ids, scores), 50).num_kept == 50
