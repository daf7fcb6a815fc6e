import errno
import inspect
import os
import socket
import sys
from types import SimpleNamespace

import httpx
import numpy as np
import pyarrow as pa
import pytest
import requests
import torch
import urllib3
from huggingface_hub import errors as hub_errors
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from deita_train.errors import (
    MachineFault,
    UserError,
    is_network_fault,
    is_passing,
    machine_fault,
    network_fault,
    raise_machine_fault,
)

# The HTTP library of the Hub's client, which has changed between versions.
hub_http = sys.modules[inspect.getmodule(hub_errors.HTTPError).__name__.partition(".")[0]]


def raised(cause, error):
    """`error` as it is raised while `cause` is handled."""
    try:
        try:
            raise cause
        except BaseException:
            raise error  # noqa: B904 - libraries do so
    except BaseException as caught:
        return caught


def hub_refusal(status):
    """What the Hub's client raises for a response."""
    response = hub_http.Response(status, request=hub_http.Request("GET", "https://huggingface.co/x"))
    return HfHubHTTPError(f"{status} for url", response=response)


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
        (errno.ENFILE, "ulimit -n"),
        (errno.EIO, "the system log"),
        (errno.ENAMETOOLONG, "a shorter name"),
        (errno.ESTALE, "mount it again"),
        (errno.ENOLCK, "gives no locks"),
        (errno.ENOMEM, "max_batch_tokens:"),
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
        OSError("Not enough disk space. Needed: 1 TB (download: 0 bytes, generated: 1 TB, post-processed: 0 bytes)"),
        OSError("Cannot write batch: No space left on device"),
        OSError("Error closing file: Disk quota exceeded"),
        RuntimeError("Data processing error: CAS service error : IO Error: No space left on device (os error 28)"),
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
        ValueError("row 7 says: No space left on device"),
        ValueError("row 7 says: CUDA out of memory"),
        OSError("Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file."),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),  # of another process of ours
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer"),
        httpx.InvalidURL("no such scheme"),
        requests.exceptions.InvalidURL("no such scheme"),
        hub_refusal(401),
        hub_refusal(404),
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


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectError("[Errno -2] Name or service not known"), "ConnectError"),
        (httpx.ReadTimeout("The read operation timed out"), "ReadTimeout"),
        (hub_http.ConnectError("[Errno 111] Connection refused"), "ConnectError"),
        (requests.exceptions.ConnectionError("Max retries exceeded with url: /x"), "ConnectionError"),
        (requests.exceptions.ReadTimeout("Read timed out."), "ReadTimeout"),
        (requests.exceptions.SSLError("certificate verify failed"), "SSLError"),
        (urllib3.exceptions.MaxRetryError(None, "/x", "refused"), "MaxRetryError"),
        (urllib3.exceptions.ProtocolError("Connection broken"), "ProtocolError"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "gaierror"),
        (LocalEntryNotFoundError("Cannot find the requested files in the disk cache"), "LocalEntryNotFoundError"),
        (OfflineModeIsEnabled("Cannot reach https://huggingface.co: offline mode is enabled."), "OfflineModeIsEnabled"),
        (raised(httpx.ConnectError("no route"), OSError("We couldn't connect to the Hub")), "ConnectError"),
        (raised(requests.exceptions.ConnectionError("no route"), ConnectionError("Couldn't reach 'x' on the Hub")),
         "ConnectionError"),
    ],
)  # fmt: skip
def test_no_network_is_told_as_that(error, kind):
    message = str(machine_fault(error, "runs/store/x"))
    assert message.startswith(f"a server is not reached ({kind}") and "runs/store/x" not in message
    assert "; check the network, and HF_HUB_OFFLINE. Then run again." in message


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_does_not_serve_is_no_mistake(status):
    message = str(machine_fault(hub_refusal(status), "x"))
    assert message == f"the Hub does not serve now (HfHubHTTPError: {status} for url); wait a while. Then run again."


def of_memory():
    """Errors of libraries that really ask for more than there is."""
    for ask in (lambda: torch.empty(2**50), lambda: np.empty(2**50), lambda: pa.allocate_buffer(2**50)):
        try:
            ask()
        except Exception as error:
            yield error


def test_too_little_memory_is_told_as_that():
    errors = [*of_memory(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), MemoryError()]
    assert [type(error).__name__ for error in errors] == [
        "RuntimeError", "MemoryError", "ArrowMemoryError", "OutOfMemoryError", "MemoryError",
    ]  # fmt: skip
    for error in errors:
        message = str(machine_fault(error, "runs/store/x"))
        assert message.startswith(f"the memory does not suffice ({type(error).__name__}")
        assert "max_batch_tokens:, trainer.per_device_train_batch_size:" in message
        assert message.endswith("or use a machine with more. Then run again.")


def test_a_fault_is_raised_before_data_is_called_damaged():
    raise_machine_fault(ValueError("bad row"), "x")
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(MachineFault, match=r"^x: no space left on device") as caught:
        raise_machine_fault(full, "x")
    assert caught.value.__cause__ is full


def with_cause(error, cause):
    """`error` as it is raised from `cause`."""
    error.__cause__ = cause
    return error


PASSES = {
    "the Hub is overloaded": hub_refusal(503),
    "too many requests": hub_refusal(429),
    "no connection": requests.ConnectionError("refused"),
    "no answer in time": httpx.ReadTimeout("slow"),
    "no name server": socket.gaierror(-3, "Temporary failure in name resolution"),
    "a disk of the network": OSError(errno.ESTALE, "Stale file handle"),
    "a disk's hiccup": OSError(errno.EIO, "Input/output error"),
    "a Rust library's disk": RuntimeError("I/O error (os error 5)"),
    "not in the cache, and the Hub not reached": with_cause(
        LocalEntryNotFoundError("x"), httpx.ConnectError("refused")
    ),
    "told as the user's": with_cause(UserError("it cannot be downloaded"), httpx.ConnectError("refused")),
    "told as the machine's": with_cause(MachineFault("a server is not reached"), hub_refusal(502)),
}
STAYS = {
    "a bug": ZeroDivisionError("division by zero"),
    "a mistake": UserError("no such file"),
    "a mistake that was found while something else failed": raised(httpx.ConnectError("x"), UserError("no such field")),
    "no such repository": hub_refusal(404),
    "no access": with_cause(UserError("it cannot be downloaded"), hub_refusal(401)),
    "offline by the user's own setting": with_cause(LocalEntryNotFoundError("x"), OfflineModeIsEnabled("x")),
    "not in the cache": LocalEntryNotFoundError("x"),
    "a full disk": OSError(errno.ENOSPC, "No space left on device"),
    "no permission": PermissionError(errno.EACCES, "Permission denied"),
    "no memory": torch.OutOfMemoryError("CUDA out of memory"),
    "a process of ours that ended": BrokenPipeError(errno.EPIPE, "Broken pipe"),
    "no such file": FileNotFoundError(errno.ENOENT, "No such file or directory"),
}


@pytest.mark.parametrize("error", PASSES.values(), ids=PASSES)
def test_what_may_pass_by_itself(error):
    assert is_passing(error)


@pytest.mark.parametrize("error", STAYS.values(), ids=STAYS)
def test_what_does_not_pass_by_itself(error):
    assert not is_passing(error)
