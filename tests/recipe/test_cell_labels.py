import pytest
from hypothesis import given
from hypothesis import strategies as st

from deita_train.recipe.cell_labels import cell_labels

LABELS = [
    (
        {("select.method",): "deita", ("select.budget",): 500, ("select.seed", "sft.seed"): 2},
        "deita, budget 500, seed 2",
    ),
    ({("select.method",): "longest_response"}, "longest_response"),
    ({("sft.trainer.learning_rate",): 2e-5}, "learning rate 2e-5"),
    ({("sft.trainer.learning_rate", "dpo.trainer.learning_rate"): 1e-10}, "learning rate 1e-10"),
    ({("select.threshold",): 0.9, ("embedding.center",): True}, "threshold 0.9, center true"),
    ({("seed",): 1, ("sft.peft",): None}, "seed 1, peft null"),
    # Two paths that end alike: as much of each as tells them apart, and the others stay short.
    ({("select.seed",): 1, ("sft.seed",): 2, ("select.budget",): 5}, "select seed 1, sft seed 2, budget 5"),
    ({("seed",): 1, ("sft.seed",): 2}, "seed 1, sft seed 2"),
    (
        {("sft.trainer.learning_rate",): 1e-4, ("dpo.trainer.learning_rate",): 5e-7, ("dpo.trainer.beta",): 0.1},
        "sft trainer learning rate 0.0001, dpo trainer learning rate 5e-7, beta 0.1",
    ),
    (
        {("select.seed", "sft.seed"): 1, ("base.pretrain.seed",): 2},
        "select seed and sft seed 1, pretrain seed 2",
    ),
    ({("select.method",): "deita", ("other.method",): "x"}, "select method deita, other method x"),
    ({("sft.trainer.max_length", "evaluate.max_length"): 512}, "max length 512"),
    ({("pool.rows", "select.budget"): 9}, "rows and budget 9"),
    # A section as a value is named by what it holds.
    ({("select",): {"method": "random", "budget": 3}}, "random, budget 3"),
    ({("sft.trainer", "dpo.trainer"): {"max_steps": 3}}, "max steps 3"),
    ({("sft.peft",): {}}, "peft {}"),
    ({("pool.instruction_share",): [0.0, 0.5]}, "instruction share [0.0, 0.5]"),
    ({("sft.model",): "a/b  c\nd"}, "model a/b c d"),
    ({("sft.model",): ""}, 'model ""'),
]


@pytest.mark.parametrize(("combination", "label"), LABELS)
def test_labels_by_hand(combination, label):
    assert cell_labels([combination]) == [label]


def test_a_path_is_named_alike_in_every_cell():
    combinations = [{("select",): {"seed": 1}}, {("select",): {"budget": 2}, ("sft.seed",): 3}]
    assert cell_labels(combinations) == ["select seed 1", "budget 2, sft seed 3"]


def test_a_budget_is_named_in_words():
    budgets = [6000, {"share": 0.02}, {"tokens": 5_000_000}]
    assert cell_labels([{("select.budget",): budget, ("select.seed",): 1} for budget in budgets]) == [
        "budget 6000, seed 1", "budget 2%, seed 1", "budget 5000000 tokens, seed 1",
    ]  # fmt: skip


def test_no_cells_no_labels():
    assert cell_labels([]) == []
    assert cell_labels([{}]) == [""]


PATHS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map(".".join)


@given(st.sets(PATHS, min_size=2, max_size=6))
def test_no_two_paths_have_one_name(paths):
    label = cell_labels([{(path,): 0 for path in paths}])[0]
    names = [part.removesuffix(" 0") for part in label.split(", ")]
    assert len(set(names)) == len(names) == len(paths)
    assert all(path.replace(".", " ").endswith(name) for path, name in zip(paths, names, strict=True))
