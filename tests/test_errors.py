import errno
import os

import pytest

from deita_train.errors import UserError, machine_fault


def raised(cause, error):
    """`error` as it is raised while `cause` is handled."""
    try:
        try:
            raise cause
        except BaseException:
            raise error  # noqa: B904 - libraries do so
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EROFS, "--runs"),
        (errno.EACCES, "permissions"),
        (errno.EPERM, "permissions"),
        (errno.ENOTDIR, "a file is in the place of a folder"),
        (errno.EMFILE, "ulimit -n"),
    ],
)
def test_the_message_names_the_place_the_fault_and_what_to_do(number, advice):
    message = str(machine_fault(OSError(number, os.strerror(number), "runs/store/x"), "elsewhere"))
    assert message.startswith(f"runs/store/x: {os.strerror(number).lower()}; ")
    assert advice in message and "elsewhere" not in message and message.endswith("Then run again.")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28] No space left on device"),
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
        raised(OSError(errno.ENOSPC, "No space left on device"), ValueError("generation failed")),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
    ],
)
def test_what_libraries_raise_on_a_full_disk_is_placed_in_the_folder(error):
    message = str(machine_fault(error, "runs/store/.work/sft-0"))
    assert message.startswith("runs/store/.work/sft-0: ") and "free some space" in message


@pytest.mark.parametrize(
    "error",
    [
        AssertionError("ours"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "x"),
        OSError("Error no file named model.safetensors"),
        RuntimeError("expected (os error) nothing"),
        UserError("told already"),
        raised(OSError(errno.ENOSPC, "No space left on device"), UserError("told already")),
        raised(OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()),
    ],
)
def test_everything_else_is_no_fault_of_the_machine(error):
    assert machine_fault(error, "runs") is None


def test_a_file_in_the_place_of_a_folder_is_told_from_two_processes_that_make_one_folder(tmp_path):
    (tmp_path / "file").touch()
    for name, is_fault in {"file": True, "": False}.items():
        error = FileExistsError(errno.EEXIST, "File exists", str(tmp_path / name))
        assert (machine_fault(error, tmp_path) is not None) == is_fault
