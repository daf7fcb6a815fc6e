"""One base in memory for several models: bitwise the numbers of models loaded alone, and one load."""

import json
import shutil

import pytest
import torch
from test_adapter_loading import ADAPTERS, CPU, ROWS, make_adapter, make_base
from transformers import AutoModelForCausalLM

from deita_train.errors import UserError
from deita_train.inference import trunk
from deita_train.inference.forward import last_hidden_states, last_logits, load_model, pad_batch
from deita_train.inference.trunk import free_gpu_bytes, leaves_base, sharing

LEAVING = ("default", "every layer", "dora", "pattern")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def adapters(base, tmp_path_factory):
    """An adapter of each kind, by name."""
    folder = tmp_path_factory.mktemp("adapters")
    return {name: make_adapter(folder / name, base, **fields) for name, fields in ADAPTERS.items()}


@pytest.fixture
def loads(monkeypatch):
    """The folders of the whole models that are read."""
    read = []
    plain = AutoModelForCausalLM.from_pretrained

    def from_pretrained(folder, **options):
        read.append(str(folder))
        return plain(folder, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    return read


def quiet(line):
    """A log that nobody reads."""


def numbers(folder, dtype="float32"):
    """What a scorer and what an embedding reads of a model, each from a model of its own or from the shared one."""
    batch = pad_batch(ROWS, CPU)
    logits = last_logits(load_model(str(folder), dtype, CPU, head=True), batch, [3, 9])
    hidden = last_hidden_states(load_model(str(folder), dtype, CPU, head=False), batch)
    return logits, hidden


def assert_bitwise(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_base_gives_bitwise_the_numbers_of_separate_models(base, adapters, loads, dtype):
    folders = [*(adapters[name] for name in LEAVING), base]
    alone = [numbers(folder, dtype) for folder in folders]
    assert all(not torch.equal(one[1], alone[-1][1]) for one in alone[:-1]), "the adapters do something"
    loads.clear()
    with sharing(quiet) as shared:
        for index in (0, 1, 4, 2, 3, 0):
            assert_bitwise(numbers(folders[index], dtype), alone[index])
    assert loads == [str(base)] and shared.num_loads == 1


def test_a_model_without_an_adapter_is_the_base_as_it_was_loaded(base, adapters):
    fresh = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with sharing(quiet):
        for name in LEAVING:
            load_model(str(adapters[name]), "float32", CPU, head=True)
        model = load_model(str(base), "float32", CPU, head=True)
        assert not hasattr(model, "peft_config") and not model.training
        assert [(name, type(one)) for name, one in model.named_modules()] == [
            (name, type(one)) for name, one in fresh.named_modules()
        ]
        weights, expected = dict(model.named_parameters()), dict(fresh.named_parameters())
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in weights)


@pytest.mark.parametrize("name", ADAPTERS)
def test_which_adapters_leave_their_base_as_it_is(adapters, name):
    assert leaves_base(adapters[name]) is (name in LEAVING)


def test_an_adapter_that_does_not_is_loaded_on_a_base_of_its_own(base, adapters, loads):
    of_base, alone = numbers(base), numbers(adapters["with a head"])
    loads.clear()
    with sharing(quiet) as shared:
        assert_bitwise(numbers(base), of_base)
        assert_bitwise(numbers(adapters["with a head"]), alone)
        assert shared._base is None
        assert_bitwise(numbers(base), of_base)
    # The base before and after, and one for each of the two models that were asked for between.
    assert len(loads) == 4


@pytest.mark.parametrize(
    ("field", "value"), [("bias", "all"), ("target_parameters", ["a"]), ("init_lora_weights", "pissa")]
)
def test_an_adapter_that_changes_its_base_does_not_share_it(adapters, tmp_path, field, value):
    folder = shutil.copytree(adapters["default"], tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, field: value}))
    assert leaves_base(adapters["default"]) and not leaves_base(folder)


def test_another_base_or_dtype_is_loaded_after_the_first_is_gone(base, adapters, tmp_path, monkeypatch):
    other = make_base(tmp_path / "other", hidden_size=16)
    alive = []
    plain = AutoModelForCausalLM.from_pretrained

    def from_pretrained(folder, **options):
        alive.append(shared._base)
        return plain(folder, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    with sharing(quiet) as shared:
        load_model(str(adapters["default"]), "float32", CPU, head=True)
        assert load_model(str(other), "float32", CPU, head=False).config.hidden_size == 16
        assert load_model(str(other), "bfloat16", CPU, head=True).dtype == torch.bfloat16
    assert alive == [None] * 3 and shared._base is None


def test_the_same_base_under_another_path_is_not_loaded_again(base, adapters, tmp_path, loads):
    (tmp_path / "link").symlink_to(base)
    with sharing(quiet):
        load_model(str(tmp_path / "link"), "float32", CPU, head=True)
        load_model(str(adapters["default"]), "float32", CPU, head=True)
    assert len(loads) == 1


def test_after_an_adapter_that_does_not_fit_the_base_is_loaded_anew(base, adapters, tmp_path):
    wide = make_adapter(tmp_path / "wide", make_base(tmp_path / "wide base", hidden_size=64))
    config = json.loads((wide / "adapter_config.json").read_text())
    (wide / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(base)}))
    alone = numbers(base)
    with sharing(quiet) as shared:
        numbers(adapters["default"])
        with pytest.raises(UserError, match="does not fit its base"):
            load_model(str(wide), "float32", CPU, head=True)
        assert_bitwise(numbers(base), alone)
    assert shared.num_loads == 2


def test_what_is_loaded_is_said(base, adapters):
    lines = []
    with sharing(lines.append):
        numbers(adapters["default"])
        load_model(str(adapters["with a head"]), "float32", CPU, head=True)
    assert lines[0].startswith(f"loaded the base {base} in ") and lines[0].endswith(" s")
    assert lines[1] == f"the base {base} is in memory already"
    assert lines[2] == f"the adapter {adapters['with a head']} changes its base and is loaded on one of its own"


def test_blocks_end_with_an_error_and_do_not_nest(base):
    with pytest.raises(RuntimeError), sharing(quiet) as shared:
        load_model(str(base), "float32", CPU, head=True)
        with pytest.raises(AssertionError), sharing(quiet):
            pass
        raise RuntimeError
    assert shared._base is None and trunk._open is None


def test_free_memory_is_what_there_was_before_the_base(base, monkeypatch):
    free = iter([800, 500, 300])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (next(free), 1000))
    with sharing(quiet):
        assert [free_gpu_bytes(), free_gpu_bytes()] == [800, 800]
    assert free_gpu_bytes() == 500
    assert free_gpu_bytes() == 300
