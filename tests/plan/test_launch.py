import os
import shlex
import stat
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import deita_train
from deita_train.errors import UserError
from deita_train.plan import launch
from deita_train.plan.launch import Launch, count_gpus, resolve_launch
from deita_train.plan.training_launch import unsaved_model

FOLDER = Path(deita_train.__file__).parent.parent / "accelerate_configs"
# File -> (ranks with eight GPUs there, distributed type, on the CPU), by hand.
FILES = {
    "cpu": (1, "NO", True),
    "cpu_ddp": (2, "MULTI_GPU", True),
    "cpu_zero2": (2, "DEEPSPEED", True),
    "cpu_zero3": (2, "DEEPSPEED", True),
    "cpu_fsdp2": (2, "FSDP", True),
    "single_gpu": (1, "NO", False),
    "ddp": (8, "MULTI_GPU", False),
    "multi_gpu": (8, "MULTI_GPU", False),
    "zero1": (8, "DEEPSPEED", False),
    "zero2": (8, "DEEPSPEED", False),
    "zero3": (8, "DEEPSPEED", False),
    "zero3_offload": (8, "DEEPSPEED", False),
    "zero3_2nodes": (16, "DEEPSPEED", False),
    "fsdp1": (8, "FSDP", False),
    "fsdp2": (8, "FSDP", False),
}
# What trl ships under these names; its files may have more.
TRL = ("single_gpu", "multi_gpu", "zero1", "zero2", "zero3", "fsdp1", "fsdp2")
# Lines of trl's files that say how its own examples start, or nothing.
NOT_COMPARED = {
    "num_processes", "debug", "downcast_bf16", "enable_cpu_affinity", "gpu_ids", "machine_rank", "rdzv_backend",
    "main_training_function", "same_network", "tpu_env", "tpu_use_cluster", "tpu_use_sudo", "use_cpu",
    # Ours clip as the trainer says, and start on one machine with any launcher; accumulation follows from the batch.
    "deepspeed_multinode_launcher", "gradient_accumulation_steps", "gradient_clipping",
}  # fmt: skip
# What `accelerate launch` takes for lines that are left out.
DEFAULTS = {
    "DEEPSPEED": {
        "zero3_save_16bit_model": False, "offload_optimizer_device": "none", "offload_param_device": "none",
    },
    "FSDP": {"fsdp_cpu_ram_efficient_loading": True},
}  # fmt: skip


def found_as(name):
    ranks, distributed_type, use_cpu = FILES[name]
    machines = 2 if name == "zero3_2nodes" else 1
    return Launch(str(FOLDER / f"{name}.yaml"), ranks, distributed_type, use_cpu, machines)


@pytest.fixture(autouse=True)
def fresh_caches():
    yield
    resolve_launch.cache_clear()
    count_gpus.cache_clear()


@pytest.fixture
def gpus(monkeypatch):
    def set_gpus(number):
        monkeypatch.setattr(launch, "count_gpus", lambda: number)
        resolve_launch.cache_clear()

    return set_gpus


def test_every_file_is_known_here():
    assert {file.stem for file in FOLDER.glob("*.yaml")} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_ours_with_eight_gpus(gpus, name):
    gpus(8)
    assert resolve_launch(name) == found_as(name)


def settings(file):
    """What a launch file says of the ranks, with accelerate's defaults."""
    values = YAML(typ="safe").load(file)
    sections = [values.pop(name, {}) for name in ("deepspeed_config", "fsdp_config")]
    found = DEFAULTS.get(values["distributed_type"], {}) | values | sections[0] | sections[1]
    return {name: value for name, value in found.items() if name not in NOT_COMPARED}


@pytest.mark.parametrize("name", TRL)
def test_a_name_of_trls_means_what_trl_means(name):
    theirs = Path(find_spec("trl").submodule_search_locations[0]) / "accelerate_configs" / f"{name}.yaml"
    assert settings(FOLDER / f"{name}.yaml") == settings(theirs)


def test_every_name_of_trls_is_there():
    theirs = Path(find_spec("trl").submodule_search_locations[0]) / "accelerate_configs"
    assert {file.stem for file in theirs.glob("*.yaml")} <= set(TRL)


def test_multi_gpu_is_ddp():
    lines = [(FOLDER / f"{name}.yaml").read_text().splitlines() for name in ("ddp", "multi_gpu")]
    assert lines[0][1:] == lines[1][1:]


@pytest.mark.parametrize(("name", "stage"), [("zero1", 1), ("zero2", 2), ("zero3", 3), ("fsdp1", None), ("ddp", None)])
def test_the_zero_stage_of_a_launch(name, stage):
    assert Launch(str(FOLDER / f"{name}.yaml"), 8, "", False).zero_stage == stage


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_ours_saves_a_model(name):
    assert unsaved_model(str(FOLDER / f"{name}.yaml")) is None


