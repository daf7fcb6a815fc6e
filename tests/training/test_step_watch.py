import datasets
import pytest
import torch
from conversation_loss import BATCH, NUM_ROWS, make_rows, run
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from deita_train.errors import UserError
from deita_train.training.step_watch import KeepRows, Rates, StepWatch, Timed, take_rows, training_flops_per_token


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("step_watch")
    make_rows(made)
    return made


def test_rates_by_hand():
    rates = Rates(seconds=4.0, seconds_for_data=1.0, tokens=1000, memory_bytes=3 * 2**30)
    plain = {"tokens_per_second_per_device": 250.0, "data_loading_share": 0.25, "memory_gib": 3.0}
    assert rates.numbers(None, 1e12) == rates.numbers(8, None) == plain
    # 250 tokens a second of 8 FLOPs each, on a device of 10,000 a second.
    assert rates.numbers(8, 1e4) == plain | {"mfu": 0.2}
    assert Rates().numbers(8, 1e4) == {}
    rates.add(Rates(seconds=1.0, tokens=500, memory_bytes=2 * 2**30))
    assert rates == Rates(5.0, 1.0, 1500, 3 * 2**30)


@pytest.mark.parametrize(("tied", "frozen"), [(False, False), (True, False), (False, True)])
def test_flops_of_a_token_by_hand(tied, frozen):
    """One layer, 4 wide, MLP of 6, 10 words: q, k, v, o 64; MLP 72; three norms 12; embedding and head 40 each."""
    config = LlamaConfig(
        vocab_size=10, hidden_size=4, intermediate_size=6, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    head = 40
    if frozen:
        model.requires_grad_(False)
        model.lm_head.weight.requires_grad_(True)
        assert training_flops_per_token(model) == 4 * (64 + 72 + 12) + 6 * head
    else:
        assert training_flops_per_token(model) == 6 * (64 + 72 + 12 + head)


def test_a_mixture_of_experts_has_no_known_flops():
    config = AutoConfig.for_model(
        "mixtral", vocab_size=10, hidden_size=4, intermediate_size=6, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=2,
    )  # fmt: skip
    assert training_flops_per_token(AutoModelForCausalLM.from_config(config)) is None


def test_what_is_no_models_input_goes_through_the_collator_and_out_again():
    def collator(rows):
        assert rows == [{"x": 1}, {"x": 2}]
        return {"x": torch.tensor([1, 2])}

    keep = KeepRows(collator, {"x": 3, "id": "shortest", "tokens": 1})
    batch = keep([{"x": 1, "id": "a", "tokens": 5}, {"x": 2, "id": "b", "tokens": 7}])
    assert next(iter(batch)) == "x", "accelerate reads a batch's size from what comes first"
    assert take_rows([batch, {"ids": ["c"], "tokens": [1]}]) == ([["a", "b"], ["c"]], 13)
    assert batch.keys() == {"x"}


def test_where_there_are_no_rows_one_stands_in_that_is_not_counted():
    keep = KeepRows(lambda rows: {"rows": rows}, {"x": 3, "id": "shortest", "tokens": 1})
    batch = keep([])
    assert take_rows([batch]) == ([[]], 0)
    assert batch == {"rows": [{"x": 3}]}


def test_a_timed_iterator_gives_the_same_items():
    timed = Timed(iter([1, 2]))
    assert list(timed) == [1, 2] and timed.seconds > 0


@pytest.mark.parametrize("packing", [False, True])
def test_a_training_counts_its_real_tokens(folder, packing):
    """Two epochs of rows whose tokens are known; the rates are those of the whole time."""
    told = []
    outcome = run(folder, f"counted_{packing}", "per_token", packing=packing, on_log=told.append, num_train_epochs=2)
    tokens = 2 * sum(datasets.load_from_disk(str(folder / "rows"))["tokens"])
    assert tokens == 2 * sum(5 + 2 * number for number in range(NUM_ROWS))
    rates = outcome.rates
    assert set(rates) == {"tokens_per_second_per_device", "data_loading_share", "memory_gib"}, "no MFU on a CPU"
    assert 0 < rates["data_loading_share"] < 1 and rates["memory_gib"] > 0.1
    assert len(told) == 2 * NUM_ROWS // BATCH
    assert all(set(rates) <= set(numbers) for numbers in told)
    slowest, fastest = (pick(numbers["tokens_per_second_per_device"] for numbers in told) for pick in (min, max))
    assert slowest <= rates["tokens_per_second_per_device"] <= fastest


def test_a_loss_that_is_not_finite_names_the_step_and_the_rows(folder):
    """A learning rate beyond all reason: the first step is finite, and the next one is not."""
    with pytest.raises(UserError, match=r"the loss is (nan|inf|-inf) at step (\d+)") as caught:
        run(folder, "diverged", "per_token", learning_rate=1e30, per_device_train_batch_size=2)
    message = str(caught.value)
    assert "in 2 of 2 micro-batches of this rank; the first of them has the rows r" in message
    assert not list((folder / "diverged").glob("checkpoints/checkpoint-3"))


def test_of_several_micro_batches_the_bad_one_is_named():
    watch = StepWatch()
    watch.fetched(0.0, [["a", "b"], ["c"], [f"d{number}" for number in range(12)]], 9)
    for loss in (1.0, 2.0, float("nan")):
        watch.trained(torch.tensor(loss))
    message = watch._not_finite(7)
    assert "the loss is nan at step 7, in 1 of 3 micro-batches" in message
    assert "has the rows d0, d1, d2, d3, d4, d5, d6, d7, d8, d9 and 2 more." in message
