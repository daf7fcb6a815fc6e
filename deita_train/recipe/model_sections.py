"""The sections that train, and how a model passes over rows: their keys, types and defaults."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from deita_train.recipe.data_sections import (
    Count,
    ScorerData,
    Section,
    Seed,
    Share,
    Source,
    TrainingPreferences,
)

Dtype = Literal["auto", "float32", "bfloat16"]


class Training(Section):
    """What every training has: the batch, the launch file, and trl's own fields under `trainer`."""

    global_batch_size: Count
    """Conversations (of DPO: pairs) in one optimizer step, over all ranks; micro-batch and accumulation follow."""
    launch: str | None = None
    """A file of accelerate_configs/, such as `zero2`, or a path. By default all GPUs, or one process on a CPU."""
    seed: Seed | None = None
    """Seed of the order of rows, dropout and new weights; the recipe's `seed` by default."""
    checkpoint_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    """Minutes after which a checkpoint is saved, beside those of `trainer.save_steps`."""
    trainer: dict[str, Any] = Field(default_factory=dict)
    """Fields of the installed trl's SFTConfig (of `dpo`: DPOConfig), under their own names. Their defaults are trl's,
    but for `lr_scheduler_type` (`cosine`; of `dpo` `linear`) and, of `sft` and `dpo`, `max_length` (2048). Each
    field has its effect or is refused (docs/training.md)."""

    @field_validator("trainer")
    @classmethod
    def _steps_alone(cls, trainer: dict[str, Any]) -> dict[str, Any]:
        """Leave out `num_train_epochs: null`, by which a `--set` takes back what the file says beside `max_steps`."""
        is_left_out = "max_steps" in trainer and trainer.get("num_train_epochs", 0) is None
        return {name: value for name, value in trainer.items() if not (is_left_out and name == "num_train_epochs")}


class Tuning(Training):
    """A training of the whole model, or of an adapter on a frozen base."""

    peft: dict[str, Any] | None = None
    """Trains a LoRA adapter: fields of the installed peft's LoraConfig, under their own names."""
    merge_adapter: bool = False
    """Publishes the adapter merged into its base, as a whole model."""
    resize: bool = False
    """Adds the control tokens of the chat template that the tokenizer lacks, and rows of the embeddings for tokens that
    have none; they begin at the mean of the others."""
    quantization: Literal["nf4", "int8"] | None = None
    """Holds the frozen base in 4-bit NormalFloat (QLoRA) or in 8 bits while the adapter is trained."""

    @model_validator(mode="after")
    def _adapter_alone(self) -> Self:
        if self.merge_adapter and self.peft is None:
            raise ValueError("merge_adapter: would have no effect without peft:; leave it out")
        if self.resize and self.peft is not None:
            raise ValueError("resize: an adapter leaves the base's embeddings as they are; leave one of the two out")
        if self.quantization is not None and self.peft is None:
            raise ValueError("quantization: a quantized base cannot be trained itself; state peft: for an adapter")
        if self.quantization is not None and "dtype" in (self.trainer.get("model_init_kwargs") or {}):
            raise ValueError("quantization: computes in bfloat16; leave trainer.model_init_kwargs.dtype out")
        return self


class Packable(Tuning):
    """A training on conversations, which can be packed."""

    packing: bool = False
    """Lays the conversations of a micro-batch in one row without padding; none sees another, and batches stay."""


class Pass(Section):
    """How a model passes over rows without learning."""

    dtype: Dtype = "auto"
    """Of weights and activations; `auto` is bfloat16 on GPUs and float32 on a CPU."""
    launch: str | None = None
    """A file of accelerate_configs/, or a path. By default all GPUs, or one process on a CPU."""
    max_batch_tokens: Count | None = None
    """Most tokens in a batch, padding included; by default what the memory holds."""


class Rendered(Section):
    """A section whose conversations a chat template renders."""

    chat_template: str | None = None
    """A template of docs/training.md, a `.jinja` file, or `tokenizer` for the model's own. By default the model's own,
    and `vicuna_v1.1` for a model without one."""
    unsupported_fields: Literal["drop", "text"] = "drop"
    """What becomes of a row with reasoning, tool calls or roles that the template does not write: it is left out and
    counted, or written as text."""
    max_refused_share: Share = 0.01
    """Share of rows that the template cannot write above which the stage fails; up to it they are left out."""


