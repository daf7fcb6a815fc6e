"""The trainings of a recipe tried before anything runs, each on a tiny copy of its model."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deita_train.errors import UserError, raise_machine_fault
from deita_train.models.model_shape import whole_config
from deita_train.stages.architecture import check_architecture
from deita_train.stages.kinds import STAGE_KINDS
from deita_train.stages.training.prepared_training import settings_of
from deita_train.stages.validation import StageToValidate
from deita_train.training.arguments import TrainingSettings
from deita_train.training.miniature import miniature_config
from deita_train.training.trial import TrialResult, try_training

_NONE = object()


@dataclass
class TriedTrainings:
    """What was found: mistakes, each with its place in the recipe, and what could not be tried."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def try_trainings(stages: Iterable[StageToValidate], *, elsewhere: bool) -> TriedTrainings:
    """Make the arguments, the optimizer, the scheduler and the loss of every training once, on the CPU.

    Args:
        stages: Stages that have not run; those that do not train are passed over.
        elsewhere: Whether they will run on another machine, whose packages are unknown here.
    """
    found = TriedTrainings()
    known: dict[str, TrialResult] = {}
    for stage in stages:
        if not STAGE_KINDS[stage.kind].trains:
            continue
        model, settings = _model(stage), _settings(stage)
        same = _fingerprint(model.config, settings)
        if same not in known:
            merge = bool(stage.identity.get("merge_adapter"))
            known[same] = try_training(model.config, settings, merge_adapter=merge, elsewhere=elsewhere)
        section = stage.runtime["section"]
        found.problems += [*_refusals(stage, model), *_located(section, known[same])]
        found.notes += [f"{stage.label}: {note}" for note in _notes(model, known[same])]
    # The cells of a sweep share sections.
    return TriedTrainings(list(dict.fromkeys(found.problems)), list(dict.fromkeys(found.notes)))


def _located(section: str, result: TrialResult) -> Iterator[str]:
    for problem in result.problems:
        yield f"{section}.{problem.path}: {problem.text.rstrip('.')}."


def _refusals(stage: StageToValidate, model: "_Model") -> Iterator[str]:
    """What the architecture of a model from outside the run cannot do."""
    if model.folder is None or "model" not in stage.identity:
        return
    try:
        check_architecture(stage.identity, stage.runtime, model.folder, stage.runtime["section"])
    except UserError as error:
        yield str(error)


def _notes(model: "_Model", result: TrialResult) -> Iterator[str]:
    if model.missing is not None:
        yield f"tried on a small LLaMA, because {model.missing}"
    if result.untried is not None:
        yield f"not tried to the end: {result.untried}"


def _settings(stage: StageToValidate) -> TrainingSettings:
    """The training's settings without the trainer fields that are as ever, which are not to blame for anything."""
    settings = settings_of(stage.identity, stage.runtime, "dpo" if stage.kind == "dpo" else "sft")
    usual = {**STAGE_KINDS[stage.kind].implied}
    stated = {name: value for name, value in settings.trainer.items() if usual.get(f"trainer.{name}", _NONE) != value}
    return replace(settings, trainer=stated)


def _fingerprint(config: Any | None, settings: TrainingSettings) -> str:
    """What decides how a trial ends; the cells of a sweep over data have the same."""
    parts = {name: value for name, value in vars(settings).items() if name not in ("seed", "checkpoint_minutes")}
    shape = None if config is None else config.to_dict()
    return json.dumps([shape, parts], sort_keys=True, default=str)


@dataclass(frozen=True)
class _Model:
    """The model that a stage trains.

    Attributes:
        config: its transformers configuration; None where it is not at hand.
        missing: why it is not.
        folder: with its files, if it is a model from outside the run.
    """

    config: Any | None
    missing: str | None = None
    folder: Path | None = None


def _model(stage: StageToValidate) -> _Model:
    source = stage
    while "model" in source.parents:
        source = source.parents["model"]
    if STAGE_KINDS[source.kind].makes_base:
        return _Model(miniature_config(**source.identity["architecture"]))
    identity = source.identity["model"]
    folder = _cached_folder(identity) if "hub" in identity else Path(source.runtime["model"])
    if folder is None:
        return _Model(None, f"the configuration of {identity['hub']} is not on this machine yet")
    try:
        return _Model(whole_config(folder), folder=folder)
    except (ValueError, OSError, KeyError) as error:
        raise_machine_fault(error, folder)
        return _Model(None, f"transformers does not read the configuration of {folder} ({str(error).splitlines()[0]})")


def _cached_folder(identity: Mapping[str, Any]) -> Path | None:
    """The folder with a Hub model's config.json in the local cache; None where it was never downloaded."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(identity["hub"], "config.json", revision=identity["revision"])
    return Path(found).parent if isinstance(found, str) else None
