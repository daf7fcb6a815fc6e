import numpy as np
import pytest
import torch
from conversation_loss import BATCH, NUM_ROWS, brute_force, make_rows, run
from forked_ranks import fork_ranks
from safetensors.torch import load_file

LOSSES = ["per_token", "per_conversation"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("conversation_loss")
    make_rows(made)
    return made


@pytest.fixture(scope="module")
def expected(folder):
    return {loss: brute_force(folder, loss) for loss in LOSSES}


def test_the_two_losses_are_not_the_same(expected):
    (per_token, one), (per_conversation, other) = expected.values()
    assert len(per_token) == NUM_ROWS // BATCH == 3
    assert np.abs(np.array(per_token) - per_conversation).min() > 1e-3
    assert max(float((one[name] - other[name]).abs().max()) for name in one) > 1e-3


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("micro_batch", [1, 2, 4])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_and_gradients_are_those_of_the_definition(folder, expected, loss, micro_batch, packing):
    """With a plain gradient step the weights show the gradients, whatever the micro-batch and the accumulation.

    The definition looks at one conversation at a time, so that a packed one which saw its neighbour would show.
    """
    name = f"{loss}_{micro_batch}_{packing}"
    outcome = run(folder, name, loss, packing=packing, per_device_train_batch_size=micro_batch)
    losses, weights = expected[loss]
    np.testing.assert_allclose([entry["loss"] for entry in outcome.history], losses, atol=6e-5)
    check_weights(folder / name, weights)


def check_weights(folder, weights):
    trained = load_file(folder / "model" / "model.safetensors")
    assert trained.keys() == weights.keys()
    for key, weight in trained.items():
        torch.testing.assert_close(weight.double(), weights[key], atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("micro_batch", "packing"), [pytest.param(1, "plain", marks=pytest.mark.faults), (2, "packed")]
)
def test_two_ranks_have_the_loss_of_one(processes, folder, expected, micro_batch, packing):
    """The rows of one batch differ in length and tokens; packed, each rank has two of them in one row."""
    log = folder / f"two_ranks_{packing}.log"
    codes = fork_ranks(processes, train_a_rank, (folder, micro_batch, packing), 2, log)
    assert codes == [0, 0], log.read_text()
    check_weights(folder / f"two_ranks_{packing}", expected["per_conversation"][1])


def train_a_rank(folder, micro_batch, packing):
    name, packed = f"two_ranks_{packing}", packing == "packed"
    run(folder, name, "per_conversation", 2, packed, per_device_train_batch_size=micro_batch)
