"""What the run finds out when a child could not leave a word."""

from bad_input.folder import no_file_above

from deita_train.run.executor import _write_fault


def test_a_folder_that_can_be_written_in_has_no_fault_and_stays_as_it_is(tmp_path):
    assert _write_fault(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_found_and_the_folder_named(tmp_path):
    with no_file_above(1000):
        fault = _write_fault(tmp_path)
    assert str(fault).startswith(f"{tmp_path}: file too large; ")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_gone_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    assert str(_write_fault(tmp_path / "file")).startswith(f"{tmp_path / 'file'}: not a directory; ")
