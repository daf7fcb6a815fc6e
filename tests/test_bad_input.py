"""What users get wrong: each mistake is one message that says what, where and what to do, and leaves nothing behind.

The cases lie in `bad_input/`, by what the mistake is about.
"""

import os
import re
from unittest.mock import patch

import datasets
import huggingface_hub
import pytest
from bad_input.data import DATA
from bad_input.folder import FILES, RECIPE, UsersFolder, make_models
from bad_input.models import MODELS
from bad_input.recipes import RECIPES
from bad_input.runs import RUNS

from deita_train.plan import launch

CASES = [*RECIPES, *DATA, *MODELS, *RUNS]
_LONGEST = 1200
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "DEITA_RUNS": "runs"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    make_models(folder)
    return folder


@pytest.fixture
def folder(tmp_path, models, monkeypatch, capfd):
    """A user's folder with everything right; no GPU and no network, and the environment as before at the end."""
    monkeypatch.chdir(tmp_path)
    for name in ("model", "merging"):
        (tmp_path / name).symlink_to(models / name)
    # Both read the environment once, when they are imported, which another test may have done.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    made = UsersFolder(tmp_path, capfd)
    made.write(FILES)
    with patch.dict(os.environ, _ENVIRONMENT):
        forget_launches()
        yield made
    forget_launches()


def forget_launches():
    launch.count_gpus.cache_clear()
    launch.resolve_launch.cache_clear()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mistake_is_one_clear_message_and_leaves_nothing_behind(folder, case):
    for label in case.made:
        assert folder.command(f"stage {label}").code == 0
    recipe = RECIPE
    for old, new in case.recipe.items():
        assert recipe.count(old) == 1, f"{old!r} is not one place of the recipe"
        recipe = recipe.replace(old, new)
    folder.write({"recipe.yaml": recipe, **case.files})
    with case.during(folder):
        answer = folder.command(case.command) if case.in_process else folder.process(case.command)
    assert answer.code == 2, answer.err
    check_message(answer, case.says, alone=not case.command.startswith("stage"))
    if (folder.path / "runs").is_dir():
        assert set(folder.published()) == {*case.made, *case.leaves}
    if case.right is not None:
        folder.write({name: None for name in case.files if name != "runs"} | FILES)
        again = folder.command(case.right or case.command)
        assert again.code == 0, again.err


def check_message(answer, says, *, alone):
    """One message, which holds all of `says`, and no traceback; `alone` on the terminal."""
    assert "Traceback" not in answer.out + answer.err
    before, *messages = re.split(r"^error: ", answer.err, flags=re.MULTILINE)
    assert len(messages) == 1, answer.err
    message = messages[0]
    assert before == "" or not alone
    assert 20 < len(message) <= _LONGEST and message.endswith("\n")
    without_line = re.sub(r"recipe\.yaml:\d+: ", "recipe.yaml: ", message)
    for part in says:
        assert part in message or part in without_line, f"{part!r} is not in: {message}"


def test_there_are_enough_cases():
    assert len(CASES) >= 36 and len({case.name for case in CASES}) == len(CASES)