# accelerate's own defaults leave no model: SHARDED_STATE_DICT for FSDP2, and no gathering under ZeRO-3.
UNSAVED = [
    ("FSDP", "fsdp_config: {fsdp_version: 2, fsdp_state_dict_type: SHARDED_STATE_DICT}", "is SHARDED_STATE_DICT"),
    ("FSDP", "fsdp_config: {fsdp_version: 2}", "write FULL_STATE_DICT"),
    ("FSDP", "fsdp_config: {fsdp_version: 1}", None),
    ("FSDP", "fsdp_config: {fsdp_version: 2, fsdp_state_dict_type: FULL_STATE_DICT}", None),
    ("DEEPSPEED", "deepspeed_config: {zero_stage: 3}", "write zero3_save_16bit_model: true"),
    ("DEEPSPEED", "deepspeed_config: {zero_stage: 3, zero3_save_16bit_model: false}", "is not true under ZeRO-3"),
    ("DEEPSPEED", "deepspeed_config: {zero_stage: 3, zero3_save_16bit_model: true}", None),
    ("DEEPSPEED", "deepspeed_config: {zero_stage: 2}", None),
    ("MULTI_GPU", "", None),
]


@pytest.mark.parametrize(("distributed_type", "line", "problem"), UNSAVED)
def test_a_file_that_would_leave_no_model_is_known(tmp_path, distributed_type, line, problem):
    file = tmp_path / "mine.yaml"
    file.write_text(f"distributed_type: {distributed_type}\n{line}\n")
    found = unsaved_model(str(file))
    assert found is None if problem is None else problem in found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"zero_optimization": {"stage": 3}}', "stage3_gather_16bit_weights_on_model_save"),
        ('{"zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": true}}', None),
        ('{"zero_optimization": {"stage": 2}}', None),
    ],
)
def test_a_file_of_deepspeeds_own_is_read(tmp_path, text, problem):
    (tmp_path / "zero.json").write_text(text)
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"distributed_type: DEEPSPEED\ndeepspeed_config: {{deepspeed_config_file: {tmp_path / 'zero.json'}}}\n"
    )
    found = unsaved_model(str(file))
    assert found is None if problem is None else problem in found
    (tmp_path / "zero.json").write_text("{}")
    with pytest.raises(UserError, match=r"zero\.json cannot be read, or states no zero_optimization\.stage"):
        unsaved_model(str(file))


@pytest.mark.parametrize("name", [name for name, (_, _, use_cpu) in FILES.items() if use_cpu])
def test_a_cpu_file_needs_no_gpu(gpus, name):
    gpus(0)
    found = resolve_launch(name)
    assert (found.num_processes, found.distributed_type, found.use_cpu) == FILES[name]
    assert found.forked == (name == "cpu")


@pytest.mark.parametrize("name", [name for name, (_, _, use_cpu) in FILES.items() if not use_cpu])
def test_a_gpu_file_is_refused_without_gpus(gpus, name):
    gpus(0)
    with pytest.raises(UserError) as caught:
        resolve_launch(name)
    assert str(caught.value) == (
        f"{name} needs GPUs and this machine has none; cpu, cpu_ddp, cpu_zero2, cpu_zero3, cpu_fsdp2 do without. "
        "To plan or validate for a machine that has some, state how many: --gpus N."
    )


@pytest.mark.parametrize("name", FILES)
def test_stated_gpus_take_the_place_of_counted_ones(gpus, name):
    gpus(0)
    ranks, _, use_cpu = FILES[name]
    assert resolve_launch(name, 8) == found_as(name)
    gpus(8)
    if use_cpu:
        assert resolve_launch(name, 0).num_processes == ranks
    else:
        with pytest.raises(UserError):
            resolve_launch(name, 0)


@pytest.mark.parametrize(("number", "name"), [(0, "cpu"), (1, "single_gpu"), (2, "ddp"), (8, "ddp")])
def test_without_a_name_the_stated_gpus_decide(gpus, number, name):
    gpus(3)
    assert resolve_launch(None, number) == resolve_launch(name, number)
    assert resolve_launch(None, number).num_processes == max(1, number)


def test_stated_gpus_are_those_of_each_machine(gpus, tmp_path):
    gpus(0)
    path = own(tmp_path, "distributed_type: FSDP\nnum_machines: 2\n")
    assert resolve_launch(path, 4).num_processes == 8
    resolve_launch.cache_clear()
    path = own(tmp_path, "distributed_type: FSDP\nnum_machines: 2\nnum_processes: 6\n")
    assert resolve_launch(path, 4).num_processes == 6


