"""What a training leaves on disk, against checkpoints that real trainings wrote."""

import random

import datasets
import pytest

from deita_train.errors import UserError
from deita_train.inference import cpu_bfloat16
from deita_train.models.weight_shapes import shapes_in_folder, shapes_of_config
from deita_train.training.arguments import TrainingSettings
from deita_train.training.miniature import make_model, train_tokenizer
from deita_train.training.rows import LabelledRow, write_training_rows
from deita_train.training.sizes import adapter_weights, frozen_layers, training_size, weights_below
from deita_train.training.trainer_run import train

WIDE = {
    "model_type": "llama", "vocab_size": 600, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4,
    "num_attention_heads": 4,
}  # fmt: skip
LORA = {"r": 8, "target_modules": "all-linear"}
# Bytes of the checkpoint and of the published weights of that model, 3,717,376 parameters, as `ls` showed them after
# trainings on one CPU process and on two ranks under each launch.
MEASURED = [
    ("NO", None, {"bf16": False}, None, 44_699_027, 14_873_672),
    ("NO", None, {"bf16": False, "model_init_kwargs": {"dtype": "bfloat16"}}, None, 22_394_801, 7_438_928),
    ("MULTI_GPU", None, {"bf16": False}, None, 44_713_547, 14_873_672),
    ("DEEPSPEED", 2, {"bf16": False}, None, 74_488_832, 14_873_672),
    ("DEEPSPEED", 3, {"bf16": False}, None, 59_645_354, 14_873_672),
    ("DEEPSPEED", 2, {"bf16": True}, None, 59_619_486, 7_438_928),
    ("DEEPSPEED", 3, {"bf16": True}, None, 52_210_760, 7_438_928),
    # Without the tokenizer, random states and scripts, which are as large as the adapter here.
    ("NO", None, {"bf16": False}, LORA, 662_464 + 1_357_003, 662_464),
    ("DEEPSPEED", 2, {"bf16": True}, LORA, 334_824 + 371_929 + 2 * 990_085, 334_824),
    ("DEEPSPEED", 3, {"bf16": True}, LORA, 334_824 + 2 * 987_077, 334_824),
]


@pytest.mark.parametrize(("distributed_type", "stage", "trainer", "peft", "checkpoint", "published"), MEASURED)
def test_sizes_are_those_that_were_measured(distributed_type, stage, trainer, peft, checkpoint, published):
    how = {"distributed_type": distributed_type, "zero_stage": stage, "use_cpu": True, "peft": peft}
    size = training_size(shapes_of_config(WIDE), trainer, **how)
    assert size.checkpoint == pytest.approx(checkpoint, rel=0.005 if peft is None else 0.06)
    assert size.published == pytest.approx(published, rel=0.001 if peft is None else 0.03)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sized") / "model"
    tokenizer = train_tokenizer(["a few words of text"], 300, "{{ messages }}", folder)
    make_model(tokenizer, hidden_size=192, num_layers=2, num_heads=4, context_length=64, seed=1, folder=folder)
    draw = random.Random(0)
    ids = [[draw.randrange(3, 60) for _ in range(12)] for _ in range(8)]
    rows = (LabelledRow(str(number), row, row, False) for number, row in enumerate(ids))
    write_training_rows(rows, folder.parent / "rows")
    return folder, tokenizer


@pytest.mark.parametrize("peft", [None, {"r": 64, "target_modules": ["q_proj", "down_proj"], "use_dora": True}])
def test_a_real_checkpoint_has_the_size_that_was_reported(model, tmp_path, peft):
    folder, tokenizer = model
    trainer = {"learning_rate": 1e-3, "num_train_epochs": 1, "save_steps": 1}
    settings = TrainingSettings(trainer, 2, 7, 1, "NO", True, peft=peft)
    rows = datasets.load_from_disk(str(folder.parent / "rows"))
    places = (tmp_path / "checkpoints", tmp_path / "model")
    train(str(folder), tokenizer, rows, settings, *places, lambda *_: None, lambda *_: None)
    written = sorted(places[0].glob("checkpoint-*"))
    assert len(written) == 2  # as many as are kept
    size = training_size(
        shapes_in_folder(folder), trainer, distributed_type="NO", zero_stage=None, use_cpu=True, peft=peft
    )
    for checkpoint in written:
        found = sum(path.stat().st_size for path in checkpoint.iterdir())
        assert found == pytest.approx(size.checkpoint, rel=0.05)
    published = sum(path.stat().st_size for path in places[1].glob("*.safetensors"))
    assert published == pytest.approx(size.published, rel=0.03)
    assert size.at_most == max(3 * size.checkpoint, 2 * size.checkpoint + size.published) == 3 * size.checkpoint


def test_an_adapters_weights_by_hand():
    # Four blocks: queries and values 256 x 256, the MLP's projections 768 x 256 and back.
    shapes = shapes_of_config(WIDE)
    assert adapter_weights(shapes, {"r": 4}) == 4 * 2 * 4 * 512
    assert adapter_weights(shapes, {"target_modules": r".*\.3\.mlp\.(up|down)_proj"}) == 2 * 8 * 1024
    dora = {"r": 2, "target_modules": ["down_proj"], "use_dora": True, "modules_to_save": ["lm_head"]}
    assert adapter_weights(shapes, dora) == 4 * (2 * 1024 + 256) + 600 * 256
    assert adapter_weights(shapes, {"target_modules": ["query"]}) is None
    above = {"r": 4, "target_modules": ["q_proj", "up_proj"], "layers_to_transform": [1, 3]}
    assert adapter_weights(shapes, above) == 2 * 4 * (512 + 1024)
    assert frozen_layers(shapes, above) == 1
    assert frozen_layers(shapes, {**above, "layers_to_transform": 3}) == 3
    assert frozen_layers(shapes, {**above, "modules_to_save": ["embed_tokens"]}) == 0
    assert frozen_layers(shapes, {"target_modules": ["q_proj"]}) == 0
    assert weights_below(shapes, 3) == 3 * weights_below(shapes, 1) > 0 == weights_below(shapes, 0)
    assert adapter_weights(shapes, {"target_modules": ["q_proj"], "layers_pattern": "layers"}) is None


def test_a_merged_adapter_is_published_as_a_whole_model():
    merged = training_size(
        shapes_of_config(WIDE), {}, distributed_type="NO", zero_stage=None, use_cpu=True, peft=LORA, merge_adapter=True
    )
    assert merged.published == 4 * 3_717_376
    assert merged.at_most == 2 * merged.checkpoint + merged.published


@pytest.mark.parametrize("precision", [{"bf16": True}, {"model_init_kwargs": {"dtype": "bfloat16"}}])
def test_hours_in_bfloat16_on_a_cpu_are_refused_before_the_first_step(model, tmp_path, monkeypatch, precision):
    slow = cpu_bfloat16.ProductRates(float32=1e6, bfloat16=1e3)  # of a CPU on which even this miniature takes hours
    monkeypatch.setattr(cpu_bfloat16, "product_rates", lambda: slow)
    monkeypatch.setattr(cpu_bfloat16, "_NEVER_SLOW", 0)
    folder, tokenizer = model
    settings = TrainingSettings({"num_train_epochs": 1, **precision}, 2, 7, 1, "NO", True)
    rows = datasets.load_from_disk(str(folder.parent / "rows"))
    places = (tmp_path / "checkpoints", tmp_path / "model")
    with pytest.raises(UserError, match=r"1,000 times as long as in float32.*hours.*Leave out trainer\.bf16"):
        train(str(folder), tokenizer, rows, settings, *places, lambda *_: None, lambda *_: None)
    assert not places[1].exists()
