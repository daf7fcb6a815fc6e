"""Fill benchmarks/wheels with the packages that a bare GPU machine lacks, for benchmarks/gpu.sh to install there.

    python3 benchmarks/gpu_wheels.py                        needs a network and pip
    python3 benchmarks/gpu_wheels.py --check python3.12     also installs the folder with that Python, without a network

Such a machine is taken to have Linux on x86-64, Python 3.12, and what PRESENT names, torch 2.11 and transformers 5.17
among them. What the folder's packages need must be in the folder or in PRESENT; where it is not, the script says so and
ends with 1. The folder is ignored by git and has to travel with the checkout; gpu.sh installs it like this:

    python3 -m pip install --no-index --no-deps --target FOLDER benchmarks/wheels/*.whl; export PYTHONPATH=FOLDER
"""

import argparse
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks" / "wheels"
MAX_MIB = 60
# With the versions of constraints.txt, where the tests run with them.
WANTED = (
    "trl", "peft", "datasets", "dill", "multiprocess", "pydantic", "pydantic_core", "annotated-types",
    "typing-inspection", "ruamel.yaml", "httpx", "zstandard", "datasketch",
)  # fmt: skip
# What the project's tests do not install: four-bit bases, and the kernels that trl can put in.
EXTRA = ("bitsandbytes==0.50.2", "liger-kernel==0.8.5")
PRESENT = frozenset((
    "accelerate", "annotated-doc", "anyio", "certifi", "click", "filelock", "fsspec", "h11", "hf-xet", "httpcore",
    "huggingface-hub", "hypothesis", "idna", "jinja2", "matplotlib", "numpy", "packaging", "pandas", "psutil",
    "pyarrow", "pytest", "pytest-timeout", "pytest-xdist", "pyyaml", "regex", "requests", "rich", "safetensors",
    "scipy", "tokenizers", "torch", "tqdm", "transformers", "triton", "typer", "typing-extensions", "xxhash",
))  # fmt: skip
# Of the project's own dependencies, those that none of the parts needs.
UNUSED = frozenset({"deepspeed", "scikit-learn", "wandb"})
PLATFORMS = [f"manylinux_2_{glibc}_x86_64" for glibc in (28, 27, 24, 17)] + ["manylinux2014_x86_64"]
_MACHINE = {
    "python_version": "3.12", "python_full_version": "3.12.3", "sys_platform": "linux", "platform_system": "Linux",
    "platform_machine": "x86_64", "implementation_name": "cpython", "platform_python_implementation": "CPython",
    "os_name": "posix", "extra": "",
}  # fmt: skip


def main() -> int:
    """Download, check, and say what the folder holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", metavar="PYTHON", help="install the folder with this Python")
    options = parser.parse_args()
    download([*pinned(WANTED, ROOT / "constraints.txt"), *EXTRA], FOLDER)
    wheels = sorted(FOLDER.glob("*.whl"))
    size = sum(wheel.stat().st_size for wheel in wheels) / 2**20
    print(f"{len(wheels)} wheels, {size:.1f} MiB, in {FOLDER}")
    problems = missing(wheels)
    if size > MAX_MIB:
        problems.append(f"{size:.1f} MiB are more than {MAX_MIB}")
    print("\n".join(problems) or "what they need is there")
    if options.check:
        install(options.check, wheels)
    return 1 if problems else 0


def pinned(names: Iterable[str], constraints: Path) -> list[str]:
    """`name==version` of each name, by the file of constraints."""
    lines = [line.strip() for line in constraints.read_text().splitlines() if "==" in line]
    known = {canonicalize_name(line.partition("==")[0]): line for line in lines}
    return [known[canonicalize_name(name)] for name in names]


def download(requirements: Iterable[str], folder: Path) -> None:
    """Fetch exactly these wheels for the machine; what lay in the folder before goes."""
    folder.mkdir(exist_ok=True)
    for wheel in folder.glob("*.whl"):
        wheel.unlink()
    target = ["--python-version", "3.12", "--implementation", "cp", "--only-binary=:all:", "--no-deps"]
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *target, *platforms, "--dest", str(folder)]
    subprocess.run([*command, *requirements], check=True)


def missing(wheels: Iterable[Path]) -> list[str]:
    """What the wheels or the project need and nobody has, one sentence each."""
    found = {canonicalize_name(wheel.name.partition("-")[0]): needs(wheel) for wheel in wheels}
    found["deita-train"] = project_needs(ROOT / "pyproject.toml")
    there = PRESENT | found.keys() | UNUSED
    return [f"{name} needs {need}, which is not there" for name in found for need in found[name] if need not in there]


def needs(wheel: Path) -> list[str]:
    """The names of the packages that a wheel needs on the machine."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        metadata = Parser().parsestr(archive.read(name).decode("utf-8"))
    return _names(metadata.get_all("Requires-Dist") or [])


def project_needs(pyproject: Path) -> list[str]:
    """The same of this project."""
    import tomllib

    return _names(tomllib.loads(pyproject.read_text())["project"]["dependencies"])


def _names(requirements: Iterable[str]) -> list[str]:
    parsed = [Requirement(text) for text in requirements]
    return [canonicalize_name(one.name) for one in parsed if one.marker is None or one.marker.evaluate(_MACHINE)]


def install(python: str, wheels: Iterable[Path]) -> None:
    """Install the wheels as gpu.sh does, and see that the Python finds the modules."""
    modules = ("trl", "peft", "datasets", "pydantic", "ruamel.yaml", "httpx", "bitsandbytes", "liger_kernel")
    with tempfile.TemporaryDirectory() as site:
        flags = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--target", site]
        subprocess.run([python, "-m", "pip", "install", *flags, *map(str, wheels)], check=True)
        code = (
            "import importlib.util, sys; sys.path.insert(0, sys.argv[1])\n"
            "assert all(importlib.util.find_spec(name) for name in sys.argv[2:])\n"
            "import pydantic, ruamel.yaml, dill, multiprocess"
        )
        subprocess.run([python, "-c", code, site, *modules], check=True)
    print(f"installed by {python}; `PYTHON={python} benchmarks/gpu.sh --dry-run` tries them, where it has torch")


if __name__ == "__main__":
    sys.exit(main())
