"""The last models of several runs side by side, and how far apart they are on the same questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import datasets

from deita_train.evaluation.results import (
    PairedDifference,
    Result,
    Unit,
    mean_of_sums,
    mean_result,
    paired_difference,
    paired_difference_of_sums,
)
from deita_train.report.results.benchmarks import MODELS, RESULTS, results_of, scores_of, unit_of
from deita_train.report.results.summary import Artefact

LOSS, PAIRS = "evaluate", "evaluate_pairs"
_TITLES = {LOSS: "Held-out rows", PAIRS: "Held-out pairs"}
# Of a judge's settings those that do not change what its scores mean: whose answers, and what only repeats draw.
_OF_THE_RUN = frozenset({"answers_of", "ask_again", "seed"})
_OF_A_TASK = ("digest", "shots", "version")
# Of the settings of answers, those that are the benchmark's and not the model's.
_OF_ANSWERS = ("max_new_tokens", "temperature")


@dataclass(frozen=True)
class ComparedRun:
    """A run by the name that tables give it, and the stages of its base cell; or a single model by its own name.

    `published` has published figures beside the run's own, as rows of a table.
    """

    name: str
    stages: Mapping[str, Artefact]
    is_model: bool = False
    published: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Entry:
    """The last model of a run that a benchmark measured; `name` is the run's with the model's.

    `by_id` has the artefacts of the run, among which are those that this one was made from.
    """

    run: str
    name: str
    artefact: Artefact
    by_id: Mapping[str, Artefact]

    def parent(self, role: str) -> Artefact:
        """What the artefact was made from in this role."""
        return self.by_id[self.artefact.manifest["parents"][role]]


@dataclass(frozen=True)
class Compared:
    """One benchmark, with the runs that have it in their order; held-out rows and pairs are benchmarks here."""

    label: str
    title: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class RunDifference:
    """A later run's model minus the first run's, over the same questions; or why the two are not paired.

    Attributes:
        task: of a benchmark with several; empty for one without.
        later: the model whose mean comes first.
        first: the model whose mean is subtracted.
        difference: None where the two are not paired.
        unit: of the difference.
        refusal: what differs, where they are not paired.
    """

    task: str
    later: str
    first: str
    difference: PairedDifference | None = None
    unit: Unit = "score"
    refusal: str = ""


def compared_benchmarks(runs: Sequence[ComparedRun]) -> list[Compared]:
    """Everything that at least one run measured a model by, held-out rows and pairs first."""
    labels = dict.fromkeys([LOSS, PAIRS])
    labels |= dict.fromkeys(
        label.rpartition(".")[0] for run in runs for label, item in run.stages.items() if item.metrics.get(RESULTS)
    )
    found = []
    for label in labels:
        entries = tuple(entry for run in runs if (entry := _last(run, label)) is not None)
        if entries:
            title = _TITLES.get(label) or entries[0].artefact.metrics.get("title", label)
            found.append(Compared(label, title, entries))
    return found


def _last(run: ComparedRun, label: str) -> Entry | None:
    measured = [model for model in MODELS if f"{label}.{model}" in run.stages]
    if not measured:
        return None
    name = run.name if run.is_model else f"{run.name} ({MODELS[measured[-1]]})"
    by_id = {item.id: item for item in run.stages.values()}
    return Entry(run.name, name, run.stages[f"{label}.{measured[-1]}"], by_id)


def figures_of(label: str, item: Artefact) -> dict[str, Result]:
    """The figures of an artefact by name, with intervals over questions, rows or pairs."""
    if label == LOSS:
        sums, tokens = _losses(item)
        loss = mean_of_sums(list(sums.values()), list(tokens.values()), "number", higher_is_better=False)
        return {"loss per token": loss}
    if label == PAIRS:
        return {"preference accuracy": mean_result(list(_preferences(item).values()), "share")}
    return results_of(item)


def differences_from_first(runs: Sequence[ComparedRun], compared: Compared) -> Iterator[RunDifference]:
    """Each later run against the first one; nothing where the first run has no such benchmark."""
    first, *others = compared.entries
    if first.run != runs[0].name:
        return
    for later in others:
        yield from _differences(compared.label, later, first)


def _differences(label: str, later: Entry, first: Entry) -> Iterator[RunDifference]:
    of, against = later.artefact, first.artefact
    if label in (LOSS, PAIRS):
        refusal = _other_rows(of, against, "row" if label == LOSS else "pair")
    else:
        refusal = _otherwise_asked(later, first)
    if refusal:
        yield RunDifference("", later.name, first.name, refusal=refusal)
    elif label == LOSS:
        sums, tokens = _losses(of)
        found = paired_difference_of_sums(sums, _losses(against)[0], tokens)
        yield RunDifference("", later.name, first.name, found, "number")
    elif label == PAIRS:
        pairs = paired_difference(_preferences(of), _preferences(against))
        yield RunDifference("", later.name, first.name, pairs, "share")
    else:
        yield from _task_differences(later, first)


def _task_differences(later: Entry, first: Entry) -> Iterator[RunDifference]:
    scores, earlier = scores_of(later.artefact), scores_of(first.artefact)
    for task in dict.fromkeys([*earlier, *scores]):
        found, refusal = None, _other_task(task, later.artefact, first.artefact)
        if not refusal:
            found = paired_difference(scores.get(task, {}), earlier.get(task, {}))
            refusal = "" if found is not None else "no question has a score of both"
        yield RunDifference(task, later.name, first.name, found, unit_of(later.artefact, task), refusal)


def _other_task(task: str, of: Artefact, against: Artefact) -> str:
    """What differs between the tasks of the harness that a figure is over; empty where nothing does."""
    ours, theirs = (_tasks(task, item) for item in (of, against))
    if ours.keys() != theirs.keys():
        return "the tasks are others"
    for name, words in zip(_OF_A_TASK, ("the questions", "the numbers of examples", "the versions"), strict=True):
        if any(ours[member].get(name) != theirs[member].get(name) for member in ours):
            return f"{words} differ"
    return ""


def _tasks(task: str, item: Artefact) -> dict[str, Mapping[str, object]]:
    """The facts of a task, or of all tasks of a group."""
    tasks = item.metrics.get("tasks", {})
    return {name: facts for name, facts in tasks.items() if name == task or name.startswith(f"{task}_")}


def _otherwise_asked(later: Entry, first: Entry) -> str:
    """What differs between two measurements besides the model; empty where nothing does."""
    of, against = later.artefact, first.artefact
    if "tasks" in of.metrics and "tasks" in against.metrics:
        return _otherwise_run(of, against)
    if refusal := _other_ids(_question_ids(of), _question_ids(against), "question"):
        return refusal
    # Generated questions have the same names with every seed.
    contents = {str(entry.parent("questions").manifest["content_digest"]) for entry in (later, first)}
    if len(contents) > 1:
        return "the questions differ under the same names"
    return _otherwise_answered(later, first) or _otherwise_judged(of, against)


def _otherwise_run(of: Artefact, against: Artefact) -> str:
    """What differs between the ways in which the harness asked; two templates are two models."""
    ours, theirs = (item.manifest["config"] for item in (of, against))
    if ours["harness"] != theirs["harness"]:
        return "the versions of the harness differ"
    if (ours["chat_template"] is None) != (theirs["chat_template"] is None):
        return "only one was asked through a chat template"
    if ours["seed"] != theirs["seed"] and any(task["shots"] for task in of.metrics["tasks"].values()):
        return "the examples are drawn by other seeds"
    return ""


def _otherwise_answered(later: Entry, first: Entry) -> str:
    """What differs between the settings of two models' answers; an endpoint's have the same two."""
    ours, theirs = (entry.parent("answers").manifest["config"] for entry in (later, first))
    differing = [name for name in _OF_ANSWERS if ours[name] != theirs[name]]
    return f"they were answered otherwise ({', '.join(differing)})" if differing else ""


def _otherwise_judged(of: Artefact, against: Artefact) -> str:
    """What differs between the judges of two models' answers."""
    ours, theirs = (item.manifest["config"] for item in (of, against))
    names = sorted((ours.keys() | theirs.keys()) - _OF_THE_RUN)
    differing = [name for name in names if ours.get(name) != theirs.get(name)]
    if differing:
        return f"they are judged otherwise ({', '.join(differing)})"
    if of.manifest["parents"].get("baseline") != against.manifest["parents"].get("baseline"):
        return "they are compared with other answers"
    return ""


