"""The most bytes that one rank holds while it trains, by sums over the configuration. Imports nothing heavy.

Three things are alive at once: the state (weights, gradients, moments), what the layers keep for their gradients, and
what the present moment needs. The fullest moment is the loss, when every layer's activations are there and the logits
of a tile as well; under ZeRO, it may be the first gradients, when DeepSpeed's buffer is there too.
"""

from dataclasses import dataclass
from typing import Literal

from deita_train.cost.shape import Sizes

Sharding = Literal["none", "ddp", "fsdp", "zero1", "zero2", "zero3"]

# trl computes logits for so many tokens and so much of the vocabulary at a time.
_TILE_TOKENS, _TILE_VOCABULARY = 4096, 32_768
# Without trl's GPU kernel the loss copies a tile so many times, in float32.
_TILE_COPIES_CPU = 7
# Vectors of a token around the layers: the embedding, the last norm with its copies, the loss's gradient.
_VECTORS_AROUND = 6
_FLOAT32 = 4
# What DeepSpeed takes unless its own file says otherwise.
DEEPSPEED_BUCKET = 500_000_000
# ZeRO-3 keeps weights gathered that are soon wanted again, up to so many.
_DEEPSPEED_LIVE = 1_000_000_000
# Under ZeRO-3, as many copies of a rank's gradients are alive besides, by the bytes of a number; counted in steps.
_ZERO3_COPIES = {2: 1, 4: 2}


