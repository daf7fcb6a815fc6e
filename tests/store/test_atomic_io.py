import json
import threading

import pytest

from deita_train.store.atomic_io import allow_reading, write_json_atomically


def test_writers_at_once_leave_one_whole_file(tmp_path):
    """As two cells of a sweep do on two machines, whose process ids may be equal: here they are."""
    path, values = tmp_path / "stages.json", [["a" * 50_000], ["b" * 60_000]]
    errors, seen = [], []

    def write(value):
        try:
            for _ in range(20):
                write_json_atomically(path, value)
        except OSError as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=(value,)) for value in values]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            seen.append(json.loads(path.read_text()))
    assert errors == [] and seen
    assert all(value in values for value in seen)
    assert [entry.name for entry in tmp_path.iterdir()] == ["stages.json"]


def test_what_json_does_not_have_leaves_the_old_file(tmp_path):
    write_json_atomically(tmp_path / "x.json", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json_atomically(tmp_path / "x.json", float("inf"))
    assert (tmp_path / "x.json").read_text() == "1\n"


def test_files_may_be_read_like_another_one(tmp_path):
    like, folder = tmp_path / "metrics.json", tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for path, mode in ((like, 0o640), (folder / "weights", 0o600), (folder / "sub" / "tool", 0o700)):
        path.touch()
        path.chmod(mode)
    allow_reading(folder, like)
    assert [oct(path.stat().st_mode & 0o777) for path in (folder / "weights", folder / "sub" / "tool")] == [
        "0o640", "0o740",
    ]  # fmt: skip
