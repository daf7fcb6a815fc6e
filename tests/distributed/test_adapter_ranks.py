"""Adapters on two ranks against one process: a merged one of SFT, and one of DPO that stays an adapter."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file
from smoke_run import run_smoke_here, stages

ADAPTERS = ("sft.peft={r: 4, target_modules: all-linear}", "sft.merge_adapter=true", "dpo.peft={r: 4, use_dora: true}")
WEIGHTS = {"sft": "model.safetensors", "dpo": "adapter_model.safetensors"}


def run_adapters(undisturbed, runs, *settings):
    """The undisturbed run up to DPO, with adapters; what is made already is not made again."""
    shutil.copytree(undisturbed / "store", runs / "store")
    arguments = [part for setting in (*ADAPTERS, *settings) for part in ("--set", setting)]
    run_smoke_here(runs, "--until", "dpo", *arguments)
    return runs


@pytest.fixture(scope="module")
def one_process(undisturbed, tmp_path_factory):
    return run_adapters(undisturbed, tmp_path_factory.mktemp("one_process"))


@pytest.mark.faults
@pytest.mark.parametrize(("launch", "distributed_type"), [("cpu_ddp", "MULTI_GPU"), ("cpu_zero3", "DEEPSPEED")])
def test_adapters_of_two_ranks_are_those_of_one(undisturbed, one_process, tmp_path, launch, distributed_type):
    if distributed_type == "DEEPSPEED" and shutil.which("g++") is None:
        pytest.skip("DeepSpeed compiles a small op and there is no g++")
    two_ranks = run_adapters(undisturbed, tmp_path, f"sft.launch={launch}", f"dpo.launch={launch}")
    ids = stages(one_process)
    assert {label: stages(two_ranks)[label] for label in WEIGHTS} == {label: ids[label] for label in WEIGHTS}
    for label, file in WEIGHTS.items():
        one, two = (runs / "store" / ids[label] for runs in (one_process, two_ranks))
        manifest = json.loads((two / "manifest.json").read_text())
        assert (manifest["world_size"], manifest["distributed_type"]) == (2, distributed_type)
        losses = [
            [entry["loss"] for entry in json.loads((folder / "metrics.json").read_text())["history"]]
            for folder in (one, two)
        ]
        assert len(losses[0]) >= 4
        np.testing.assert_allclose(losses[1], losses[0], atol=1e-4)
        weights = [load_file(folder / "model" / file) for folder in (one, two)]
        assert weights[0].keys() == weights[1].keys()
        for name, weight in weights[0].items():
            np.testing.assert_allclose(weights[1][name], weight, atol=2e-3, err_msg=name)