@dataclass(frozen=True)
class Setup:
    """How a model is trained.

    Attributes:
        sharding: what the ranks divide.
        ranks: their number.
        weight_bytes: of a stored weight: 4 for float32, 2 for bfloat16.
        half: whether layers compute in two bytes.
        moment_bytes: of the optimizer for each trained weight; 8 for Adam in float32.
        adapter: weights of the adapter that is trained; None where the whole model is.
        frozen_layers: layers under the lowest adapter, which keep nothing for gradients, unless with checkpointing.
        base_bytes: of a weight of the frozen base, under an adapter; less than 2 where it is quantized.
        checkpointing: whether layers are computed once more instead of keeping their activations.
        micro_batch: sequences computed at once; a preference pair is two.
        length: tokens of the longest row.
        accumulates: whether a step has more than one micro-batch, so that gradients wait beside activations.
        on_cpu: whether the loss is computed without trl's GPU kernel.
        offloads_optimizer: whether moments and float32 weights lie in the machine's memory.
        offloads_weights: whether the weights do too.
        bucket: weights in DeepSpeed's buffer for gradients.
    """

    sharding: Sharding
    ranks: int
    weight_bytes: int
    half: bool
    moment_bytes: float
    micro_batch: int
    length: int
    checkpointing: bool
    accumulates: bool = True
    adapter: int | None = None
    frozen_layers: int = 0
    base_bytes: float | None = None
    on_cpu: bool = False
    offloads_optimizer: bool = False
    offloads_weights: bool = False
    bucket: int = DEEPSPEED_BUCKET

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch, all as long as the longest."""
        return self.micro_batch * self.length

    @property
    def computing_bytes(self) -> int:
        """Bytes of a number in the layers."""
        return 2 if self.half else self.weight_bytes


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank at its fullest moment, by what they are for."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    moment: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.moment


def training_memory(sizes: Sizes, setup: Setup) -> Memory:
    """What a rank holds at the fullest moment of a step."""
    weights, gradients, optimizer = _state(sizes, setup)
    kept = kept_bytes(sizes, setup)
    loss = _loss_bytes(sizes, setup)
    buffers = _buffers(sizes, setup)
    # ZeRO-3 has its buffer all the time, ZeRO-2 from the first gradient, when the loss's tile is gone.
    fullest = loss + buffers if setup.sharding == "zero3" else max(loss, buffers)
    full = Memory(weights, gradients, optimizer, kept, max(fullest, buffers + _layer_bytes_again(sizes, setup)))
    if setup.accumulates or setup.sharding == "zero3":
        return full
    # A step's only micro-batch has no gradients yet when the loss is computed, though DDP has its buckets, and no
    # activations when they are whole.
    before = gradients // 2 if setup.sharding == "ddp" and setup.ranks > 1 else 0
    at_loss = Memory(weights, before, optimizer, kept, full.moment)
    at_end = Memory(weights, gradients, optimizer, 0, buffers)
    return max(at_loss, at_end, key=lambda memory: memory.total)


def _state(sizes: Sizes, setup: Setup) -> tuple[int, int, int]:
    """Bytes of weights, with what is gathered or cast of them, of gradients and of the optimizer."""
    if setup.sharding.startswith("zero"):
        return _deepspeed_state(sizes, setup)
    whole, trained, weight = _weights(sizes, setup)
    share = setup.ranks if setup.sharding == "fsdp" else 1
    beside = _beside_weights(sizes, setup)
    if setup.sharding == "fsdp" and setup.offloads_weights:
        return beside, 0, 0  # FSDP offloads all three or none
    gradients = trained * weight // share
    if setup.sharding == "ddp" and setup.ranks > 1:
        gradients *= 2  # the buckets in which they travel are copies
    return whole // share + beside, gradients, int(trained * setup.moment_bytes) // share


def _weights(sizes: Sizes, setup: Setup) -> tuple[int, int, int]:
    """Bytes of all weights, the number of trained ones, and the bytes of one of them."""
    if setup.adapter is None:
        return sizes.weights * setup.weight_bytes, sizes.weights, setup.weight_bytes
    base = setup.weight_bytes if setup.base_bytes is None else setup.base_bytes
    # peft keeps an adapter in float32.
    return int(sizes.weights * base) + setup.adapter * _FLOAT32, setup.adapter, _FLOAT32


def _beside_weights(sizes: Sizes, setup: Setup) -> int:
    """Copies of weights that computing needs: in two bytes under autocast, and gathered under FSDP."""
    multiplied = sizes.trunk + sizes.head
    if setup.sharding == "fsdp":
        layer = sizes.trunk // sizes.num_hidden_layers
        root = sizes.tables + (0 if sizes.tied else sizes.head)
        return (2 * layer + root) * setup.computing_bytes
    casts = setup.half and setup.weight_bytes == _FLOAT32 and setup.base_bytes is None
    return 2 * multiplied if casts else 0


def _deepspeed_state(sizes: Sizes, setup: Setup) -> tuple[int, int, int]:
    """DeepSpeed computes in the weights' own precision and keeps float32 weights beside them."""
    stage, ranks = int(setup.sharding[-1]), setup.ranks
    size = setup.computing_bytes
    trained = sizes.weights if setup.adapter is None else setup.adapter
    every = sizes.weights + (setup.adapter or 0)
    weights = every * size
    if stage == 3:
        live = min(every, _DEEPSPEED_LIVE) * size
        weights = live + (0 if setup.offloads_weights else every * size // ranks)
    gradients = trained * size // (1 if stage == 1 else ranks)
    if stage == 3:
        gradients *= 1 + _ZERO3_COPIES[size]
    optimizer = int(trained * (_FLOAT32 + setup.moment_bytes)) // ranks
    return (weights, 0, 0) if setup.offloads_optimizer else (weights, gradients, optimizer)


def kept_bytes(sizes: Sizes, setup: Setup) -> int:
    """What the layers keep for their gradients: everything, or with checkpointing one vector each."""
    each = _vector_bytes(sizes, setup) if setup.checkpointing else layer_bytes(sizes, setup)
    layers = sizes.num_hidden_layers - (0 if setup.checkpointing else setup.frozen_layers)
    around = _VECTORS_AROUND * _FLOAT32 * sizes.hidden_size
    return setup.tokens * (layers * each + around)


def _vector_bytes(sizes: Sizes, setup: Setup) -> int:
    """A token between two layers; float32 under autocast."""
    return sizes.hidden_size * (2 if _in_two_bytes(setup) else _FLOAT32)


def _layer_bytes_again(sizes: Sizes, setup: Setup) -> int:
    """With checkpointing, the layer that is being computed once more, and its gradients."""
    return 2 * setup.tokens * layer_bytes(sizes, setup) if setup.checkpointing else 0


def _loss_bytes(sizes: Sizes, setup: Setup) -> int:
    """The loss's tile of logits, its copies, and the float32 gradient of the output head."""
    tokens = min(setup.tokens, _TILE_TOKENS)
    tile = tokens * _TILE_VOCABULARY * setup.computing_bytes
    if setup.on_cpu:
        tile += _TILE_COPIES_CPU * tokens * min(sizes.vocab_size, _TILE_VOCABULARY) * _FLOAT32
    return tile + (sizes.head * _FLOAT32 if setup.adapter is None else 0)


def _buffers(sizes: Sizes, setup: Setup) -> int:
    """What DeepSpeed allocates for gradients on their way, whatever the model's size, and the head's gradient."""
    if not setup.sharding.startswith("zero"):
        return 0
    return setup.bucket * setup.computing_bytes + (sizes.head * _FLOAT32 if setup.adapter is None else 0)


def _in_two_bytes(setup: Setup) -> bool:
    """Whether the residual stream is in two bytes too, as it is not under autocast."""
    return setup.half and (setup.weight_bytes == 2 or (setup.sharding != "none" and setup.sharding != "ddp"))


def layer_bytes(sizes: Sizes, setup: Setup) -> int:
    """What a layer keeps of a token for its gradients, counted in transformers' layers.

    With width D, queries Q, keys K and MLP width I, a LLaMA keeps in float32 4 x (6 D + 2 Q + 2 K + 4 I): inputs and
    outputs of the norms; queries, keys, values and the attention's output; four vectors of the MLP. In bfloat16 the
    norms still compute in float32, 16 D; under autocast the residual stream does too, 26 D. Norms of queries and keys
    keep 2 (Q + K) numbers more, those after a block 2.5 D each; GPT-2 keeps 8 D + 5 I, without dropout.
    """
    d, q, k, i = sizes.hidden_size, sizes.queries, sizes.keys, sizes.intermediate_size
    if sizes.family == "gpt2":
        return (8 * d + 5 * i) * setup.computing_bytes
    norms = _FLOAT32 * _more_norms(sizes)
    products = 2 * q + 2 * k + 4 * i
    if not setup.half and setup.weight_bytes == _FLOAT32:
        return _FLOAT32 * (6 * d + products) + norms
    return (16 if _in_two_bytes(setup) else 26) * d + 2 * products + norms


def _more_norms(sizes: Sizes) -> int:
    """Numbers that norms keep which a LLaMA does not have."""
    numbers = 0
    if sizes.family in ("qwen3", "gemma3_text", "olmo2"):
        numbers += 2 * (sizes.queries + sizes.keys)
    if sizes.family in ("gemma2", "gemma3_text"):
        numbers += 5 * sizes.hidden_size
    return numbers
