"""Which launch can go on from which checkpoint. The trainings themselves are in tests/distributed."""

import pytest
from test_checkpoints import save

from deita_train.errors import UserError
from deita_train.training import resume
from deita_train.training.arguments import TrainingSettings
from deita_train.training.checkpoints import Writers, write_record

ONE, CPUS, GPUS = Writers(1, "NO"), Writers(2, "MULTI_CPU"), Writers(8, "MULTI_GPU")
FSDP, MORE_FSDP = Writers(2, "FSDP"), Writers(8, "FSDP")
ZERO2, ZERO3, MORE_ZERO3 = Writers(2, "DEEPSPEED", 2), Writers(2, "DEEPSPEED", 3), Writers(8, "DEEPSPEED", 3)
ONE_ZERO3, ZERO1 = Writers(1, "DEEPSPEED", 3), Writers(2, "DEEPSPEED", 1)


def checkpoint_to_resume(folder, monkeypatch, ranks, **trainer):
    """As a launch of these ranks asks."""
    monkeypatch.setattr(resume, "zero_stage", lambda: ranks.zero_stage)
    return resume.checkpoint_to_resume(
        folder, TrainingSettings(trainer, 8, 7, ranks.world_size, ranks.distributed_type, True)
    )


def written_by(folder, writers):
    checkpoint = save(folder, 10)
    write_record(checkpoint, writers)
    return checkpoint


@pytest.mark.parametrize("writers", [ONE, CPUS, GPUS, FSDP, ZERO1, ZERO2, ZERO3], ids=str)
def test_the_same_launch_goes_on(tmp_path, monkeypatch, capsys, writers):
    checkpoint = written_by(tmp_path, writers)
    assert checkpoint_to_resume(tmp_path, monkeypatch, writers) == checkpoint
    assert capsys.readouterr().out == "resuming from checkpoint-10\n"


ALLOWED = [(ONE, CPUS), (CPUS, ONE), (ONE, GPUS), (GPUS, ONE), (CPUS, GPUS), (FSDP, MORE_FSDP), (MORE_FSDP, FSDP)]


@pytest.mark.parametrize(("writers", "ranks"), ALLOWED, ids=str)
def test_whole_files_serve_any_number_of_ranks_and_the_log_says_so(tmp_path, monkeypatch, capsys, writers, ranks):
    checkpoint = written_by(tmp_path, writers)
    assert checkpoint_to_resume(tmp_path, monkeypatch, ranks) == checkpoint
    assert f"resuming from checkpoint-10, written by {writers} and continued by {ranks}." in capsys.readouterr().out


REFUSED = [
    (ZERO3, MORE_ZERO3), (MORE_ZERO3, ZERO3), (ZERO3, ONE_ZERO3), (ZERO2, ZERO3), (ZERO3, ZERO2), (ZERO3, CPUS),
    (ZERO2, ONE), (CPUS, ZERO2), (ONE, ONE_ZERO3), (FSDP, CPUS), (FSDP, ONE), (GPUS, MORE_FSDP), (FSDP, ZERO3),
    (MORE_ZERO3, MORE_FSDP), (ZERO1, ZERO2), (ZERO2, ZERO1), (ZERO1, CPUS), (ZERO1, ONE),
]  # fmt: skip


@pytest.mark.parametrize(("writers", "ranks"), REFUSED, ids=str)
def test_other_files_are_refused_with_the_ways_on(tmp_path, monkeypatch, writers, ranks):
    checkpoint = written_by(tmp_path, writers)
    with pytest.raises(UserError) as raised:
        checkpoint_to_resume(tmp_path, monkeypatch, ranks)
    start = f"{checkpoint} was written by {writers} and cannot be continued by {ranks}."
    assert str(raised.value).startswith(start)
    for way in ("launch it the way it was written", "--fresh", "copy that folder"):
        assert way in str(raised.value)
    assert checkpoint.exists()


def test_nothing_to_resume_from(tmp_path, monkeypatch, capsys):
    assert checkpoint_to_resume(tmp_path, monkeypatch, ONE) is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_damaged_one_is_named_and_removed_by_the_first_rank(tmp_path, monkeypatch, capsys, rank):
    monkeypatch.setenv("RANK", rank)
    whole = save(tmp_path, 5)
    damaged = save(tmp_path, 10)
    (damaged / "scheduler.pt").unlink()
    assert checkpoint_to_resume(tmp_path, monkeypatch, Writers(2, "MULTI_GPU")) == whole
    said = "not resuming from checkpoint-10: scheduler.pt is missing\nresuming from checkpoint-5\n"
    assert capsys.readouterr().out == (said if rank == "0" else "")
    assert damaged.exists() == (rank == "1")
