"""LoRA scorers and an embedding over one base: in one process, each in its own, after a failure and after a kill."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pass_stages import make_model
from peft import LoraConfig, get_peft_model
from smoke_run import digests, run_environment, run_smoke, selected_ids, stages
from test_kill import kill_during
from transformers import AutoModelForCausalLM

from deita_train.errors import UserError
from deita_train.plan.plan import make_plan
from deita_train.run.child.worker import run_stages
from deita_train.store.locks import PARENT_VARIABLE

PASSES = ("score.complexity", "score.quality", "embed")
TRAINED = [
    *(part for name in ("complexity", "quality") for part in ("--set", f"scorers.{name}.train.peft.r=4")),
    *(part for name in ("complexity", "quality") for part in ("--set", f"scorers.{name}.min_digit_mass=0.0")),
    *("--until", "select"),
]


def make_adapter(folder, base, tokenizer, seed):
    """An adapter that does something, with its base's tokenizer."""
    torch.manual_seed(seed)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear")
    )
    for weight in model.parameters():
        weight.data += 0.05 * torch.randn_like(weight) * weight.requires_grad
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A recipe with two adapters made elsewhere and their base, so that nothing is trained."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = make_model(folder / "base")
    recipe = {
        "name": "trunk",
        "pool": {"builtin": "quickstart", "rows": 30},
        "scorers": {
            dimension: {
                "model": str(make_adapter(folder / dimension, folder / "base", tokenizer, seed)),
                "launch": "cpu",
                "dtype": "float32",
                "min_digit_mass": 0.0,
            }
            for seed, dimension in enumerate(("complexity", "quality"))
        },
        "embedding": {"model": str(folder / "base"), "launch": "cpu", "dtype": "float32"},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return folder


@pytest.fixture(scope="module")
def here():
    """Stages in this process, with the threads that a run started from here has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(PARENT_VARIABLE, raising=False)
        patch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
        yield


@pytest.fixture(scope="module")
def expected(models, tmp_path_factory, here):
    """The contents of the pool and of the passes, each stage on its own with its model loaded for it."""
    recipe, runs = models / "recipe.yaml", tmp_path_factory.mktemp("alone")
    artefacts = ids(recipe, runs)
    for artefact in artefacts:
        run_stages(recipe, (), runs, [artefact])
    assert len(set(contents(runs, artefacts))) == 4
    return contents(runs, artefacts)


@pytest.fixture
def loads(monkeypatch):
    """The folders of the whole causal language models that are read."""
    read = []
    plain = AutoModelForCausalLM.from_pretrained

    def from_pretrained(folder, **options):
        read.append(Path(folder).name)
        return plain(folder, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    return read


def ids(recipe, runs, *sets):
    """The ids of the pool and of the passes."""
    nodes = make_plan(recipe, sets, runs).cells[0].nodes
    return [nodes[label].id for label in ("pool", *PASSES)]


def contents(runs, artefacts):
    return [json.loads((runs / "store" / name / "manifest.json").read_text())["content_digest"] for name in artefacts]


def test_in_one_process_the_base_is_loaded_once_and_the_tables_are_bitwise_the_same(
    models, tmp_path, expected, loads, capsys
):
    recipe = models / "recipe.yaml"
    pool, *passes = artefacts = ids(recipe, tmp_path / "together")
    run_stages(recipe, (), tmp_path / "together", [pool])
    run_stages(recipe, (), tmp_path / "together", passes)
    assert contents(tmp_path / "together", artefacts) == expected and loads == ["base"]
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("loaded", "the base"))]
    assert len(said) == 3 and said[0].startswith(f"loaded the base {models / 'base'} in ")
    assert said[1:] == [f"the base {models / 'base'} is in memory already"] * 2


def test_a_second_stage_that_fails_leaves_the_first(models, tmp_path, expected):
    recipe = models / "recipe.yaml"
    broken, sets = tmp_path / "broken", ("scorers.quality.min_digit_mass=1.0",)
    pool, *passes = artefacts = ids(recipe, broken)
    run_stages(recipe, (), broken, [pool])
    with pytest.raises(UserError, match=r"^score\.quality: "):
        run_stages(recipe, sets, broken, passes)
    store = broken / "store"
    assert [(store / name / "manifest.json").exists() for name in passes] == [True, False, False]
    assert not (store / ".work" / passes[2]).exists()
    run_stages(recipe, (), broken, passes)  # passes over what is published
    assert contents(broken, artefacts) == expected


def test_what_needs_a_process_of_its_own_is_refused_beside_others(models, tmp_path, here):
    pool, *passes = ids(models / "recipe.yaml", tmp_path)
    with pytest.raises(UserError) as caught:
        run_stages(models / "recipe.yaml", (), tmp_path, [pool, passes[0]])
    assert str(caught.value) == (
        "--stage is given 2 times, and pool cannot share a process: only scoring and embedding in launches of one "
        "process can. Give --stage once, and start a command for each stage."
    )
    assert not (tmp_path / "store" / ".work").exists()


def test_a_run_gives_the_same_bytes(models, tmp_path, expected):
    command = [sys.executable, "-m", "deita_train.cli", "run", str(models / "recipe.yaml"), "--runs", str(tmp_path)]
    environment = run_environment() | {"OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"]}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert list(digests(tmp_path, "trunk").values()) == expected
    of = {label: tmp_path / "store" / name / "logs" / "rank0.log" for label, name in stages(tmp_path, "trunk").items()}
    logs = {label: of[label].read_text() for label in PASSES}
    # Each stage has its own lines in its own log.
    assert [re.findall(r"^(loaded the base|the base) .*/base\b", log, re.M) for log in logs.values()] == [
        ["loaded the base"],
        ["the base"],
        ["the base"],
    ]
    assert all(log.count("rank 0: ") == 1 for log in logs.values())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A smoke run whose scorers are adapters that it trained."""
    runs = tmp_path_factory.mktemp("trained")
    answer = run_smoke(runs, *TRAINED)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return runs


@pytest.mark.faults
@pytest.mark.parametrize(("label", "whom"), [(PASSES[0], "group"), (PASSES[1], "run"), (PASSES[2], "group")])
def test_killed_in_a_group_and_repeated_gives_the_same_bytes(trained, tmp_path, label, whom):
    runs = shutil.copytree(trained, tmp_path / "runs")
    made = stages(runs)
    for name in (*PASSES, "select"):
        shutil.rmtree(runs / "store" / made[name])
    kill_during(runs, made[label], whom, 0.05, *TRAINED)
    number = PASSES.index(label)
    there = [(runs / "store" / made[name]).exists() for name in PASSES]
    assert there == [True] * number + [False] * (3 - number), "what came before in the process is published"
    answer = run_smoke(runs, *TRAINED)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert digests(runs) == digests(trained) and selected_ids(runs) == selected_ids(trained)