@pytest.mark.parametrize(("number", "name"), [(0, "cpu"), (1, "single_gpu"), (2, "ddp"), (8, "ddp")])
def test_without_a_name_the_machine_decides(gpus, number, name):
    gpus(number)
    found = resolve_launch(None)
    assert found.config_file == str(FOLDER / f"{name}.yaml")
    assert found.num_processes == max(1, number)
    assert not found.forked or number == 0


def test_a_path_to_one_of_our_files_is_that_file(gpus, monkeypatch):
    gpus(0)
    monkeypatch.chdir(FOLDER.parent)
    assert resolve_launch("accelerate_configs/cpu_zero3.yaml") == resolve_launch("cpu_zero3")


def own(folder, text):
    file = folder / "own.yaml"
    file.write_text(text)
    return str(file)


def test_a_file_of_the_users_own(gpus, tmp_path):
    gpus(4)
    path = own(tmp_path, "distributed_type: MULTI_GPU\nnum_machines: 2\n")
    assert resolve_launch(path) == Launch(path, 8, "MULTI_GPU", False, num_machines=2)
    resolve_launch.cache_clear()
    path = own(tmp_path, "distributed_type: MULTI_GPU\nnum_processes: 3\nuse_cpu: true\n")
    assert resolve_launch(path) == Launch(path, 3, "MULTI_GPU", True)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("num_processes: 2\n", "has no distributed_type: not an accelerate configuration"),
        ("[1, 2]\n", "has no distributed_type: not an accelerate configuration"),
        ("", "has no distributed_type: not an accelerate configuration"),
        ("a: [1\n", "is not YAML: "),
    ],
)
def test_a_file_that_is_not_accelerates_is_refused(gpus, tmp_path, text, problem):
    gpus(0)
    path = own(tmp_path, text)
    with pytest.raises(UserError) as caught:
        resolve_launch(path)
    assert str(caught.value).startswith(f"{path} {problem}")


@pytest.mark.parametrize("name", ["zero7", "none.yaml", "."])
def test_an_unknown_name_lists_the_known_ones(gpus, name):
    gpus(0)
    with pytest.raises(UserError) as caught:
        resolve_launch(name)
    assert str(caught.value) == (
        f"{name} is unknown; allowed: {', '.join(sorted(FILES))}, or a path to an accelerate configuration"
    )


def test_plain_data_and_back():
    made = Launch("f.yaml", 2, "FSDP", False)
    assert Launch.from_dict(made.as_dict()) == made


def test_the_command_that_is_started():
    command = Launch("/c/f.yaml", 2, "FSDP", False).command(["stage", "r.yaml"])
    assert command[0] == sys.executable
    assert command[command.index("--config_file") + 1] == "/c/f.yaml"
    assert command[command.index("--num_processes") + 1] == "2"
    assert command[-4:] == ["-m", "deita_train.cli", "stage", "r.yaml"]


def test_the_printed_command_shows_files_below_the_working_folder_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = Launch(str(tmp_path / "c" / "f.yaml"), 2, "FSDP", False)
    assert made.printed_command(["stage", "r.yaml"]) == (
        "accelerate launch --config_file c/f.yaml --num_processes 2 --main_process_port 0 "
        "-m deita_train.cli stage r.yaml"
    )
    assert "--config_file /elsewhere/f.yaml " in Launch("/elsewhere/f.yaml", 2, "FSDP", False).printed_command([])


def test_the_printed_command_survives_a_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["stage", "my recipe.yaml", "--set", "sft.trainer={learning_rate: 1e-3}", "--set", "name=a'b$HOME"]
    made = Launch(str(tmp_path / "my configs" / "f.yaml"), 2, "FSDP", False)
    words = shlex.split(made.printed_command(arguments))
    assert words[-len(arguments) :] == arguments
    assert words[words.index("--config_file") + 1] == os.path.join("my configs", "f.yaml")  # noqa: PTH118


@pytest.mark.parametrize(("visible", "number"), [("", 0), ("-1", 0), ("0", 1), ("0,3", 2), (" 1 , 2 ,5", 3)])
def test_gpus_are_counted_from_what_is_visible(monkeypatch, visible, number):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    count_gpus.cache_clear()
    assert count_gpus() == number


def test_gpus_are_counted_from_the_driver(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    count_gpus.cache_clear()
    assert count_gpus() == 0
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA (UUID: GPU-a)'\necho '  MIG 1g'\necho 'GPU 1: NVIDIA'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    count_gpus.cache_clear()
    assert count_gpus() == 2
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed' >&2\nexit 9\n")
    count_gpus.cache_clear()
    assert count_gpus() == 0
