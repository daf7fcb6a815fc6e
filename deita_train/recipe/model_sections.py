"""The sections that train, and how a model passes over rows: their keys, types and defaults."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from deita_train.recipe.data_sections import Count, Preferences, ScorerData, Section, Source

Dtype = Literal["auto", "float32", "bfloat16"]


class Training(Section):
    """What every training has: the batch stated once, the launch file, and trl's own fields under `trainer`.

    Beside the steps of `trainer.save_steps` a checkpoint is saved when `checkpoint_minutes` have passed.
    """

    global_batch_size: Count
    launch: str | None = None
    seed: int | None = None
    checkpoint_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    trainer: dict[str, Any] = Field(default_factory=dict)


class Tuning(Training):
    """A training that may leave the base as it is and learn an adapter: peft's own LoraConfig fields under `peft`.

    With `quantization` the frozen base is held in 4-bit NormalFloat (QLoRA) or in 8 bits while the adapter is trained.
    """

    peft: dict[str, Any] | None = None
    merge_adapter: bool = False
    quantization: Literal["nf4", "int8"] | None = None

    @model_validator(mode="after")
    def _adapter_alone(self) -> Self:
        if self.merge_adapter and self.peft is None:
            raise ValueError("merge_adapter: would have no effect without peft:; leave it out")
        if self.quantization is not None and self.peft is None:
            raise ValueError("quantization: a quantized base cannot be trained itself; state peft: for an adapter")
        if self.quantization is not None and "dtype" in (self.trainer.get("model_init_kwargs") or {}):
            raise ValueError("quantization: computes in bfloat16; leave trainer.model_init_kwargs.dtype out")
        return self


class Packable(Tuning):
    """A training on conversations, those of a micro-batch in one row without padding where `packing` says so.

    The batches hold the same conversations either way, and no conversation sees another.
    """

    packing: bool = False


class Pass(Section):
    """How a model passes over rows without learning; without `max_batch_tokens`, batches of what the memory holds."""

    dtype: Dtype = "auto"
    launch: str | None = None
    max_batch_tokens: Count | None = None


class Architecture(Section):
    """The shape of the miniature: a LLaMA in small, for runs without a network."""

    hidden_size: Count = 64
    num_layers: Count = 2
    num_heads: Count = 4
    vocab_size: Annotated[int, Field(ge=300)] = 2000
    context_length: Count = 1024

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(f"hidden_size: {self.hidden_size} is not a multiple of 2 x num_heads ({self.num_heads})")
        return self


class Pretrain(Training):
    """The miniature's brief pretraining on the text of conversations."""

    data: Source
    max_length: Count = 512


class Base(Section):
    """A base model that the run makes itself; other sections name it as `model: base`."""

    builtin: Literal["miniature"]
    architecture: Architecture = Architecture()
    pretrain: Pretrain


class ScorerTraining(Packable):
    """Training of one scorer [paper 2.3, 2.4]: next-token prediction of one digit after the scorer's prompt."""

    data: ScorerData
    heldout: ScorerData | None = None
    model: str
    revision: str | None = None
    max_length: Count = 2048


class Sft(Packable):
    """Supervised fine-tuning on the selected conversations, or on `data:` when there is nothing to select.

    `loss` is the mean over the tokens of a global batch, or over its conversations the mean of each. `parity` is what
    the public code does: the latter, with 2% of the rows held out.
    """

    model: str
    revision: str | None = None
    data: Source | None = None
    chat_template: str = "vicuna_v1.1"
    loss: Literal["per_token", "per_conversation"] = "per_token"
    parity: bool = False

    @property
    def is_per_conversation(self) -> bool:
        """Whether every conversation counts the same, however long."""
        return self.parity or self.loss == "per_conversation"

    @model_validator(mode="after")
    def _one_loss(self) -> Self:
        if self.parity and "loss" in self.model_fields_set and self.loss == "per_token":
            raise ValueError("loss: per_token would have no effect beside parity: true; leave one of the two out")
        alien = {"loss_type": "nll", "label_smoothing_factor": 0.0}
        changed = [f"trainer.{name}" for name, default in alien.items() if self.trainer.get(name, default) != default]
        if self.is_per_conversation and changed:
            raise ValueError(f"{', '.join(changed)} weighs tokens otherwise than a loss per conversation; leave it out")
        return self


class Dpo(Tuning):
    """Direct preference optimization of the SFT model, or of `model:` when the recipe has no sft.

    `parity` is what the public code does: the pairs say `user:` and `assistant:` where SFT says `USER:` and
    `ASSISTANT:`.
    """

    preferences: Preferences
    model: str | None = None
    revision: str | None = None
    chat_template: str | None = None
    parity: bool = False
    reference: Pass = Pass()
