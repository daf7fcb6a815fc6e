"""How fast SFT trains: real tokens a second of the same rows, padded, in batches of similar length, and packed.

    python benchmarks/training.py            # on a CPU: a LLaMA of 25M, ratios within the run

Every way trains with the framework's own trainer on the same conversations in each step; the losses are compared.
A 7B on a GPU is measured by benchmarks/gpu.sh, with the same function.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from passes import SHAPES, conversations, llama_config, make_tokenizer, measured_product, random_model
from progress import add_time_limit, say, time_limit
from transformers import (
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from deita_train.data.rendering import render
from deita_train.training.arguments import Kind, TrainingSettings, training_arguments
from deita_train.training.lora import lora_config
from deita_train.training.rows import LabelledRow, write_training_rows
from deita_train.training.step_watch import Rates, StepWatch, training_flops_per_token
from deita_train.training.trainers import trainer_class

_WARM_UP = 1  # steps that are not timed
_BATCH = 32
_MAX_LENGTH = 512


@dataclass(frozen=True)
class Way:
    """One way of training: trl's fields, whether it packs, the dtype that the weights are kept in, the kind, and peft's
    fields where an adapter is trained."""

    name: str
    trainer: dict[str, Any]
    packing: bool = False
    dtype: torch.dtype = torch.float32
    kind: Kind = "sft"
    peft: dict[str, Any] | None = None


@dataclass(frozen=True)
class Measured:
    """Each step's real tokens and seconds and its loss, the most memory in use so far in GiB, and the FLOPs of a token
    (None where they are not known)."""

    steps: list[Rates]
    losses: list[float]
    memory: float
    flops_per_token: int | None

    def rate(self, timed: slice) -> float:
        """Real tokens a second over some of the steps."""
        return sum(step.tokens for step in self.steps[timed]) / sum(step.seconds for step in self.steps[timed])


class _KeepSteps(TrainerCallback):
    """The span of each log, where every step is logged."""

    def __init__(self, watch: StepWatch) -> None:
        self._watch = watch
        self.steps: list[Rates] = []

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if "loss" in state.log_history[-1]:
            self.steps.append(self._watch.span)


def measure(
    way: Way,
    make_model: Callable[[torch.dtype], PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    rows: datasets.Dataset,
    folder: Path,
    *,
    use_cpu: bool,
    batch: int,
    callbacks: Sequence[TrainerCallback] = (),
) -> Measured:
    """Train one epoch of the rows without saving anything."""
    trainer_fields = {"num_train_epochs": 1, "learning_rate": 1e-4, "logging_steps": 1, **way.trainer}
    settings = TrainingSettings(
        trainer_fields, batch, 1, 1, "NO", use_cpu, packing=way.packing, kind=way.kind, peft=way.peft
    )
    arguments = training_arguments(settings, len(rows), folder / "checkpoints")
    arguments.save_strategy = "no"
    model = make_model(way.dtype)
    if way.packing and not use_cpu:
        model.set_attn_implementation(arguments.model_init_kwargs["attn_implementation"])
    arguments.model_init_kwargs = None  # the model is there already
    watch = StepWatch()
    kept = _KeepSteps(watch)
    trainer = trainer_class(settings)(
        settings=settings, rows=rows, watch=watch, model=model, args=arguments, processing_class=tokenizer,
        callbacks=[kept, *callbacks],
        peft_config=None if way.peft is None else lora_config(way.peft),
    )  # fmt: skip
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    losses = [float(entry["loss"]) for entry in logged]
    return Measured(kept.steps, losses, float(logged[-1]["memory_gib"]), training_flops_per_token(trainer.model))


def on_cpu(num_rows: int) -> None:
    """Measure and print the ratios."""
    messages = conversations(num_rows)
    tokenizer = make_tokenizer(messages, "25M")
    rows = []
    for number, conversation in enumerate(messages):
        rendered = render(tokenizer, conversation, _MAX_LENGTH)
        rows.append(LabelledRow(str(number), rendered.input_ids, rendered.labels))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count = write_training_rows(rows, folder / "rows")
        data = datasets.load_from_disk(str(folder / "rows"))
        print(f"{count.rows} rows of {count.tokens / count.rows:.0f} tokens on average, cut at {_MAX_LENGTH}\n")
        micro = {"per_device_train_batch_size": 8}
        ways = [
            Way(f"padded to {_MAX_LENGTH}", {**micro, "pad_to_multiple_of": _MAX_LENGTH}),
            Way("batches of similar length", micro),
            Way("packed", micro, packing=True),
        ]
        measured = []
        for way in ways:
            say(way.name)
            measured.append(measure(way, _small_llama, tokenizer, data, folder, use_cpu=True, batch=_BATCH))
    first = measured[0]
    timed = slice(_WARM_UP, None)
    flops = training_flops_per_token(_small_llama(torch.float32))
    assert flops is not None
    product = measured_product("cpu", torch.float32)
    print("| way | real tokens/s, padded = 1 | share of a measured matrix product | largest difference of a loss |")
    print("|---|---:|---:|---:|")
    for way, result in zip(ways, measured, strict=True):
        difference = max(abs(one - other) for one, other in zip(result.losses, first.losses, strict=True))
        assert difference < 2e-3, f"{way.name} trains otherwise: its losses differ by up to {difference}"
        share = result.rate(timed) * flops / product
        print(f"| {way.name} | {result.rate(timed) / first.rate(timed):.2f} | {share:.0%} | {difference:.1e} |")


def _small_llama(dtype: torch.dtype) -> PreTrainedModel:
    return random_model(lambda: LlamaForCausalLM(llama_config(*SHAPES["25M"])), "cpu", dtype)


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=160, help="conversations")
    add_time_limit(parser)
    options = parser.parse_args()
    with time_limit(options.minutes):
        on_cpu(options.rows)


if __name__ == "__main__":
    main()
