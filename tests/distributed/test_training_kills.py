"""SIGKILL at a random moment of a training, or damage to its newest checkpoint: the bits of an undisturbed training."""

import random
import shutil
import signal

import pytest
from rank_trainings import DROPOUT, NUM_STEPS, Job, assert_same_bits, fork, losses, make_inputs, outcome, renamed

# With dropout in SFT, so that the random state counts; DPO trains without.
JOBS = {"sft": Job("sft", trainer=DROPOUT), "dpo": Job("dpo", "dpo")}
FAULTS = [(kind, world_size, seed) for kind in JOBS for world_size in (1, 2) for seed in range(10)]
# In `make test`: early and late, in the first epoch and in the second.
MOMENTS = [("sft", 1, 0), ("dpo", 1, 4), ("sft", 2, 9), ("dpo", 2, 7)]
# About three steps and the checkpoint between them.
SECONDS = 0.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("kills")
    make_inputs(made)
    return made


@pytest.fixture(scope="module")
def undisturbed(processes, folder):
    """The name of a training that nothing disturbed, by its kind and the number of its ranks."""
    made = set()

    def of(kind, world_size):
        name = f"{kind}-{world_size}"
        if name not in made:
            assert fork(processes, folder, renamed(JOBS[kind], name), world_size) == [0] * world_size
            made.add(name)
        return name

    return of


def moment(seed):
    """The step during which a training is killed, and how many seconds after the beginning of that step."""
    drawn = random.Random(seed)
    return drawn.randrange(NUM_STEPS), drawn.uniform(0.0, SECONDS)


def check_kill(processes, folder, undisturbed, kind, world_size, seed):
    expected = undisturbed(kind, world_size)
    step, seconds = moment(seed)
    job = renamed(JOBS[kind], f"{expected}-killed-{seed}")
    killed = renamed(job, job.name, stop_before=step, killed_after=seconds)
    assert fork(processes, folder, killed, world_size)[0] == -signal.SIGKILL
    assert fork(processes, folder, job, world_size) == [0] * world_size
    assert_same_bits(folder, job.name, expected)
    # A step that was done before the last whole checkpoint is not done again.
    assert outcome(folder, job.name)["steps_here"] == NUM_STEPS - (outcome(folder, job.name)["resumed_from"] or 0)


@pytest.mark.parametrize(("kind", "world_size", "seed"), MOMENTS)
def test_killed_at_a_random_step_and_continued(processes, folder, undisturbed, kind, world_size, seed):
    check_kill(processes, folder, undisturbed, kind, world_size, seed)


@pytest.mark.faults
@pytest.mark.parametrize(("kind", "world_size", "seed"), FAULTS)
def test_killed_at_any_step_and_continued(processes, folder, undisturbed, kind, world_size, seed):
    check_kill(processes, folder, undisturbed, kind, world_size, seed)


def test_the_moments_are_spread_over_the_training():
    assert len({moment(seed)[0] for *_, seed in FAULTS}) >= 5
    assert len({moment(seed)[0] for *_, seed in MOMENTS}) == 4


def remove(path):
    path.unlink()


def tear(path):
    """Leave the first half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = [
    (1, remove, "optimizer.pt", "is missing"),
    (1, remove, "scheduler.pt", "is missing"),
    (1, remove, "rng_state.pth", "is missing"),
    (1, remove, "trainer_state.json", "is missing"),
    (1, tear, "optimizer.pt", "bytes instead of"),
    (1, tear, "model.safetensors", "bytes instead of"),
    (1, tear, "complete.json", "it was not finished"),
    (2, remove, "rng_state_1.pth", "is missing"),
]


@pytest.fixture(scope="module")
def interrupted(processes, folder):
    """The name of a training that stopped with checkpoints of steps 4 and 6."""
    made = set()

    def of(world_size):
        name = f"interrupted-{world_size}"
        if name not in made:
            fork(processes, folder, renamed(JOBS["sft"], name, stop_before=NUM_STEPS - 1), world_size)
            found = {path.name for path in (folder / name / "checkpoints").glob("checkpoint-*")}
            assert found == {"checkpoint-4", "checkpoint-6"}
            made.add(name)
        return name

    return of


@pytest.mark.parametrize(("world_size", "damage", "file", "reason"), DAMAGES)
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_used(
    processes, folder, undisturbed, interrupted, world_size, damage, file, reason
):
    expected = undisturbed("sft", world_size)
    name = f"{damage.__name__}-{file}"
    shutil.copytree(folder / interrupted(world_size), folder / name)
    damage(folder / name / "checkpoints" / "checkpoint-6" / file)
    assert fork(processes, folder, renamed(JOBS["sft"], name), world_size) == [0] * world_size
    log = (folder / name / "log").read_text()
    assert "not resuming from checkpoint-6: " in log and reason in log
    assert file in log or file == "complete.json"
    assert "\nresuming from checkpoint-4\n" in log
    assert outcome(folder, name)["resumed_from"] == 4
    assert_same_bits(folder, name, expected)


def test_without_a_whole_checkpoint_it_begins_anew(processes, folder, undisturbed, interrupted):
    expected = undisturbed("sft", 1)
    shutil.copytree(folder / interrupted(1), folder / "none-whole")
    for step in (4, 6):
        tear(folder / "none-whole" / "checkpoints" / f"checkpoint-{step}" / "optimizer.pt")
    assert fork(processes, folder, renamed(JOBS["sft"], "none-whole")) == [0]
    assert outcome(folder, "none-whole")["resumed_from"] is None
    assert_same_bits(folder, "none-whole", expected)


def test_dropout_was_at_work(processes, folder, undisturbed):
    assert fork(processes, folder, Job("without-dropout")) == [0]
    assert losses(folder, "without-dropout") != losses(folder, undisturbed("sft", 1))
