"""The rules by which a rehearsal makes a recipe small. docs/rehearsal.md has them as a table."""

from collections.abc import Mapping
from typing import Any

from deita_train.run.rehearsal.launches import passes, ranks_of, trainings
from deita_train.run.rehearsal.rewriting import NOTHING, Rewriter
from deita_train.run.rehearsal.sites import QUESTIONS, data_sites
from deita_train.selection.settings import DIMENSIONS

LENGTH, SCORER_LENGTH = 1024, 512
BATCH, MICRO_BATCH, EPOCHS, STEPS, ANSWER = 8, 2, 2, 4, 16
BUDGET, SHARE, BUDGET_TOKENS, DRAWN_PAIRS, QUESTIONS_OF_A_TASK = 16, 0.25, 2000, 8, 2
# No similarity is above it.
_ANY_SIMILARITY = 1.5
_LOCAL_TASK = "quickstart_choice"
_WORK, _KNOWS_NOTHING = "a minute's work", "a miniature knows nothing"
_FEW_ROWS = "of so few rows one is a large share"
_OF_GPUS = "needs a GPU"
# Trainer fields that only a GPU can carry out.
_GPU_FIELDS = ("bf16", "fp16", "tf32", "activation_offloading", "dataloader_pin_memory", "use_liger_kernel")


def shrink(recipe: Rewriter, chat_address: str, *, hub_answers: bool) -> None:
    """Apply every rule to a recipe whose models, data and launches are stand-ins already.

    Args:
        recipe: to make small.
        chat_address: of the server that answers in place of every chat model.
        hub_answers: whether tasks of lm-evaluation-harness can get their data.
    """
    for section in trainings(recipe):
        _shrink_training(recipe, section)
    _shrink_passes(recipe)
    _shrink_data(recipe)
    _shrink_selection(recipe)
    _shrink_answers(recipe)
    _shrink_tasks(recipe, hub_answers=hub_answers)
    _put_endpoints(recipe, chat_address)
    _keep_reports_here(recipe)


def _at_most(recipe: Rewriter, path: str, most: int, reason: str, *, default: Any = NOTHING) -> None:
    """Limit a whole number; one that is not stated counts as its default."""
    value = recipe.at(path)
    effective = default if value is None else value
    if isinstance(effective, int | float) and not isinstance(effective, bool) and effective > most:
        recipe.put(path, most, reason, default=default)


def _shrink_training(recipe: Rewriter, section: str) -> None:
    trainer = f"{section}.trainer"
    if recipe.has(trainer):
        for name in _GPU_FIELDS:
            recipe.drop(f"{trainer}.{name}", _OF_GPUS, "what a CPU does")
        recipe.drop(f"{trainer}.model_init_kwargs.attn_implementation", _OF_GPUS, "what a CPU does")
        _at_most(recipe, f"{trainer}.max_steps", STEPS, _WORK)
        _at_most(recipe, f"{trainer}.per_device_train_batch_size", MICRO_BATCH, _WORK)
    recipe.drop(f"{section}.quantization", _OF_GPUS, "no quantization")
    for name in ("layers_to_transform", "layers_pattern"):
        recipe.drop(f"{section}.peft.{name}", "a miniature has few layers", "every layer")
    steps = recipe.at(f"{trainer}.max_steps")
    if not isinstance(steps, int) or steps < 1:
        _put_in_trainer(recipe, section, "num_train_epochs", EPOCHS, 3)
    if section in ("sft", "dpo"):
        _put_in_trainer(recipe, section, "max_length", LENGTH, 2048)
    else:
        _at_most(recipe, f"{section}.max_length", SCORER_LENGTH, _WORK, default=2048)
    _shrink_batch(recipe, section)


def _put_in_trainer(recipe: Rewriter, section: str, name: str, most: int, default: int) -> None:
    stated = recipe.at(f"{section}.trainer.{name}")
    if (default if stated is None else stated) <= most:
        return
    if not recipe.has(f"{section}.trainer"):
        recipe.at(section)["trainer"] = {}
    recipe.put(f"{section}.trainer.{name}", most, _WORK, default=default)


