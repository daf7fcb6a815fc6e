"""What a rehearsal replaced, stage by stage: kept in the run's folder, and printed at the end."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deita_train.run.rehearsal.rewriting import Replacement
from deita_train.store.atomic_io import write_json_atomically
from deita_train.store.rehearsals import REHEARSAL, RehearsedStage, Replaced

# Where a stage's label does not begin with its section.
_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "pretraining_data": ("base.pretrain.data",),
    "base": ("base",),
    "seeds": ("evolve.seeds",),
    "evolve": ("evolve", "llm"),
    "rank": ("evolve", "llm"),
    "direct_score": ("direct_score", "llm"),
    "instag": ("instag", "llm"),
    "pool": ("pool",),
    "clean_pool": ("pool.deduplicate", "pool.mix"),
    "embed": ("embedding",),
    "sentence_embed": ("embedding",),
    "embeddings_file": ("embeddings",),
    "target": ("select.target",),
    "target_embed": ("embedding",),
    "sft_data": ("sft.data",),
    "dpo_data": ("dpo.preferences",),
    "dpo_pairs": ("dpo.preferences.select",),
    "reference": ("dpo.reference",),
    "heldout_data": ("evaluate.heldout",),
    "heldout_pairs": ("evaluate.preferences",),
}
# Sections with stages of their own below them.
_BELOW: Mapping[str, tuple[str, ...]] = {
    "base": ("base.pretrain.data",),
    "sft": ("sft.data",),
    "dpo": ("dpo.preferences", "dpo.reference"),
    "select": ("select.target",),
    "evolve": ("evolve.seeds",),
    "evaluate": (
        "evaluate.heldout", "evaluate.preferences", "evaluate.lm_eval", "evaluate.answers", "evaluate.judged",
        "evaluate.mt_bench", "evaluate.alpaca_eval",
    ),
}  # fmt: skip


def sections_of(label: str) -> tuple[str, ...]:
    """The sections of a recipe that a stage is about, by the stage's label."""
    kind, _, rest = label.partition(".")
    if kind in ("score", "train_scorer", "scores_file"):
        section = "scores" if kind == "scores_file" else "scorers"
        return (f"{section}.{rest}{'.train' if kind == 'train_scorer' else ''}",)
    if kind in ("questions", "generate"):
        return (f"evaluate.{rest.split('.')[0]}",)
    if kind in ("judged", "mt_bench", "alpaca_eval"):
        return (f"evaluate.{kind}", "llm")
    if kind == "lm_eval":
        return ("evaluate.lm_eval",)
    if kind in ("evaluate", "evaluate_pairs", "contamination"):
        return ("evaluate",)
    return _SECTIONS.get(label, _SECTIONS.get(kind, (kind,)))


def rehearsed_stages(labels: Iterable[str], replacements: Sequence[Replacement]) -> list[RehearsedStage]:
    """For each stage of the rehearsal, by its label, what of its sections was replaced."""
    stages = []
    for label in labels:
        sections = sections_of(label)
        of_stage = [one for one in replacements if any(_is_of(one.path, section) for section in sections)]
        told = (Replaced(_name(one.path, sections), one.real, one.stand_in) for one in of_stage)
        stages.append(RehearsedStage(label, tuple(told)))
    return stages


def _name(path: str, sections: Sequence[str]) -> str:
    """A path as it is called within its section."""
    inside = (path.removeprefix(f"{section}.") for section in sections if path.startswith(f"{section}."))
    return next(inside, path)


def _is_of(path: str, section: str) -> bool:
    """Whether a replaced value belongs to a section, and to no stage of its own below it."""
    below = [inner for inner in _BELOW.get(section, ()) if path == inner or path.startswith(f"{inner}.")]
    if section.startswith("scorers.") and not section.endswith(".train"):
        below += [path] if path.startswith(f"{section}.train") else []
    return not below and (path == section or path.startswith(f"{section}."))


def write_account(
    run_dir: Path, recipe: str, stages: Sequence[RehearsedStage], replacements: Sequence[Replacement]
) -> None:
    """Keep the account in the run's folder, by which every table and page of the run is marked."""
    run_dir.mkdir(parents=True, exist_ok=True)
    account: dict[str, Any] = {
        "recipe": recipe,
        "stages": [asdict(stage) for stage in stages],
        "replacements": [asdict(one) for one in replacements],
    }
    write_json_atomically(run_dir / REHEARSAL, account)
