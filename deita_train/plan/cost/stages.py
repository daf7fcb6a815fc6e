"""What one stage costs: rows, tokens, operations, GPU hours, and the memory of each GPU."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from deita_train.cost.gpus import GPUS, Gpu
from deita_train.cost.operations import pass_operations, training_operations
from deita_train.cost.shape import Sizes, sizes_of
from deita_train.cost.shares import EMBEDDING, PACKED, SCORING, TRAINING, Share
from deita_train.cost.training_memory import training_memory
from deita_train.data.shipped_templates import shipped_template
from deita_train.models.pass_memory import MIN_BATCH_TOKENS, token_bytes
from deita_train.plan.chat_templates import DEFAULT_CHAT_TEMPLATE
from deita_train.plan.cost.rows import UNKNOWN, PlannedRows, Rows
from deita_train.plan.cost.setups import cut_at, recomputes, setup_of, trainer_of, ways_to_fit
from deita_train.plan.models import model_of
from deita_train.plan.node import Node
from deita_train.stages.kinds import STAGE_KINDS
from deita_train.store.artefacts import Store

# Kinds whose stages compute logits for every token, and those that read positions alone.
_WITH_HEAD = frozenset({"perplexity", "log_probs", "evaluate", "generate"})
_PASSES = frozenset({"score", "embed", *_WITH_HEAD})
_NOT_MODELLED = {
    "lm_eval": "its questions are counted when it runs",
    "sentence_embed": "models of sentence-transformers are not modelled",
}
# Tokens of Mistral-7B-v0.1: of the scorers' prompts around a turn, of vicuna_v1.1's system message, and of what a
# template writes around a turn and its answer.
_PROMPT_TOKENS = {"complexity": 30, "quality": 41}
_VICUNA_SYSTEM, _TEMPLATE_TOKENS = 30, 10
# Tokens of a miniature's own tokenizer for one of those, as recipes/smoke.yaml and recipes/quickstart.yaml have them.
_MINIATURE_SCALE = 2.0
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class StageCost:
    """One stage's cost; what is not known is None.

    Attributes:
        rows: that it reads, of a training those of one epoch.
        how: how their number is known.
        tokens: that it computes, over all epochs.
        at_most: whether there may be fewer tokens.
        sampled: whether tokens follow from the characters of some rows.
        operations: floating-point operations, recomputed activations included.
        gpu_hours: of all GPUs together.
        gpus: how many it uses at once; 0 for none.
        memory: bytes of each GPU at the fullest moment of a training; of a pass, with the smallest batch that it takes.
        fits: whether that is there; None if unknown.
        share: of the peak, by which the hours follow.
        from_table: whether the model's shape is from the package's table.
        ways: what would fit where it does not.
        unknown: why something is not known; empty otherwise.
    """

    rows: int | None = None
    how: str = UNKNOWN
    tokens: int | None = None
    at_most: bool = False
    sampled: bool = False
    operations: float | None = None
    gpu_hours: float | None = None
    gpus: int = 0
    memory: int | None = None
    fits: bool | None = None
    share: Share | None = None
    from_table: bool = False
    ways: tuple[str, ...] = ()
    unknown: str = ""


def stage_cost(store: Store, rows: PlannedRows, node: Node, gpu: Gpu | None, share: float | None = None) -> StageCost:
    """What a stage costs.

    Args:
        store: of the plan.
        rows: of the plan's stages.
        node: the stage.
        gpu: the kind of GPU; None if it is not known, and then there are no hours.
        share: of the peak, in place of the measured one.
    """
    read = rows.read_by(node)
    trains = STAGE_KINDS[node.kind].trains
    launch = node.runtime.get("launch")
    gpus = 0 if launch is None or launch["use_cpu"] else launch["num_processes"]
    if not trains and node.kind not in _PASSES:
        why = _NOT_MODELLED.get(node.kind, "")
        return StageCost(read.number, read.how, gpus=gpus if why else 0, unknown=why)
    tokens, at_most = tokens_of(node, read)
    found = model_of(store, node)
    if found is None:  # answers of an endpoint
        return StageCost(read.number, read.how)
    sizes = sizes_of(found.config) if found.config is not None else None
    known = StageCost(read.number, read.how, tokens, at_most, bool(read.lengths) and read.total is None, gpus=gpus)
    if sizes is None:
        why = found.why or f"the sizes of a {(found.config or {}).get('model_type')} are not modelled"
        return replace(known, unknown=why)
    each = operations_of_token(node, sizes)
    operations = None if tokens is None or each is None else float(tokens) * each
    reached = _share(node, share)
    hours = None
    if gpu is not None and gpus and operations is not None and reached is not None:
        hours = operations / (reached.value * gpu.peak_flops) / 3600
    memory, ways, unknown = _memory(node, sizes, gpu, gpus)
    return replace(
        known,
        operations=operations,
        gpu_hours=hours,
        memory=memory,
        fits=None if memory is None or gpu is None or not gpus else memory <= gpu.memory,
        share=reached,
        from_table=found.from_table,
        ways=tuple(ways),
        unknown=unknown,
    )


def tokens_of(node: Node, read: Rows) -> tuple[int | None, bool]:
    """The tokens that a stage computes, over all epochs, and whether there may be fewer."""
    tokens, at_most = tokens_of_epoch(node, read)
    if tokens is None or not STAGE_KINDS[node.kind].trains:
        return tokens, at_most or "walk" in node.identity  # such an embedding ends where the selection does
    return round(tokens * epochs_of(node, read)), at_most


def tokens_of_epoch(node: Node, read: Rows) -> tuple[int | None, bool]:
    """The same of one time through these rows; a perplexity reads each answer once more, alone."""
    length, scale = cut_at(node), _scale(node)
    of_row, of_turn = _around(node)
    if node.kind in ("score", "train_scorer"):
        return _scored_tokens(node, read, length, scale)
    if node.kind in ("log_probs", "dpo"):  # a pair is two sequences
        length = None if length is None else 2 * length
        of_row, of_turn = 2 * of_row + of_turn, of_turn
    if node.kind == "generate":
        return _answered_tokens(node, read, scale)
    tokens, at_most = read.tokens(length, of_row=of_row, of_turn=of_turn, scale=scale)
    return (2 * tokens, True) if node.kind == "perplexity" and tokens is not None else (tokens, at_most)


def _around(node: Node) -> tuple[int, int]:
    """Tokens that a chat template writes around a row, and around each turn of the user with its answer."""
    text = node.identity.get("chat_template")
    if text is None:
        return 0, 0
    return (_VICUNA_SYSTEM if text == shipped_template(DEFAULT_CHAT_TEMPLATE) else 0), _TEMPLATE_TOKENS


def _scale(node: Node) -> float:
    """A miniature's tokenizer, with a small vocabulary, makes more tokens of a text."""
    while "model" in node.parents:
        node = node.parents["model"]
    return _MINIATURE_SCALE if STAGE_KINDS[node.kind].makes_base else 1.0


