"""Trainings on two ranks, under DDP, FSDP and ZeRO, against one rank with the same global batch."""

import re
import shutil

import datasets
import numpy as np
import pytest
import torch
from rank_trainings import (
    BATCH,
    DROPOUT,
    FSDP2,
    NUM_STEPS,
    ROOT,
    SEED,
    Job,
    assert_same_bits,
    fork,
    fork_launch,
    launch,
    losses,
    make_inputs,
    outcome,
    renamed,
    run,
)
from transformers import AutoModelForCausalLM

from deita_train.data.rendering import IGNORED
from deita_train.errors import UserError
from deita_train.models.model_folder import check_model_folder
from deita_train.training.sampler import LengthGroupedBatches

# By `accelerate launch`; the ranks of the others, which test_two_ranks.py launches, are forked.
LAUNCHED = ("fsdp2", "cpu_zero2")
# What accelerate calls each launch, and how a rank then holds a parameter.
LAUNCHES = {
    "cpu_ddp": ("MULTI_CPU", "Parameter"),
    "fsdp2": ("FSDP", "DTensor"),
    "cpu_zero2": ("DEEPSPEED", "Parameter"),
    "cpu_zero3": ("DEEPSPEED", "ZeRO-3"),
}
# Files for GPUs that no file for a CPU repeats, and what accelerate calls them.
ON_GPUS = {"fsdp1": "FSDP", "zero1": "DEEPSPEED"}
KINDS = {"sft": Job("sft"), "dpo": Job("dpo", "dpo"), "lora": Job("lora", lora=True, trainer={"learning_rate": 3e-2})}
# Adapters under the other launches, and ZeRO-2 after an interruption, are in `make test-faults`.
TRAINED = [(launch, kind) for launch in LAUNCHES for kind in KINDS if kind != "lora" or launch == "fsdp2"]
RESUMED = ["cpu_ddp", "fsdp2", "cpu_zero3"]
# The largest difference that was seen is 1e-6, in losses and in logits.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(processes, tmp_path_factory):
    """The inputs, and the trainings of one rank."""
    made = tmp_path_factory.mktemp("ranks")
    make_inputs(made)
    for job in KINDS.values():
        assert fork(processes, made, renamed(job, f"one-{job.name}")) == [0]
    return made


@pytest.fixture(scope="module")
def launched(processes, folder):
    """Carries out all trainings of a launch of two ranks, so that its start is paid once; its name."""
    printed = {}

    def of(name):
        if name not in printed:
            if "zero" in name and shutil.which("g++") is None:
                pytest.skip("DeepSpeed compiles a small op and there is no g++")
            if name == "cpu_ddp":
                assert fork(processes, folder, Job("one-changed", stop_before=7)) == [0]
            printed[name] = None  # so that a launch that fails is not tried again for each test
            arguments = (folder, config(folder, name), LAUNCHES[name][0], jobs_of(name))
            printed[name] = launch(*arguments) if name in LAUNCHED else fork_launch(processes, *arguments)
        assert printed[name] is not None, f"the launch {name} failed before"
        return printed[name]

    return of


def jobs_of(name):
    """The kinds of training, an undisturbed one and one that is interrupted, and those that other ranks go on with."""
    jobs = [renamed(KINDS[kind], f"{name}-{kind}") for launch, kind in TRAINED if launch == name]
    jobs += resumed_jobs(name) if name in RESUMED else []
    jobs += [Job(f"{name}-changed", stop_before=7)]
    return jobs + [Job("one-changed")] * (name == "cpu_ddp")


def resumed_jobs(name):
    """An undisturbed training, and one that is interrupted and goes on."""
    whole, broken = (Job(f"{name}-{what}", trainer=DROPOUT) for what in ("whole", "broken"))
    return [whole, renamed(broken, broken.name, stop_before=7), broken]


def config(folder, name, num_processes=2):
    if name in ON_GPUS:
        return for_a_cpu(folder, name)
    if name != "fsdp2":
        return ROOT / "accelerate_configs" / f"{name}.yaml"
    file = folder / "fsdp2.yaml"
    file.write_text(FSDP2.format(num_processes=num_processes))
    return file


def for_a_cpu(folder, name):
    """One of our files for GPUs with two CPU ranks."""
    text = (ROOT / "accelerate_configs" / f"{name}.yaml").read_text()
    changes = {"mixed_precision: bf16": "mixed_precision: 'no'\nnum_processes: 2"}
    if name == "fsdp1":
        # accelerate finds no device to send the weights to.
        changes |= {
            f"fsdp_{what}: true": f"fsdp_{what}: false" for what in ("cpu_ram_efficient_loading", "sync_module_states")
        }
        changes["distributed_type: FSDP"] = "distributed_type: FSDP\nuse_cpu: true"
    for old, new in changes.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    file = folder / f"{name}.yaml"
    file.write_text(text)
    return file