def _other_rows(of: Artefact, against: Artefact, noun: str) -> str:
    """What differs between the rows of two models; tokens tell rows of one name, and tokenizers, apart."""
    ours, theirs = _tokens(of), _tokens(against)
    if refusal := _other_ids(set(ours), set(theirs), noun):
        return refusal
    differing = sum(ours[name] != theirs[name] for name in ours)
    return f"{differing:,} of {len(ours):,} {noun}s have other numbers of tokens" if differing else ""


def _other_ids(ours: set[str], theirs: set[str], noun: str) -> str:
    if ours == theirs:
        return ""
    only, missing = len(ours - theirs), len(theirs - ours)
    return f"the {noun}s differ ({only:,} only of the one, {missing:,} only of the other)"


def _table(item: Artefact) -> datasets.Dataset:
    return datasets.load_from_disk(str(item.folder / "data"))


def _question_ids(item: Artefact) -> set[str]:
    table = _table(item)
    return set(table["question_id" if "question_id" in table.column_names else "id"])


def _losses(item: Artefact) -> tuple[dict[str, float], dict[str, int]]:
    """Of each held-out row its summed loss, and its tokens."""
    table = _table(item)
    return dict(zip(table["id"], table["loss"], strict=True)), dict(zip(table["id"], table["tokens"], strict=True))


def _tokens(item: Artefact) -> dict[str, tuple[int, ...]]:
    """Of each held-out row or pair the tokens that are measured."""
    table = _table(item)
    names = [name for name in ("tokens", "chosen_tokens", "rejected_tokens") if name in table.column_names]
    return dict(zip(table["id"], zip(*(table[name] for name in names), strict=True), strict=True))


def _preferences(item: Artefact) -> dict[str, float]:
    """Of each pair with tokens of both answers, 1 where the chosen one is the likelier, otherwise 0."""
    return {
        row["id"]: float(row["chosen_log_prob"] > row["rejected_log_prob"])
        for row in _table(item)
        if row["chosen_tokens"] > 0 and row["rejected_tokens"] > 0
    }
