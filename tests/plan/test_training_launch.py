"""What of precision, launch file and micro-batch decides a training's content is in its key, or is refused."""

import json
import re

import pytest
from tiny_recipe import dpo_recipe, no_gpus, recipe, write  # noqa: F401

from deita_train.errors import UserError
from deita_train.plan.launch import CONFIG_DIRS
from deita_train.plan.plan import make_plan
from deita_train.plan.training_launch import launch_contradictions

pytestmark = pytest.mark.usefixtures("no_gpus")
TRAINER = {"max_grad_norm": 1.0}


def sft(folder, gpus=0, **changes):
    """The stage of SFT as planned for a machine with so many GPUs."""
    changes = {f"sft__{name}": value for name, value in changes.items()}
    return make_plan(write(folder, recipe(**changes)), (), folder / "runs", planned_gpus=gpus).cells[0].nodes["sft"]


def refusal(folder, gpus=0, **changes):
    with pytest.raises(UserError) as caught:
        sft(folder, gpus, **changes)
    return re.sub(r"^.*recipe\.yaml:(\d+:)? ", "", str(caught.value))


def launch_file(folder, *lines, kind="MULTI_GPU"):
    file = folder / "mine.yaml"
    file.write_text("\n".join([f"distributed_type: {kind}", *lines]))
    return str(file)


def deepspeed_file(folder, **settings):
    """A launch with a file of DeepSpeed's own, which says auto where it may."""
    (folder / "ds.json").write_text(
        json.dumps({"zero_optimization": {"stage": 2}, "gradient_clipping": "auto", **settings})
    )
    return launch_file(folder, f"deepspeed_config: {{deepspeed_config_file: {folder / 'ds.json'}}}", kind="DEEPSPEED")


PRECISIONS = [
    (0, {}, "no"),
    (2, {}, "bf16"),
    (2, {"trainer__bf16": False}, "no"),
    (2, {"trainer__bf16": True}, "bf16"),
    (2, {"trainer__fp16": True}, "fp16"),
    (2, {"trainer__fp16": False}, "bf16"),
    (2, {"trainer__fp16": True, "trainer__bf16": False}, "fp16"),
    (0, {"trainer__bf16": True}, "bf16"),
]


@pytest.mark.parametrize(("gpus", "stated", "precision"), PRECISIONS)
def test_the_precision_is_part_of_the_key(tmp_path, gpus, stated, precision):
    node = sft(tmp_path, gpus, **stated)
    assert node.identity["mixed_precision"] == precision and "mixed_precision" in node.hashed
    # Whatever file launches it.
    if gpus:
        for launch in ("ddp", "zero3", "fsdp2"):
            assert sft(tmp_path, gpus, launch=launch, **stated).key == node.key


def test_both_precisions_are_refused(tmp_path):
    message = refusal(tmp_path, 2, trainer__fp16=True, trainer__bf16=True)
    assert message == "sft.trainer.fp16: is true beside bf16: true; leave one of the two out."


def test_float16_needs_a_gpu(tmp_path):
    assert refusal(tmp_path, trainer__fp16=True).startswith("sft.trainer.fp16: needs a GPU")


@pytest.mark.parametrize(
    ("gpus", "named", "stated", "refused"),
    [
        (2, "bf16", {}, False),
        (2, "'no'", {}, True),
        (2, "no", {}, True),
        (2, "fp16", {}, True),
        (0, "bf16", {}, True),
        # What the recipe states holds over the file.
        (2, "bf16", {"trainer__bf16": False}, False),
        (2, "fp16", {"trainer__fp16": True}, False),
        (2, "'no'", {"trainer__bf16": True}, False),
        (2, "fp8", {"trainer__bf16": True}, True),
    ],
)
def test_the_precision_of_a_launch_file(tmp_path, gpus, named, stated, refused):
    lines = [f"mixed_precision: {named}", *(["use_cpu: true", "num_processes: 1"] if not gpus else [])]
    changes = {"launch": launch_file(tmp_path, *lines), **stated}
    if not refused:
        sft(tmp_path, gpus, **changes)
        return
    message = refusal(tmp_path, gpus, **changes)
    assert message.startswith(f"sft.launch: {tmp_path / 'mine.yaml'}: mixed_precision")
    assert named.strip("'") in message


@pytest.mark.parametrize("file", sorted(CONFIG_DIRS[0].glob("*.yaml")), ids=lambda file: file.stem)
def test_our_own_files_leave_the_content_alone(file):
    precision = "no" if file.stem.startswith("cpu") else "bf16"
    assert launch_contradictions(str(file), TRAINER, precision, is_stated=False) == []


CONTRADICTIONS = [
    ("DEEPSPEED", "deepspeed_config: {zero_stage: 2, gradient_clipping: 0.5}", "gradient_clipping is 0.5"),
    ("DEEPSPEED", "deepspeed_config: {zero_stage: 2, gradient_clipping: 1.0}", None),
    ("DEEPSPEED", "deepspeed_config: {zero_stage: 2, gradient_accumulation_steps: 1}", "follows from global_batch"),
    ("DEEPSPEED", "deepspeed_config: {zero_stage: 2, gradient_accumulation_steps: auto}", None),
    ("MULTI_GPU", "dynamo_config: {dynamo_backend: INDUCTOR}", "state trainer.torch_compile"),
    ("MULTI_GPU", "dynamo_backend: 'no'", None),
    ("FSDP", "fsdp_config: {fsdp_activation_checkpointing: true}", "state trainer.activation_checkpointing"),
    ("FSDP", "parallelism_config: {parallelism_config_cp_size: 2}", "parallelism_config_cp_size is 2"),
    ("FSDP", "parallelism_config: {parallelism_config_dp_shard_size: 2}", None),
]