class RenderedLikeSft(Rendered):
    """A section after `sft`, which treats rows as that section does unless it says otherwise."""

    chat_template: str | None = None
    """By default that of `sft`, beside which none may be stated. In a recipe without `sft` a template of
    docs/training.md, a `.jinja` file, or `tokenizer` for the model's own; by default the model's own, and `vicuna_v1.1`
    for a model without one."""
    unsupported_fields: Literal["drop", "text"] = "drop"
    """What becomes of a row with reasoning, tool calls or roles that the template does not write: it is left out and
    counted, or written as text. By default as in `sft`."""
    max_refused_share: Share = 0.01
    """Share of rows that the template cannot write above which the stage fails; up to it they are left out. By default
    as in `sft`."""

    def like(self, sft: Rendered) -> dict[str, Any]:
        """The fields that follow from `sft:`, because they are not stated here."""
        inherited = {"unsupported_fields", "max_refused_share"} - self.model_fields_set
        return {name: getattr(sft, name) for name in sorted(inherited & sft.model_fields_set)}


class Architecture(Section):
    """The shape of the miniature, a small LLaMA for runs without a network."""

    hidden_size: Count = 64
    """Dimensions of the hidden states; a multiple of twice `num_heads`."""
    num_layers: Count = 2
    """Transformer layers."""
    num_heads: Count = 4
    """Attention heads in each layer."""
    vocab_size: Annotated[int, Field(ge=300)] = 2000
    """Tokens of the byte-level tokenizer, which is trained on the data."""
    context_length: Count = 1024
    """Longest sequence, in tokens."""

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(f"hidden_size: {self.hidden_size} is not a multiple of 2 x num_heads ({self.num_heads})")
        return self


class Pretrain(Training):
    """The miniature's brief pretraining on the text of conversations."""

    data: Source
    """Conversations whose text the miniature learns."""
    max_length: Count = 512
    """Tokens at which a conversation is cut; without it, also at the miniature's context."""


class Base(Section):
    """A base model that the run makes itself; other sections name it as `model: base`."""

    builtin: Literal["miniature"]
    """What kind of model to make."""
    architecture: Architecture = Architecture()
    """The miniature's shape."""
    pretrain: Pretrain
    """The miniature's pretraining."""


class ScorerTraining(Packable):
    """Training of one scorer [paper 2.3, 2.4]: next-token prediction of one digit after the scorer's prompt."""

    data: ScorerData | Literal["evolve"]
    """Labelled rows to train on; `evolve` for those that the section of that name makes."""
    heldout: ScorerData | None = None
    """Labelled rows on which the scorer is measured after training. Generated ones have a seed of their own; with
    `data: evolve` the held-out seeds serve by default."""
    model: str
    """The model to start from: a folder, a Hub id, or `base`."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model. Without it, the commit of the first start is kept for the run."""
    max_length: Count = 2048
    """Longest prompt with its score, in tokens; a longer one is shortened. Without it, also to the model's context."""


class Sft(Packable, Rendered):
    """Supervised fine-tuning on the selected conversations, or on `data` [paper 3, App. A]."""

    model: str
    """The model to start from: a folder, a Hub id, or `base`."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model. Without it, the commit of the first start is kept for the run."""
    data: Source | None = None
    """Conversations to train on, in a recipe without `select`."""
    loss: Literal["per_token", "per_conversation"] = "per_token"
    """Mean over the trained tokens of a global batch, or over its conversations the mean of each."""
    parity: bool = False
    """Matches the public code: the loss `per_conversation`, with 2% of the rows held out and not used."""

    @property
    def is_per_conversation(self) -> bool:
        """Whether every conversation counts the same, however long."""
        return self.parity or self.loss == "per_conversation"

    @model_validator(mode="after")
    def _one_loss(self) -> Self:
        if self.parity and "loss" in self.model_fields_set and self.loss == "per_token":
            raise ValueError("loss: per_token would have no effect beside parity: true; leave one of the two out")
        per_token = {"loss_type": "nll", "label_smoothing_factor": 0.0}
        changed = [
            f"trainer.{name}" for name, default in per_token.items() if self.trainer.get(name, default) != default
        ]
        if self.is_per_conversation and changed:
            raise ValueError(
                f"{', '.join(changed)} weights tokens differently from a loss per conversation; leave it out"
            )
        return self


class Dpo(Tuning, RenderedLikeSft):
    """Direct preference optimization of the SFT model, or of `model` [paper 3, App. A]."""

    preferences: TrainingPreferences
    """The pairs to train on."""
    model: str | None = None
    """The model to start from, in a recipe without `sft`: a folder, a Hub id, or `base`."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model. Without it, the commit of the first start is kept for the run."""
    parity: bool = False
    """Matches the public code: pairs are written with `user:` and `assistant:` in lower case."""
    reference: Pass = Pass()
    """How the reference's log-probabilities are computed, once and before the training."""

    @model_validator(mode="after")
    def _dropout_of_the_adapter(self) -> Self:
        if (self.peft or {}).get("lora_dropout") and self.trainer.get("disable_dropout", True):
            raise ValueError(
                "peft.lora_dropout: would have no effect, because DPO trains without dropout; leave it out, or state "
                "trainer.disable_dropout: false"
            )
        return self
