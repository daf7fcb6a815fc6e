"""One mistake of a user's, as a row of the table."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from bad_input.folder import UsersFolder, lines

# Parts of the recipe that cases replace.
SFT_TRAINER = "{learning_rate: 1e-3, num_train_epochs: 1, max_length: 256}"
SCORER_TRAINER = "{learning_rate: 1e-3, num_train_epochs: 1}"
EMBEDDING = "embedding:\n  model: model"
DATASET = "dataset: pool.jsonl"
# What is published before `sft` can run.
SELECTED = ("pool", "select")
COMMIT = "a" * 40


@dataclass(frozen=True)
class Case:
    """One mistake: what differs from a folder that is right, the command, and what its message holds.

    `recipe` replaces text of the recipe, `files` are written beside it. `made` are the stages that are carried out
    first, `leaves` those that the command itself may publish before it fails. `during` is what is amiss around the
    command. `right` is the command that works once all is right again; the same one when it is empty, none when it is
    None.
    """

    name: str
    command: str
    says: tuple[str, ...]
    recipe: dict[str, str] = field(default_factory=dict)
    files: dict[str, str | bytes | None] = field(default_factory=dict)
    made: tuple[str, ...] = ()
    during: Callable[[UsersFolder], AbstractContextManager] = lambda folder: nullcontext()
    leaves: tuple[str, ...] = ()
    in_process: bool = True
    right: str | None = ""


def in_sft(text: str) -> dict[str, str]:
    """Another line in the section sft."""
    return {"chat_template: vicuna_v1.1": f"chat_template: vicuna_v1.1\n  {text}"}


def template(name: str) -> dict[str, str]:
    """sft with another chat template."""
    return {"chat_template: vicuna_v1.1": f"chat_template: {name}"}


def embedding(model: str) -> dict[str, str]:
    """Embeddings by another model."""
    return {EMBEDDING: f"embedding:\n  model: {model}"}


def scorer(line: str) -> dict[str, str]:
    """Another line in place of the length limit of the scorer's training."""
    return {"max_length: 256\n      global": f"{line}\n      global"}


def pool_rows(*rows: dict) -> dict[str, str]:
    """Another pool."""
    return {"pool.jsonl": lines(*rows)}
