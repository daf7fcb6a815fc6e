import re

import pytest
from tiny_recipe import no_gpus, recipe, write  # noqa: F401

from deita_train.errors import UserError
from deita_train.plan import launch, training_checks
from deita_train.plan.plan import make_plan

pytestmark = pytest.mark.usefixtures("no_gpus")
ADAPTER = {"sft__peft": {"r": 4}, "sft__quantization": "nf4"}
PLACE = "recipe.yaml: sft.quantization: "


def plan(folder, gpus=None, **changes):
    return make_plan(write(folder, recipe(**changes)), (), folder / "runs", planned_gpus=gpus)


def refusal(folder, gpus=None, **changes):
    with pytest.raises(UserError) as caught:
        plan(folder, gpus, **changes)
    return re.sub(r"yaml:\d+: ", "yaml: ", str(caught.value))


@pytest.mark.parametrize("file", [None, "ddp", "single_gpu"])
def test_a_quantized_base_is_part_of_the_key(tmp_path, file):
    launched = {"sft__launch": file} if file else {}
    quantized = plan(tmp_path, 2, **ADAPTER, **launched).cells[0].nodes["sft"]
    plain = plan(tmp_path, 2, sft__peft={"r": 4}, **launched).cells[0].nodes["sft"]
    assert quantized.identity == {**plain.identity, "quantization": "nf4"}
    assert quantized.key != plain.key


def test_where_it_cannot_be_is_said(tmp_path, monkeypatch):
    assert refusal(tmp_path, **ADAPTER).endswith(f"{PLACE}needs a GPU; on a CPU leave it out.")
    for file, kind in (("zero3", "DEEPSPEED"), ("fsdp2", "FSDP")):
        message = refusal(tmp_path, 2, sft__launch=file, **ADAPTER)
        assert message.endswith(f"{PLACE}{kind} divides weights that are not quantized; launch: single_gpu or ddp.")
    monkeypatch.setattr(training_checks, "find_spec", lambda name: None)
    plan(tmp_path, 2, **ADAPTER)  # what that machine has is not known here
    monkeypatch.setattr(launch, "count_gpus", lambda: 1)
    launch.resolve_launch.cache_clear()
    assert refusal(tmp_path, **ADAPTER).endswith(
        "sft.quantization: needs bitsandbytes: pip install 'deita-train[qlora]'."
    )


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"sft__quantization": "nf4"}, "a quantized base cannot be trained itself; state peft: for an adapter"),
        ({**ADAPTER, "sft__quantization": "int4"}, "'int4' is not allowed"),
        (
            {**ADAPTER, "sft__trainer__model_init_kwargs": {"dtype": "float32"}},
            "computes in bfloat16; leave trainer.model_init_kwargs.dtype out",
        ),
    ],
)
def test_what_does_not_go_together(tmp_path, changes, part):
    assert part in refusal(tmp_path, 2, **changes)
