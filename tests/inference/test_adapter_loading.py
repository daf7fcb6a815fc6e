"""Adapter folders against plain peft and plain transformers, and how the base of an adapter is found."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, LlamaModel

from deita_train.errors import UserError
from deita_train.inference import adapter_loading as adapters
from deita_train.inference.adapter_loading import base_folder
from deita_train.inference.forward import (
    check_logits,
    last_hidden_states,
    last_logits,
    load_model,
    pad_batch,
    summed_loss,
)
from deita_train.inference.greedy import greedy_answers
from deita_train.models.adapter_files import (
    AdapterBase,
    is_adapter,
    locate_base,
    name_base,
    placeless_text,
    read_adapter,
)

CPU = torch.device("cpu")
ROWS = [[5, 17, 3, 44, 9, 30], [7, 7, 2], [51, 0, 0, 12]]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ADAPTERS = {
    "default": {},
    "every layer": {"target_modules": "all-linear", "r": 4, "use_rslora": True},
    "dora": {"use_dora": True},
    "mica": {"init_lora_weights": "mica"},
    "with a head": {"modules_to_save": ["lm_head"]},
    "with an embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "with tokens": {"trainable_token_indices": [3, 7]},
    "pattern": {"rank_pattern": {"q_proj": 2}, "layers_to_transform": [1]},
}


def make_base(folder, hidden_size=32):
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=61, hidden_size=hidden_size, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.3, pad_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_adapter(folder, base, **fields):
    """An adapter that does something: its weights are moved as a training would."""
    torch.manual_seed(6)
    model = get_peft_model(plain(base), LoraConfig(task_type="CAUSAL_LM", **fields))
    for weight in model.parameters():
        weight.data += 0.05 * torch.randn_like(weight) * weight.requires_grad
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    return folder


def plain(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def own_logits(model, row):
    with torch.inference_mode():
        return model.eval()(input_ids=torch.tensor([row])).logits


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module", params=ADAPTERS)
def adapter(request, base, tmp_path_factory):
    return make_adapter(tmp_path_factory.mktemp("adapter"), base, **ADAPTERS[request.param])


@pytest.fixture
def simple(base, tmp_path):
    return make_adapter(tmp_path / "adapter", base)


def test_an_adapter_has_bitwise_the_numbers_of_plain_peft(adapter, base):
    expected = PeftModel.from_pretrained(plain(base), adapter)
    loaded = load_model(str(adapter), "float32", CPU, head=True)
    assert type(loaded) is LlamaForCausalLM and not loaded.training
    for row in ROWS:
        assert torch.equal(own_logits(loaded, row), own_logits(expected, row))
        assert not torch.allclose(own_logits(loaded, row), own_logits(plain(base), row), atol=0.01)


def test_the_passes_work_on_an_adapter_as_on_a_whole_model(adapter, base):
    expected = PeftModel.from_pretrained(plain(base), adapter).eval()
    whole, trunk = (load_model(str(adapter), "float32", CPU, head=head) for head in (True, False))
    assert type(trunk) is LlamaModel
    batch = pad_batch(ROWS, CPU)
    labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
    hidden, logits, (sums, counts) = (
        last_hidden_states(trunk, batch),
        last_logits(whole, batch),
        summed_loss(whole, batch, labels),
    )
    check_logits(whole, ROWS[0], CPU)
    assert counts.tolist() == [5, 2, 3]
    for index, row in enumerate(ROWS):
        with torch.inference_mode():
            output = expected(input_ids=torch.tensor([row]), output_hidden_states=True)
        torch.testing.assert_close(hidden[index], output.hidden_states[-1][0, -1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(logits[index], output.logits[0, -1], atol=1e-5, rtol=1e-5)
        loss = torch.nn.functional.cross_entropy(output.logits[0, :-1], torch.tensor(row[1:]), reduction="sum")
        assert sums[index] == pytest.approx(float(loss), rel=1e-4)
        likeliest = int(output.logits[0, -1].argmax())
        assert greedy_answers(whole, [row], 1, stop_ids=[]) == [[likeliest]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_models_loaded_in_turn_have_bitwise_the_numbers_of_the_first_time(base, tmp_path, dtype):
    """Two adapters and their base in one process, as passes use them: nothing of one is left in the next."""
    folders = [base, *(make_adapter(tmp_path / name, base, **ADAPTERS[name]) for name in ("default", "dora"))]
    batch = pad_batch(ROWS, CPU)

    def numbers(folder):
        hidden = last_hidden_states(load_model(str(folder), dtype, CPU, head=False), batch)
        return [last_logits(load_model(str(folder), dtype, CPU, head=True), batch, [3, 9]), hidden]

    first = [numbers(folder) for folder in folders]
    assert not any(torch.equal(first[0][1], adapted[1]) for adapted in first[1:]), "the adapters do something"
    for index in (1, 0, 2, 1):
        for again, expected in zip(numbers(folders[index]), first[index], strict=True):
            assert again.dtype == expected.dtype and torch.equal(again, expected)


def test_plain_transformers_loads_an_adapter(simple, base):
    loaded = AutoModelForCausalLM.from_pretrained(simple)
    assert torch.equal(
        own_logits(loaded, ROWS[0]), own_logits(load_model(str(simple), "float32", CPU, head=True), ROWS[0])
    )


def test_the_base_is_loaded_in_the_dtype_of_the_pass(simple):
    loaded = load_model(str(simple), "bfloat16", CPU, head=True)
    assert loaded.dtype == torch.bfloat16
    assert own_logits(loaded, ROWS[0]).isfinite().all()


def edit(folder, **changes):
    path = folder / "adapter_config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in config.items() if value != "removed"}))
    return folder


def refusal(function, folder):
    with pytest.raises(UserError) as caught:
        function(folder)
    return str(caught.value)


def test_a_folder_is_an_adapter_by_its_configuration(simple, base):
    assert is_adapter(simple) and not is_adapter(base)
    assert read_adapter(simple)["r"] == 8


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA adapters are read."),
        ({"peft_type": "removed"}, "peft_type is None; only LORA adapters are read."),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens is set"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path is missing"),
    ],
)
def test_an_adapter_that_cannot_be_read_is_the_users(simple, changes, problem):
    message = refusal(read_adapter, edit(simple, **changes))
    assert message.startswith(f"{simple / 'adapter_config.json'}: ") and problem in message


def test_a_torn_configuration_is_the_users(simple):
    (simple / "adapter_config.json").write_text('{"r": ')
    assert "cannot be read" in refusal(read_adapter, simple)
    (simple / "adapter_config.json").write_text("[]")
    assert "it holds list, not a mapping" in refusal(read_adapter, simple)


def test_only_safetensors_are_read(simple):
    (simple / "adapter_model.safetensors").rename(simple / "adapter_model.bin")
    assert refusal(lambda folder: load_model(str(folder), "float32", CPU, head=True), simple) == (
        f"{simple} has no adapter_model.safetensors; adapters are read from safetensors only."
    )


def test_a_base_of_other_shape_is_refused(simple, tmp_path):
    edit(simple, base_model_name_or_path=str(make_base(tmp_path / "wide", hidden_size=64)))
    message = refusal(lambda folder: load_model(str(folder), "float32", CPU, head=True), simple)
    assert message.startswith(f"the adapter {simple} does not fit its base {tmp_path / 'wide'}: ")


@pytest.mark.parametrize(
    ("change", "count"),
    [
        (lambda weights: weights.pop(min(weights)), "1 of its weights are missing and 0 have no place"),
        (lambda weights: weights.update(stray=torch.zeros(1)), "0 of its weights are missing and 1 have no place"),
    ],
)
@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_every_weight_of_an_adapter_has_its_place(simple, change, count):
    weights = load_file(simple / "adapter_model.safetensors")
    change(weights)
    save_file(weights, simple / "adapter_model.safetensors")
    assert count in refusal(lambda folder: load_model(str(folder), "float32", CPU, head=True), simple)


def test_a_local_base_is_found_where_the_adapter_says(simple, base):
    assert locate_base(simple) == AdapterBase(folder=base)
    assert base_folder(simple) == base


def test_the_base_is_found_again_after_the_store_was_moved(base, tmp_path):
    store = tmp_path / "runs" / "store"
    shutil.copytree(base, store / "base-0123" / "model")
    adapter = make_adapter(store / "sft-4567" / "model", store / "base-0123" / "model")
    expected = own_logits(load_model(str(adapter), "float32", CPU, head=True), ROWS[0])
    (tmp_path / "runs").rename(tmp_path / "moved")
    moved = tmp_path / "moved" / "store"
    assert locate_base(moved / "sft-4567" / "model").folder == moved / "base-0123" / "model"
    loaded = load_model(str(moved / "sft-4567" / "model"), "float32", CPU, head=True)
    assert torch.equal(own_logits(loaded, ROWS[0]), expected)
    shutil.rmtree(moved / "base-0123")
    assert refusal(locate_base, moved / "sft-4567" / "model") == (
        f"{moved / 'sft-4567' / 'model' / 'adapter_config.json'}: the adapter's base {store / 'base-0123' / 'model'} "
        f"does not exist, and neither does {moved / 'base-0123' / 'model'}. Put it back, or write where it is now as "
        "base_model_name_or_path."
    )


def test_a_base_must_be_a_whole_model(simple, base, tmp_path):
    other = make_adapter(tmp_path / "other", base)
    (tmp_path / "empty").mkdir()
    for folder in (other, tmp_path / "empty"):
        edit(simple, base_model_name_or_path=str(folder))
        assert refusal(locate_base, simple).endswith(f"the base {folder} is not a full transformers model.")


def test_a_base_on_the_hub_needs_its_commit(simple, monkeypatch, base):
    edit(simple, base_model_name_or_path="org/model", revision=COMMIT)
    assert locate_base(simple) == AdapterBase(hub="org/model", revision=COMMIT)
    asked = []
    monkeypatch.setattr(adapters, "hub_folder", lambda *told, **patterns: asked.append((*told, patterns)) or base)
    assert base_folder(simple) == base
    assert asked == [("org/model", COMMIT, str(simple), {"ignore": ["*.bin", "*.pt", "*.pth", "*.ckpt"]})]
    for revision in (None, "main", COMMIT[:7]):
        message = refusal(locate_base, edit(simple, revision=revision))
        assert f"revision is {revision!r}; write the commit (40 digits) of the base org/model on the Hub" in message


def test_naming_the_base_puts_peft_s_sets_in_order(simple):
    edit(simple, target_modules=["v_proj", "k_proj", "q_proj"])
    name_base(simple, "org/model", COMMIT)
    config = json.loads((simple / "adapter_config.json").read_text())
    assert config["target_modules"] == ["k_proj", "q_proj", "v_proj"]
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/model", COMMIT)
    assert config["r"] == 8


def test_the_base_s_place_is_no_part_of_the_content(simple):
    path = simple / "adapter_config.json"
    texts = []
    for base, revision in (("/a", None), ("/b", None), ("/b", COMMIT)):
        name_base(simple, base, revision)
        texts.append(placeless_text(path))
    assert texts[0] == texts[1] != texts[2]