@pytest.mark.parametrize(("kind", "line", "problem"), CONTRADICTIONS)
def test_what_in_a_launch_file_changes_the_content(tmp_path, kind, line, problem):
    file = launch_file(tmp_path, line, kind=kind)
    found = launch_contradictions(file, TRAINER, "bf16", is_stated=False)
    assert found == [] if problem is None else problem in found[0] and len(found) == 1


OF_DEEPSPEED = [
    ({"optimizer": {"type": "AdamW"}}, "optimizer may change what is learnt, and no key knows it; state trainer.optim"),
    ({"scheduler": {"type": "WarmupLR"}}, "state trainer.lr_scheduler_type and warmup_steps, and leave it out"),
    ({"curriculum_learning": {"enabled": True}}, "curriculum_learning may change what is learnt"),
    ({"zero_optimization": {"stage": 3, "zero_quantized_weights": True}}, "zero_quantized_weights rounds"),
    ({"zero_optimization": {"stage": 3, "zero_quantized_weights": False, "overlap_comm": True}}, None),
    ({"train_micro_batch_size_per_gpu": 4}, "train_micro_batch_size_per_gpu: it follows from global_batch_size"),
    ({"train_batch_size": "auto", "gradient_accumulation_steps": "auto"}, None),
    ({"gradient_clipping": None}, "gradient_clipping is 0, and trainer.max_grad_norm 1; write auto"),
    ({"gradient_clipping": 1}, None),
    ({"bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto", "loss_scale": 0}}, None),
    ({"bf16": {"enabled": True}, "fp16": {"enabled": False}}, None),
    ({"bf16": {"enabled": False}}, "bf16.enabled is false, and the training computes in bfloat16"),
    ({"fp16": {"enabled": True}}, "fp16.enabled is true, and the training computes in bfloat16"),
    ({"bf16": {"enabled": True, "bf16_master_weights_and_grads": True}}, "bf16.bf16_master_weights_and_grads changes"),
    ({"wall_clock_breakdown": True, "steps_per_print": 10}, None),
]


@pytest.mark.parametrize(("settings", "problem"), OF_DEEPSPEED)
def test_what_in_a_file_of_deepspeeds_changes_the_content(tmp_path, settings, problem):
    found = launch_contradictions(deepspeed_file(tmp_path, **settings), TRAINER, "bf16", is_stated=True)
    assert found == [] if problem is None else problem in found[0] and str(tmp_path / "ds.json") in found[0]


def test_a_scheduler_of_deepspeeds_is_refused_by_the_plan_with_the_name_of_the_file(tmp_path):
    file = deepspeed_file(tmp_path, scheduler={"type": "WarmupLR"}, optimizer={"type": "AdamW"})
    message = refusal(tmp_path, 2, launch=file)
    assert message.startswith(f"sft.launch: {file}: {tmp_path / 'ds.json'}: scheduler may change what is learnt")
    assert "ds.json: optimizer may change what is learnt" in message


LOSSES_OF_MICRO_BATCHES = [("sft", {"router_aux_loss_coef": 0.01}), ("dpo", {"loss_type": ["aot"]})]


@pytest.mark.parametrize(("section", "trainer"), LOSSES_OF_MICRO_BATCHES)
def test_a_loss_over_a_whole_micro_batch_has_its_size_in_the_key(tmp_path, section, trainer):
    def node(gpus=2, **fields):
        changes = {f"{section}__trainer__{name}": value for name, value in {**trainer, **fields}.items()}
        data = recipe(**changes) if section == "sft" else dpo_recipe(**changes)
        return make_plan(write(tmp_path, data), (), tmp_path / "runs", planned_gpus=gpus).cells[0].nodes[section]

    with pytest.raises(UserError, match=r"State trainer\.per_device_train_batch_size"):
        node()
    whole = node(per_device_train_batch_size=4)
    assert whole.hashed["micro_batches"] == {"rows": 4, "ranks": 2}
    keys = {whole.key, node(per_device_train_batch_size=2).key, node(gpus=1, per_device_train_batch_size=4).key}
    assert len(keys) == 3


def test_other_losses_leave_it_out(tmp_path):
    node = sft(tmp_path, 2, trainer__per_device_train_batch_size=4)
    assert "micro_batches" not in node.hashed
    assert node.key == sft(tmp_path, 1, trainer__per_device_train_batch_size=2).key
    assert sft(tmp_path, 2, trainer__router_aux_loss_coef=0.0).identity["micro_batches"] is None


def test_an_order_that_depends_on_the_ranks_is_refused(tmp_path):
    message = refusal(tmp_path, trainer__train_sampling_strategy="batch_rebalance")
    assert message.startswith("sft.trainer.train_sampling_strategy: batch_rebalance moves rows")


def test_checkpointing_under_both_names_must_agree(tmp_path):
    names = {"trainer__gradient_checkpointing": False, "trainer__activation_checkpointing": True}
    assert refusal(tmp_path, **names).startswith(
        "sft.trainer.gradient_checkpointing: is another name of activation_checkpointing"
    )
    sft(tmp_path, **{**names, "trainer__gradient_checkpointing": True})
