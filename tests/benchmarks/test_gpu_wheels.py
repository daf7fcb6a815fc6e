"""The check of the folder of wheels; nothing is downloaded."""

import sys
import zipfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import gpu_wheels


def wheel(folder, name, *needs):
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        requires = "".join(f"Requires-Dist: {need}\n" for need in needs)
        archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\n{requires}\n")
    return path


def test_versions_are_those_of_the_tests():
    pinned = gpu_wheels.pinned(gpu_wheels.WANTED, gpu_wheels.ROOT / "constraints.txt")
    assert len(pinned) == len(gpu_wheels.WANTED) and all("==" in one for one in pinned)
    assert next(one for one in pinned if one.startswith("trl")).startswith("trl==1.")


def test_a_need_that_nobody_has_is_named(tmp_path):
    wheels = [wheel(tmp_path, "trl", "torch>=2", "absent_thing"), wheel(tmp_path, "datasets", "dill")]
    found = gpu_wheels.missing(wheels)
    assert "trl needs absent-thing, which is not there" in found
    assert "datasets needs dill, which is not there" in found
    assert "deita-train needs peft, which is not there" in found
    assert not any("torch" in one or "deepspeed" in one for one in found)


def test_needs_of_other_machines_and_extras_do_not_count(tmp_path):
    path = wheel(
        tmp_path, "a", "colorama; platform_system == 'Windows'", "tomli; python_version < '3.11'", "x; extra == 'dev'",
        "Dill_Like>=1",
    )  # fmt: skip
    assert gpu_wheels.needs(path) == ["dill-like"]


def test_all_that_the_project_needs_is_present_or_wanted():
    needed = set(gpu_wheels.project_needs(gpu_wheels.ROOT / "pyproject.toml"))
    wanted = {gpu_wheels.canonicalize_name(name) for name in gpu_wheels.WANTED}
    assert needed - wanted <= gpu_wheels.PRESENT | gpu_wheels.UNUSED
