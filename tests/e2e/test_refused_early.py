"""A run with a training that would fail hours later ends before its first stage."""

import json

import pytest
from smoke_run import SMOKE, command_here

from deita_train.errors import UserError


def test_a_run_tells_every_training_that_would_fail_before_its_first_stage(tmp_path, processes):
    wrong = {
        "scorers.quality.train.trainer.model_init_kwargs": "{atn: eager}",
        "sft.trainer.log_level": "loud",
        "dpo.trainer.optim": "paged_adamw_8bit",
    }
    sets = [part for path, value in wrong.items() for part in ("--set", f"{path}={value}")]
    with pytest.raises(UserError) as caught:
        command_here("run", str(SMOKE), "--runs", str(tmp_path), *sets)
    told = str(caught.value).splitlines()
    assert [line.split(": ")[:2] for line in told] == [[str(SMOKE), path] for path in wrong]
    assert "bitsandbytes" in told[2] and caught.value.exit_code == 2
    assert not list((tmp_path / "store").glob("*/manifest.json")) and not (tmp_path / "store" / ".work").exists()


def test_a_right_run_remembers_that_its_trainings_were_tried(undisturbed):
    tried = json.loads((undisturbed / "smoke" / "tried.json").read_text())
    assert len(set(tried)) == 5 and not list((undisturbed / "smoke").glob("trial*"))
