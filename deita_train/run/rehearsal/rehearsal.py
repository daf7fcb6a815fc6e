"""Carries out a recipe as a rehearsal: checked at its real size, made small, and run as any other recipe.

What the real run would refuse is refused here: the recipe is loaded and planned at its real size, and its trainings
are tried by their own settings, before anything is made small.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from deita_train.data.places import find_place
from deita_train.errors import UserError
from deita_train.llm.loopback import loopback_server
from deita_train.plan.launch import count_gpus, resolve_launch
from deita_train.plan.plan import Plan, make_plan, plan_recipe
from deita_train.recipe.loading import LoadedRecipe, load_data, recipe_of
from deita_train.recipe.shipped import files_of_yours
from deita_train.recipe.yaml_text import to_yaml
from deita_train.run.child.logs import user_error_in
from deita_train.run.children import Children
from deita_train.run.display import Display
from deita_train.run.rehearsal.account import rehearsed_stages, write_account
from deita_train.run.rehearsal.at_hand import Reach
from deita_train.run.rehearsal.launches import needs_gpus, put_twins
from deita_train.run.rehearsal.real_words import RealNames
from deita_train.run.rehearsal.rewriting import Replacement, Rewriter, rewritten, variants
from deita_train.run.rehearsal.shrinking import shrink
from deita_train.run.rehearsal.sites import data_sites
from deita_train.run.rehearsal.stand_ins import Request, StandIns, as_plain, put_real, put_small, request_for
from deita_train.run.runner import Outcome, run_plan
from deita_train.run.trials import try_trainings
from deita_train.store.atomic_io import read_json, remove_tree, write_text_atomically
from deita_train.store.locks import hold
from deita_train.store.rehearsals import MARK

FOLDER = "rehearsals"
# Of a recipe with a launch for GPUs on a machine that has none, unless the command says how many there will be.
_ASSUMED_GPUS = 2
_HEAD = "# REHEARSAL of {path}, made by `deita-train run --rehearse`: see docs/rehearsal.md.\n"


@dataclass(frozen=True)
class Rehearsal:
    """A rehearsal that has been carried out: its plan, and how its run ended."""

    plan: Plan
    outcome: Outcome


def rehearse(
    recipe: Path, sets: Sequence[str], runs_dir: Path, console: Console, *,
    until: str | None = None, gpus: int | None = None,
) -> Rehearsal:  # fmt: skip
    """Carry out a recipe with stand-ins, in a runs folder of its own that each rehearsal begins anew.

    Args:
        recipe: the recipe.
        sets: `--set` overrides.
        runs_dir: the folder of all runs; the rehearsal's is `rehearsals/<name>` in it.
        console: shows the progress.
        until: the last stage, by kind or label; None for all.
        gpus: GPUs of each machine of the real run; None counts this machine's, or takes two where a launch needs some.

    Raises:
        UserError: what the real run would refuse, or a stage's mistake, in the words of the real recipe.
        StageFailed: a stage failed for another reason.
    """
    data, positions = load_data(recipe, sets)
    loaded = recipe_of(data, recipe, positions, sets)
    folder = (runs_dir / FOLDER / loaded.recipe.name).absolute()
    real_gpus = _planned_gpus(data, gpus)
    with _gpus_hidden(), hold(folder.with_name(f".{folder.name}.lock"), None, f"the rehearsal of {recipe}"):
        remove_tree(folder)
        folder.mkdir(parents=True)
        return _Rehearsing(loaded, data, folder, console, until).carry_out(real_gpus)


def _planned_gpus(data: dict[str, Any], stated: int | None) -> int:
    """How many GPUs each machine of the real run has."""
    if stated is not None:
        return stated
    return count_gpus() or (_ASSUMED_GPUS if needs_gpus(Rewriter(data)) else 0)


@contextmanager
def _gpus_hidden() -> Iterator[None]:
    """Children that are started within see no GPU, and reach a server of this machine without a proxy."""
    names = {"CUDA_VISIBLE_DEVICES": "", "NO_PROXY": f"{os.environ.get('NO_PROXY', '')},127.0.0.1".lstrip(",")}
    before = {name: os.environ.get(name) for name in names}
    os.environ |= names
    _forget_gpus()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        _forget_gpus()


def _forget_gpus() -> None:
    """What was counted of them, and what followed from it."""
    count_gpus.cache_clear()
    resolve_launch.cache_clear()


class _Rehearsing:
    """One rehearsal of a loaded recipe."""

    def __init__(
        self, loaded: LoadedRecipe, data: dict[str, Any], folder: Path, console: Console, until: str | None
    ) -> None:
        self._loaded = loaded
        self._data = data
        self._folder = folder
        self._console = console
        self._until = until
        self._recipe_file = folder / "recipe.yaml"

    def carry_out(self, gpus: int) -> Rehearsal:
        reach = Reach()
        display = Display(self._console, total=2)
        children = Children(threads=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
        request = request_for(self._data, reach)
        if request.is_complete:
            self._real_plan(StandIns({}, {}, {}), gpus)  # refuses at once what planning refuses
        else:
            self._refuse_missing_data()
        made = self._make_stand_ins(request, children, display)
        names = RealNames(self._loaded, self._recipe_file, made.real_names())
        with names.in_errors():
            self._try_trainings(self._real_plan(made, gpus), children, display)
            with loopback_server() as address:
                small, replacements = made_small(self._data, made, address, hub_answers=reach.hub_answers)
                small["name"] = f"{MARK}-{small['name']}"
                head = _HEAD.format(path=self._loaded.path)
                write_text_atomically(self._recipe_file, head + to_yaml(small))
                plan = make_plan(self._recipe_file, [], self._folder, self._until)
                labels = dict.fromkeys(label for cell in plan.cells for label in cell.nodes)
                stages = rehearsed_stages(labels, replacements)
                write_account(plan.run_dir, str(self._loaded.path), stages, replacements)
                outcome = run_plan(plan, self._console)
        return Rehearsal(plan, Outcome(outcome.page, None if outcome.error is None else names.of(outcome.error)))

    def _refuse_missing_data(self) -> None:
        """Refuse data that is nowhere before stand-ins are made for what only the Hub has.

        Raises:
            UserError: as planning the real run does.
        """
        for variant in variants(self._data):
            recipe = Rewriter(variant)
            for site in data_sites(recipe):
                dataset, where = recipe.at(f"{site.path}.dataset"), f"{site.path}.dataset"
                try:
                    if dataset == "" or (dataset is not None and not Path(dataset).expanduser().exists()):
                        find_place(dataset)
                except UserError as error:
                    yours = files_of_yours(self._loaded.path, where)
                    raise self._loaded.problem(where, f"{error}{yours}") from error

    def _make_stand_ins(self, request: Request, children: Children, display: Display) -> StandIns:
        """Miniatures and small files, made in a child."""
        display.start("loading libraries, making stand-ins", "", None)
        result, log = self._folder / "made.json", self._folder / "made.log"
        children.load_libraries(display.tick)
        code = children.stand_ins(as_plain(request), self._folder / "made", result, log, display.tick)
        if code != 0:
            display.finish("failed")
            mistake = user_error_in(log) if code == UserError.exit_code else None
            assert mistake is not None, f"the stand-ins of the rehearsal could not be made: {log} says why"
            raise UserError(mistake)
        display.finish(f"{len(request.models)} models, {len(request.data) + len(request.tables)} datasets")
        return StandIns(**read_json(result))

    def _real_plan(self, made: StandIns, gpus: int) -> Plan:
        """The plan of the recipe at its real size, with stand-ins only where nothing is at hand.

        Raises:
            UserError: what planning the real run refuses.
        """
        data, _ = rewritten(self._data, partial(put_real, made=made), few=False)
        real = recipe_of(data, self._loaded.path, self._loaded.positions, self._loaded.sets)
        return plan_recipe(real, self._folder, self._until, gpus)

    def _try_trainings(self, plan: Plan, children: Children, display: Display) -> None:
        """Try the trainings of the real plan as they are stated.

        Raises:
            UserError: what would stop one.
        """
        display.start("trainings at their real settings", "", None)
        try:
            display.finish(try_trainings(plan, {node.id for node in plan.nodes}, children, display))
        except BaseException:
            display.finish("stopped")
            raise
        shutil.rmtree(plan.run_dir, ignore_errors=True)


def made_small(
    data: dict[str, Any], made: StandIns, address: str, *, hub_answers: bool
) -> tuple[dict[str, Any], list[Replacement]]:
    """The recipe that a rehearsal carries out: stand-ins, twins of launches, small numbers; and what was replaced.

    Args:
        data: the recipe's plain data, with its sweep.
        made: the stand-ins.
        address: of the server that answers in place of every chat model.
        hub_answers: whether what only the Hub has can be read.
    """

    def rule(recipe: Rewriter) -> None:
        put_small(recipe, made)
        put_twins(recipe)
        shrink(recipe, address, hub_answers=hub_answers)

    return rewritten(data, rule, few=True)