@pytest.mark.faults
@pytest.mark.parametrize("name", ON_GPUS)
def test_a_launch_under_a_name_of_trls_trains_as_one_rank_does_and_resumes(processes, folder, name):
    if "zero" in name and shutil.which("g++") is None:
        pytest.skip("DeepSpeed compiles a small op and there is no g++")
    jobs = [renamed(job, f"{name}-{kind}") for kind, job in KINDS.items()]
    fork_launch(processes, folder, config(folder, name), ON_GPUS[name], jobs + resumed_jobs(name))
    for kind in KINDS:
        assert outcome(folder, f"{name}-{kind}")["parameters"] == ["Parameter"]
        np.testing.assert_allclose(
            losses(folder, f"{name}-{kind}"), losses(folder, f"one-{kind}"), rtol=0, atol=TOLERANCE
        )
    assert outcome(folder, f"{name}-broken")["resumed_from"] == 6
    assert_same_bits(folder, f"{name}-whole", f"{name}-broken")


@pytest.mark.faults
@pytest.mark.parametrize("name", LAUNCHES)
def test_four_micro_batches_of_one_row_train_as_one_of_four(processes, folder, name):
    """And as one rank does. The rest of an epoch is one row, so one rank has none."""
    if "zero" in name and shutil.which("g++") is None:
        pytest.skip("DeepSpeed compiles a small op and there is no g++")
    jobs = [Job(f"{name}-{kind}-by-one", kind, trainer={"per_device_train_batch_size": 1}) for kind in ("sft", "dpo")]
    fork_launch(processes, folder, config(folder, name), LAUNCHES[name][0], jobs)
    for job in jobs:
        assert outcome(folder, job.name)["accumulation"] == 4
        one = f"one-{job.kind}"
        np.testing.assert_allclose(losses(folder, job.name), losses(folder, one), rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(logits(folder, job.name), logits(folder, one), rtol=0, atol=TOLERANCE)


@pytest.mark.faults
@pytest.mark.parametrize(("writers", "ranks"), [("fsdp1", "fsdp2"), ("fsdp2", "fsdp1")])
def test_either_fsdp_goes_on_from_the_checkpoint_of_the_other(processes, folder, writers, ranks):
    job = Job(f"{writers}-then-{ranks}")
    fork_launch(processes, folder, config(folder, writers), "FSDP", [renamed(job, job.name, stop_before=7)])
    printed = fork_launch(processes, folder, config(folder, ranks), "FSDP", [job])
    assert "resuming from checkpoint-6\n" in printed
    np.testing.assert_allclose(losses(folder, job.name), losses(folder, "one-sft"), rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(logits(folder, job.name), logits(folder, "one-sft"), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("name", "kind"), TRAINED)
def test_the_ranks_are_two_and_hold_what_the_launch_promises(folder, launched, name, kind):
    """Their number and the distributed type are asserted in the ranks."""
    launched(name)
    assert outcome(folder, f"{name}-{kind}")["parameters"] == [LAUNCHES[name][1]]


@pytest.mark.parametrize(("name", "kind"), TRAINED)
def test_the_losses_are_those_of_one_rank(folder, launched, name, kind):
    launched(name)
    one, two = losses(folder, f"one-{kind}"), losses(folder, f"{name}-{kind}")
    np.testing.assert_allclose(two, one, rtol=0, atol=TOLERANCE)
    assert max(one) - min(one) > 0.05, "the losses would be equal whatever was trained"


@pytest.mark.parametrize(("name", "kind"), TRAINED)
def test_the_saved_model_loads_in_a_clean_process_with_the_logits_of_one_rank(folder, launched, name, kind):
    launched(name)
    one, two, base = (logits(folder, job) for job in (f"one-{kind}", f"{name}-{kind}", None))
    torch.testing.assert_close(two, one, rtol=0, atol=TOLERANCE)
    assert (one - base).abs().max() > 100 * TOLERANCE


def logits(folder, job):
    """Of plain transformers, which adds an adapter to its base by itself."""
    assert not torch.distributed.is_initialized()
    model = AutoModelForCausalLM.from_pretrained(folder / job / "model" if job else folder / "base")
    ids = torch.arange(3, 131)[None]
    with torch.inference_mode():
        return model(input_ids=ids).logits


@pytest.mark.parametrize("name", RESUMED)
def test_an_interrupted_training_has_the_bits_of_an_undisturbed_one(folder, launched, name):
    """Within the second epoch, whose order is its own, and with dropout: the random state of every rank counts."""
    assert_resumed(folder, name, launched(name))
    plain, dropout = losses(folder, f"{name}-sft"), losses(folder, f"{name}-whole")
    assert np.abs(np.array(plain) - dropout).max() > 1e-3, "there was no dropout"


@pytest.mark.faults
@pytest.mark.skipif(shutil.which("g++") is None, reason="DeepSpeed compiles a small op and there is no g++")
def test_an_interrupted_training_under_zero2_has_the_bits_of_an_undisturbed_one(folder):
    printed = launch(folder, config(folder, "cpu_zero2"), "DEEPSPEED", resumed_jobs("cpu_zero2"))
    assert_resumed(folder, "cpu_zero2", printed)


def assert_resumed(folder, name, printed):
    """It has gone on from step 6."""
    found = outcome(folder, f"{name}-broken")
    assert (found["resumed_from"], found["steps_here"]) == (6, NUM_STEPS - 6)
    assert_same_bits(folder, f"{name}-whole", f"{name}-broken")
    assert "resuming from checkpoint-6\n" in printed


def assert_continued(folder, job, accumulation, line, printed):
    """Another number of ranks has gone on from step 6, with the same global batch, and says so."""
    found = outcome(folder, job)
    assert (found["resumed_from"], found["steps_here"], found["accumulation"]) == (6, NUM_STEPS - 6, accumulation)
    np.testing.assert_allclose(losses(folder, job), losses(folder, "one-sft"), rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(logits(folder, job), logits(folder, "one-sft"), rtol=0, atol=TOLERANCE)
    assert f"resuming from checkpoint-6, written by {line}." in printed
    assert "random numbers" in printed


def test_two_ranks_go_on_from_the_checkpoint_of_one(folder, launched):
    printed = launched("cpu_ddp")
    # The micro-batch follows too: 4 of 8 rows a rank.
    assert_continued(folder, "one-changed", 1, "1 rank (NO) and continued by 2 ranks (MULTI_CPU)", printed)


def test_one_rank_goes_on_from_the_checkpoint_of_two(processes, folder, launched):
    launched("cpu_ddp")
    shutil.copytree(folder / "cpu_ddp-changed", folder / "to-one")
    # Micro-batches of 2 rows: four of them where two ranks had one of 4 each.
    assert fork(processes, folder, Job("to-one", trainer={"per_device_train_batch_size": 2})) == [0]
    printed = (folder / "to-one" / "log").read_text()
    assert_continued(folder, "to-one", 4, "2 ranks (MULTI_CPU) and continued by 1 rank (NO)", printed)


@pytest.mark.faults
def test_four_ranks_of_fsdp2_go_on_from_the_checkpoint_of_two(folder, launched):
    launched("fsdp2")
    shutil.copytree(folder / "fsdp2-changed", folder / "to-four")
    printed = launch(folder, config(folder, "fsdp2", 4), "FSDP", [Job("to-four")])
    assert_continued(folder, "to-four", 1, "2 ranks (FSDP) and continued by 4 ranks (FSDP)", printed)


SHARDED = {
    "fsdp2": "2 ranks (FSDP)",
    "cpu_zero2": "2 ranks (DEEPSPEED, ZeRO-2)",
    "cpu_zero3": "2 ranks (DEEPSPEED, ZeRO-3)",
}


@pytest.mark.parametrize(("name", "writers"), SHARDED.items())
def test_a_checkpoint_in_parts_is_refused_by_one_rank_before_the_model_is_loaded(folder, launched, name, writers):
    launched(name)
    (folder / "no-weights").mkdir(exist_ok=True)
    shutil.copy(folder / "base" / "config.json", folder / "no-weights")
    with pytest.raises(UserError, match=re.escape(f"checkpoint-6 was written by {writers}")) as raised:
        run(folder, Job(f"{name}-changed", model="no-weights", tokenizer="base"))
    told = ("cannot be continued by 1 rank (NO)", "launch it the way it was written", "--fresh", "copy that folder")
    for way in told:
        assert way in str(raised.value)


@pytest.mark.parametrize("name", LAUNCHES)
def test_the_weights_of_a_checkpoint_begin_a_new_training(processes, folder, launched, name):
    """That is the way out of the refusal: nothing of the trainer's state is read then."""
    launched(name)
    copy = folder / f"{name}-copy"
    shutil.copytree(folder / f"{name}-changed" / "checkpoints" / "checkpoint-6", copy)
    pickled = [path for path in copy.rglob("*") if path.suffix in {".pt", ".pth", ".bin"}]
    assert len(pickled) >= 4
    for path in pickled:
        path.write_bytes(b"nothing may read this")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (copy / file).read_bytes() == (folder / "base" / file).read_bytes()
    check_model_folder(copy)
    assert fork(processes, folder, Job(f"{name}-new", model=copy.name)) == [0]
    # The loss before the first step is that of the checkpoint's weights, row by row.
    begun = AutoModelForCausalLM.from_pretrained(copy, dtype=torch.float64)
    assert losses(folder, f"{name}-new")[0] == pytest.approx(first_loss(folder, begun), abs=TOLERANCE)
    assert losses(folder, f"{name}-new")[0] < losses(folder, "one-sft")[0] - 100 * TOLERANCE


def first_loss(folder, model):
    """The mean loss per labelled token over the first global batch, row by row."""
    rows = list(datasets.load_from_disk(str(folder / "sft_rows")))
    order = list(LengthGroupedBatches([row["length"] for row in rows], BATCH, SEED))[:BATCH]
    surprises = []
    for place in order:
        ids, labels = (torch.tensor(rows[place][name]) for name in ("input_ids", "labels"))
        with torch.inference_mode():
            log_probs = model(input_ids=ids[None]).logits[0].log_softmax(-1)
        surprises += [-float(log_probs[at - 1, labels[at]]) for at in range(1, len(ids)) if labels[at] != IGNORED]
    return float(np.mean(surprises))
