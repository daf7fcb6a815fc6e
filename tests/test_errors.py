import errno
import os
import socket
from types import SimpleNamespace

import pytest

from deita_train.errors import UserError, is_network_fault, machine_fault, network_fault


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


def test_what_gives_no_number_is_told_by_its_class_or_its_text():
    assert "permission denied" in str(machine_fault(PermissionError("Access Denied"), "s3://bucket/x"))
    room = OSError("Not enough disk space. Needed: 1 GB (download: 1 GB, generated: 0 GB")
    assert str(machine_fault(room, "the cache", space="set HF_HOME")) == (
        "the cache: no space left on device; set HF_HOME. Then run again."
    )
    assert "--runs" not in str(machine_fault(OSError(errno.ENOSPC, "No space left"), "x", space="set HF_HOME"))


def error_named(name, *bases, **attributes):
    """An error as a client library defines it, known by its name alone."""
    error = type(name, bases or (Exception,), {})("said so")
    for attribute, value in attributes.items():
        setattr(error, attribute, value)
    return error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("refused"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        TimeoutError("read timed out"),
        OSError(errno.ETIMEDOUT, "Connection timed out"),
        socket.gaierror(-2, "Name or service not known"),
        error_named("ConnectError", type("TransportError", (Exception,), {})),
        error_named("ClientConnectorError", type("ClientConnectionError", (Exception,), {})),
        error_named("EndpointConnectionError", type("HTTPClientError", (Exception,), {})),
        error_named("HTTPStatusError", response=SimpleNamespace(status_code=503)),
        error_named("HTTPStatusError", response=SimpleNamespace(status_code=429)),
        raised(TimeoutError("read timed out"), ValueError("generation failed")),
    ],
)
def test_a_network_that_does_not_answer(error):
    assert is_network_fault(error)
    message = str(network_fault(error, "s3://bucket/x"))
    assert message.startswith("s3://bucket/x: the network or the server does not answer (")
    assert type(error).__name__ in message and str(error) in message and message.endswith("Check both, then run again.")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bad split"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "x"),
        error_named("HTTPStatusError", response=SimpleNamespace(status_code=404)),
        raised(TimeoutError("read timed out"), UserError("told already")),
    ],
)
def test_what_the_network_has_no_part_in(error):
    assert not is_network_fault(error) and network_fault(error, "x") is None
