"""`deita-train --version`: the version, and those of what it runs on, read without importing anything."""

import platform
from importlib.metadata import PackageNotFoundError, version

import deita_train

_SHOWN = ("torch", "transformers", "trl", "datasets")


def version_line() -> str:
    """One line: the package's version, Python's, and those of the libraries whose versions explain most reports."""
    libraries = [f"{package} {_installed(package)}" for package in _SHOWN]
    return f"deita-train {deita_train.__version__} ({', '.join([f'Python {platform.python_version()}', *libraries])})"


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