def _shrink_batch(recipe: Rewriter, section: str) -> None:
    """The largest batch up to eight that the ranks and the micro-batch divide."""
    path, micro = f"{section}.global_batch_size", recipe.at(f"{section}.trainer.per_device_train_batch_size")
    unit = ranks_of(recipe, section) * (micro if isinstance(micro, int) else 1)
    stated = recipe.at(path)
    if isinstance(stated, int):
        recipe.put(path, max(min(stated, BATCH) // unit, 1) * unit, _WORK)


def _shrink_passes(recipe: Rewriter) -> None:
    for section in passes(recipe):
        if recipe.at(f"{section}.dtype") == "bfloat16":
            recipe.drop(f"{section}.dtype", "a CPU computes in float32", "float32")
    for section in ("embedding", "perplexity", "evaluate", "select.read_as"):
        if recipe.has(section) and recipe.at(f"{section}.model") != "base" and not _only_asks(recipe, section):
            _at_most(recipe, f"{section}.max_length", LENGTH, _WORK, default=2048)
    for section in ("sft", "dpo", "embedding", "perplexity", "evaluate", "select.read_as"):
        if recipe.has(section) and not _only_asks(recipe, section):
            _at_least(recipe, f"{section}.max_refused_share", 0.5, _FEW_ROWS, 0.01)
    for dimension in DIMENSIONS:
        section = f"scorers.{dimension}"
        if recipe.has(section):
            if not recipe.at(f"{section}.parity"):
                _at_most(recipe, f"{section}.max_length", SCORER_LENGTH, _WORK, default=2048)
            _at_least(recipe, f"{section}.max_unscored_share", 1.0, _FEW_ROWS, 0.01)
            recipe.put(f"{section}.min_digit_mass", 0.0, _KNOWS_NOTHING, default=0.1)


def _only_asks(recipe: Rewriter, section: str) -> bool:
    """Whether a section's model renders nothing here."""
    asks = section == "evaluate" and recipe.has("evaluate.llm")
    return asks or recipe.has(f"{section}.sentence_transformer")


def _at_least(recipe: Rewriter, path: str, least: float, reason: str, default: float) -> None:
    stated = recipe.at(path)
    if (default if stated is None else stated) < least:
        recipe.put(path, least, reason, default=default)


def _shrink_data(recipe: Rewriter) -> None:
    for site in data_sites(recipe):
        section = recipe.at(site.path)
        if section.get("builtin") is not None:
            _at_most(recipe, f"{site.path}.rows", site.rows, _WORK)
        elif section.get("rows") is not None:
            _at_most(recipe, f"{site.path}.rows", site.rows // 2, _WORK)
        elif site.role == "pairs" and section.get("sample") is not None:
            _at_most(recipe, f"{site.path}.sample", min(DRAWN_PAIRS, site.rows // 2), _WORK)
    budget = "dpo.preferences.select.budget"
    _at_most(recipe, budget, DRAWN_PAIRS, _WORK)
    for source in recipe.at("pool.mix.rows") or {}:
        _at_most(recipe, f"pool.mix.rows.{source}", DRAWN_PAIRS, _WORK)


def _shrink_selection(recipe: Rewriter) -> None:
    if not recipe.has("select"):
        return
    budget = recipe.at("select.budget")
    if isinstance(budget, int):
        _at_most(recipe, "select.budget", BUDGET, _WORK)
    elif isinstance(budget, Mapping) and budget.get("share") is not None:
        _at_least(recipe, "select.budget.share", SHARE, "a pool of few rows", 1.0)
    elif isinstance(budget, Mapping):
        _at_most(recipe, "select.budget.tokens", BUDGET_TOKENS, _WORK)
    if budget is not None:
        recipe.put("select.allow_fewer", True, _KNOWS_NOTHING, default=False)
    if recipe.at("select.method", "deita") == "deita":
        recipe.put("select.threshold", _ANY_SIMILARITY, "a miniature's vectors say nothing of similarity", default=0.9)
    for path in ("select.clusters", "select.strata.clusters"):
        _at_most(recipe, path, BUDGET // 2, "a pool of few rows")
    for section in ("embedding", "embeddings"):
        if recipe.at(f"{section}.whiten"):
            _at_most(recipe, f"{section}.whiten_dimensions", BUDGET // 2, "a pool of few rows", default=512)


def _shrink_answers(recipe: Rewriter) -> None:
    for name, default in zip(QUESTIONS, (256, 1024, 1024, 2048), strict=True):
        section = f"evaluate.{name}"
        if isinstance(recipe.at(section), dict):
            _at_most(recipe, f"{section}.max_new_tokens", ANSWER, _WORK, default=default)


def _shrink_tasks(recipe: Rewriter, *, hub_answers: bool) -> None:
    """Two questions of each task; a generated task where those of the Hub are out of reach."""
    section = "evaluate.lm_eval"
    if not recipe.has(section):
        return
    _at_most(recipe, f"{section}.limit", QUESTIONS_OF_A_TASK, _WORK, default=10**9)
    own = recipe.has(f"{section}.include") or recipe.has(f"{section}.data")
    if not hub_answers and not own and recipe.at(f"{section}.tasks") != [_LOCAL_TASK]:
        recipe.put(f"{section}.tasks", [_LOCAL_TASK], "the Hub does not answer, which has the tasks' questions")
        recipe.drop(f"{section}.num_fewshot", "the generated task has no examples", "none")


def _put_endpoints(recipe: Rewriter, address: str) -> None:
    """A server on loopback in the place of every chat model but the quickstart's rules, which ask nobody."""
    for name, endpoint in (recipe.at("llm") or {}).items():
        where = f"llm.{name}"
        if endpoint.get("builtin") is not None:
            continue
        model = endpoint.get("model") or endpoint["local"]
        place = endpoint.get("base_url") or endpoint["local"]
        for field in ("local", "requests_per_minute", "tokens_per_minute"):
            recipe.drop(f"{where}.{field}", "a server of this machine answers", "no limit")
        recipe.at(where)["model"] = model
        reason = "it costs nothing, and answers in the form that is asked for"
        recipe.put(f"{where}.base_url", address, reason, default=place, words="a server on loopback")


def _keep_reports_here(recipe: Rewriter) -> None:
    """Nothing of a rehearsal is sent anywhere, or stands beside a publication's figures."""
    recipe.drop("report", "a rehearsal measures nothing that they could stand beside")
    if recipe.has("wandb") or recipe.at("wandb") == {}:
        recipe.put("wandb.mode", "offline", "nothing is sent", default="online")
    services = recipe.at("report_to")
    if isinstance(services, list) and "trackio" in services:
        kept = [service for service in services if service != "trackio"]
        recipe.put("report_to", kept or ["none"], "nothing is sent")