def epochs_of(node: Node, read: Rows) -> float:
    """How many times a training reads its rows."""
    trainer = trainer_of(node)
    steps = trainer.get("max_steps") or 0
    if steps > 0 and read.number:
        return float(steps * node.identity["global_batch_size"] / read.number)
    return float(trainer.get("num_train_epochs", 3))


def operations_of_token(node: Node, sizes: Sizes) -> int | None:
    """Floating-point operations for a token of a stage; None where they are not modelled."""
    if not STAGE_KINDS[node.kind].trains:
        return pass_operations(sizes, head=node.kind in _WITH_HEAD)
    peft = node.identity.get("peft")
    adapter = None if peft is None else sizes.adapter(peft)
    if peft is not None and adapter is None:
        return None
    frozen = 0 if peft is None else sizes.frozen_layers(peft)
    return training_operations(sizes, adapter, recomputes=recomputes(node), frozen_layers=frozen)


def _scored_tokens(node: Node, read: Rows, length: int | None, scale: float) -> tuple[int | None, bool]:
    """Each turn with a prompt around it; complexity reads the user's words alone."""
    if not read.lengths or read.number is None:
        return read.tokens(length)
    users, prompt = node.identity["dimension"] == "complexity", _PROMPT_TOKENS[node.identity["dimension"]]
    # Rows of labels may name no speaker: an instruction alone.
    each = [(of.of_user or of.tokens if users else of.tokens) + prompt * of.turns for of in read.lengths]
    return round(scale * read.number * sum(each) / len(each)), False


def _answered_tokens(node: Node, read: Rows, scale: float) -> tuple[int | None, bool]:
    """Every question with an answer of the greatest length."""
    if read.number is None:
        return None, False
    asked = scale * sum(of.tokens for of in read.lengths) / len(read.lengths) if read.lengths else 0
    return round(read.number * (asked + node.identity["max_new_tokens"])), True


def _share(node: Node, stated: float | None) -> Share | None:
    if stated is not None:
        return Share(stated, "everything", on_cpu=False)
    if STAGE_KINDS[node.kind].trains:
        return PACKED if node.runtime.get("packing") else TRAINING
    # Of writing answers, which waits for memory and not for products, nothing has been measured.
    return {"score": SCORING, "generate": None}.get(node.kind, EMBEDDING)


def _memory(node: Node, sizes: Sizes, gpu: Gpu | None, gpus: int) -> tuple[int | None, list[str], str]:
    """Bytes of each rank, what would fit where they do not, and why they are not known."""
    room = None if gpu is None else gpu.memory
    if not STAGE_KINDS[node.kind].trains:
        needed = _pass_memory(node, sizes)
        return needed, [] if room is None or needed <= room else _larger_gpus(needed), ""
    setup = setup_of(node, sizes, room)
    if isinstance(setup, str):
        return None, [], setup
    memory = training_memory(sizes, setup).total
    fits = room is None or not gpus or memory <= room
    return memory, [] if fits or room is None else ways_to_fit(node, sizes, setup, room), ""


def _larger_gpus(needed: int) -> list[str]:
    """What would hold a pass, of which every GPU holds the whole model; the smallest first."""
    larger = sorted((gpu.memory, name) for name, gpu in GPUS.items() if gpu.memory >= needed)
    return [f"--gpu {name}" for _, name in larger[:2]] + ["a smaller model"]


def _pass_memory(node: Node, sizes: Sizes) -> int:
    size = _BYTES.get(node.identity.get("dtype", "float32"), 4)
    length = cut_at(node) or MIN_BATCH_TOKENS
    batch: Any = node.runtime.get("max_batch_tokens") or MIN_BATCH_TOKENS
    return sizes.weights * size + max(batch, length) * token_bytes(sizes, size, length)


def parts_of(cost: StageCost) -> Mapping[str, Any]:
    """A cost as plain data."""
    return {**vars(cost), "share": None if cost.share is None else vars(cost.share), "ways": list(cost.ways)}


def wall_hours(cost: StageCost) -> float | None:
    """Hours until a stage is done, if its GPUs share the work evenly."""
    if cost.gpu_hours is None or not cost.gpus:
        return None
    hours = cost.gpu_hours / cost.gpus
    return hours if math.isfinite(hours) else None
