import json
from types import SimpleNamespace

import pytest

from deita_train.training import callbacks
from deita_train.training.checkpoints import (
    RECORD,
    Writers,
    find_damage,
    newest_whole,
    remove_older,
    step_of,
    write_record,
    writers_of,
)


def save(folder, step, optimizer=b"moments", world_size=2):
    """A checkpoint as two ranks leave it, with a folder inside."""
    checkpoint = folder / f"checkpoint-{step}"
    (checkpoint / "global_step").mkdir(parents=True, exist_ok=True)
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    (checkpoint / "optimizer.pt").write_bytes(optimizer)
    for name in ("scheduler.pt", "trainer_state.json", "rng_state_0.pth"):
        (checkpoint / name).write_text("{}")
    (checkpoint / "global_step" / "rank_1.pt").write_bytes(b"shard")
    write_record(checkpoint, Writers(world_size, "MULTI_GPU"))
    return checkpoint


@pytest.fixture
def folder(tmp_path):
    for step in (5, 10, 100):
        save(tmp_path, step)
    return tmp_path


def test_the_record_holds_every_file_and_the_launch(folder):
    assert json.loads((folder / "checkpoint-5" / RECORD).read_text()) == {
        "files": {"model.safetensors": 7, "optimizer.pt": 7, "global_step/rank_1.pt": 5}
        | dict.fromkeys(("scheduler.pt", "trainer_state.json", "rng_state_0.pth"), 2),
        "world_size": 2,
        "distributed_type": "MULTI_GPU",
        "zero_stage": None,
    }
    assert writers_of(folder / "checkpoint-5") == Writers(2, "MULTI_GPU", None)
    assert sorted(path.name for path in (folder / "checkpoint-5").iterdir()) == [
        RECORD, "global_step", "model.safetensors", "optimizer.pt", "rng_state_0.pth", "scheduler.pt",
        "trainer_state.json",
    ]  # fmt: skip


def test_the_newest_is_the_one_of_the_highest_step(folder):
    assert newest_whole(folder) == (folder / "checkpoint-100", [])
    assert step_of(folder / "checkpoint-100") == 100


def test_no_checkpoint(tmp_path):
    assert newest_whole(tmp_path) == (None, [])
    assert newest_whole(tmp_path / "absent") == (None, [])


def test_a_torn_file(folder):
    (folder / "checkpoint-100" / "optimizer.pt").write_bytes(b"mom")
    assert newest_whole(folder) == (
        folder / "checkpoint-10",
        [(folder / "checkpoint-100", "optimizer.pt has 3 bytes instead of 7")],
    )


def test_a_missing_file_of_another_rank(folder):
    (folder / "checkpoint-100" / "global_step" / "rank_1.pt").unlink()
    assert newest_whole(folder) == (
        folder / "checkpoint-10",
        [(folder / "checkpoint-100", "global_step/rank_1.pt is missing")],
    )


@pytest.mark.parametrize("text", [None, "", '{"files": {"model.saf', "[]", '{"world_size": 2}'])
def test_a_missing_or_torn_record(folder, text):
    (folder / "checkpoint-100" / RECORD).unlink()
    if text is not None:
        (folder / "checkpoint-100" / RECORD).write_text(text)
    assert newest_whole(folder) == (folder / "checkpoint-10", [(folder / "checkpoint-100", "it was not finished")])


def test_every_refused_checkpoint_is_named_newest_first(folder):
    (folder / "checkpoint-100" / RECORD).unlink()
    (folder / "checkpoint-10" / "model.safetensors").unlink()
    (folder / "checkpoint-5" / "optimizer.pt").write_bytes(b"")
    assert newest_whole(folder) == (
        None,
        [
            (folder / "checkpoint-100", "it was not finished"),
            (folder / "checkpoint-10", "model.safetensors is missing"),
            (folder / "checkpoint-5", "optimizer.pt has 0 bytes instead of 7"),
        ],
    )


def test_a_file_beside_the_recorded_ones_does_no_harm(folder):
    (folder / "checkpoint-100" / "notes.txt").write_text("x")
    assert find_damage(folder / "checkpoint-100") is None


def test_a_damaged_checkpoint_that_is_saved_again_is_whole(folder):
    (folder / "checkpoint-100" / "optimizer.pt").write_bytes(b"")
    again = save(folder, 100, optimizer=b"longer moments", world_size=1)
    assert find_damage(again) is None
    assert newest_whole(folder) == (again, [])
    assert RECORD not in json.loads((again / RECORD).read_text())["files"]


def test_what_a_kill_between_writing_and_renaming_the_record_leaves(folder):
    checkpoint = folder / "checkpoint-100"
    (checkpoint / RECORD).rename(checkpoint / f".{RECORD}.tmp")
    assert find_damage(checkpoint) == "it was not finished"
    assert find_damage(save(folder, 100)) is None


def test_the_stage_of_deepspeed_is_in_the_record_and_in_words(folder):
    writers = Writers(4, "DEEPSPEED", 3)
    write_record(folder / "checkpoint-5", writers)
    assert writers_of(folder / "checkpoint-5") == writers
    assert str(writers) == "4 ranks (DEEPSPEED, ZeRO-3)"
    assert str(Writers(1, "NO")) == "1 rank (NO)"


@pytest.mark.parametrize("part", ["optimizer.pt", "scheduler.pt", "trainer_state.json", "rng_state_0.pth"])
def test_a_checkpoint_without_the_trainers_state_is_never_recorded(folder, part):
    checkpoint = folder / "checkpoint-5"
    (checkpoint / part).unlink()
    (checkpoint / RECORD).unlink()
    with pytest.raises(AssertionError, match="was saved without"):
        write_record(checkpoint, Writers(2, "MULTI_GPU"))


def test_the_newest_two_whole_ones_stay(folder):
    save(folder, 105)
    remove_older(folder)
    assert names(folder) == {"checkpoint-100", "checkpoint-105"}


def test_a_damaged_one_takes_no_place_of_a_whole_one(folder):
    (folder / "checkpoint-10" / "optimizer.pt").write_bytes(b"mom")
    remove_older(folder)
    assert names(folder) == {"checkpoint-5", "checkpoint-100"}


def test_the_first_one_stays(tmp_path):
    save(tmp_path, 5)
    remove_older(tmp_path)
    assert names(tmp_path) == {"checkpoint-5"}


def test_old_ones_stay_until_the_new_one_is_recorded(folder, monkeypatch):
    at_the_record = set()

    def record(checkpoint, arguments, tokenizer):
        at_the_record.update(names(folder))
        save(folder, step_of(checkpoint))

    monkeypatch.setattr(callbacks, "finish_checkpoint", record)
    state = SimpleNamespace(global_step=105, is_world_process_zero=True)
    callbacks.RecordCheckpoints().on_save(SimpleNamespace(output_dir=folder), state, None, processing_class=None)
    assert at_the_record == {"checkpoint-5", "checkpoint-10", "checkpoint-100"}
    assert names(folder) == {"checkpoint-100", "checkpoint-105"}


def names(folder):
    return {path.name for path in folder.iterdir()}
