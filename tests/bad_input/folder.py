"""A user's folder with a small recipe that is right, and its commands carried out in this process."""

import json
import os
import resource
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from deita_train.cli import main
from deita_train.plan.plan import make_plan
from deita_train.training.miniature import make_model, train_tokenizer

# The line numbers are those of the messages that the cases expect.
RECIPE = """\
name: mine
seed: 7
pool:
  dataset: pool.jsonl
scorers:
  complexity:
    train:
      data: {dataset: labels.jsonl}
      model: model
      max_length: 256
      global_batch_size: 4
      trainer: {learning_rate: 1e-3, num_train_epochs: 1}
embedding:
  model: model
  max_length: 256
select:
  method: random
  budget: 4
sft:
  model: model
  chat_template: vicuna_v1.1
  global_batch_size: 4
  trainer: {learning_rate: 1e-3, num_train_epochs: 1, max_length: 256}
dpo:
  preferences: {dataset: pairs.jsonl}
  global_batch_size: 2
  trainer: {learning_rate: 1e-4, num_train_epochs: 1, max_length: 256}
evaluate:
  heldout: {dataset: heldout.jsonl}
"""
_CHATML = (
    "{% for m in messages %}{{ m['role'] + ': ' }}{% generation %}{{ m['content'] }}{% endgeneration %}{% endfor %}"
)


def lines(*rows: dict) -> str:
    """Rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def chat(number: int, *speakers: str) -> dict:
    """A ShareGPT row whose messages are by `speakers`."""
    said = [{"from": speaker, "value": f"What is {number} plus {turn}?"} for turn, speaker in enumerate(speakers)]
    return {"id": f"row-{number}", "conversations": said}


def labelled(number: int, score: object) -> dict:
    """A row for the complexity scorer."""
    return {"instruction": f"What is {number} plus 2?", "score": score}


def pair(number: int, **changes: object) -> dict:
    """A preference pair; a change to None takes the column away."""
    row = {"prompt": f"What is {number} plus 3?", "chosen": f"It is {number + 3}.", "rejected": "I do not know."}
    return {name: value for name, value in (row | changes).items() if value is not None}


POOL = [chat(number, "human", "gpt") for number in range(8)]
LABELS = [labelled(number, number % 6 + 1) for number in range(8)]
FILES = {
    "recipe.yaml": RECIPE,
    "pool.jsonl": lines(*POOL),
    "heldout.jsonl": lines(*POOL[:3]),
    "labels.jsonl": lines(*LABELS),
    "pairs.jsonl": lines(*(pair(number) for number in range(4))),
}


def make_models(folder: Path) -> None:
    """`model`, a miniature; `merging`, the same with a tokenizer that writes a space and a digit as one token."""
    sums = [f"What is {a} plus {b}? It is {a + b}." for a in range(20) for b in range(20)]
    tokenizer = train_tokenizer(sums, 400, _CHATML, folder / "model")
    shape = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "context_length": 512}
    make_model(tokenizer, **shape, seed=1, folder=folder / "model")
    make_model(tokenizer, **shape, seed=1, folder=folder / "merging")
    merging = Tokenizer(models.BPE())
    merging.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    merging.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    merging.train_from_iterator([" 1 2 3 4 5 6"] * 20, trainer)
    PreTrainedTokenizerFast(tokenizer_object=merging).save_pretrained(folder / "merging")


@dataclass(frozen=True)
class Answer:
    """What a command came to."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class UsersFolder:
    """The working folder of a user, which is this process's at the same time."""

    path: Path
    capture: object

    def write(self, files: dict[str, str | bytes | None]) -> None:
        """Write files; None takes one away."""
        for name, content in files.items():
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                file.unlink(missing_ok=True)
            else:
                file.write_bytes(content.encode() if isinstance(content, str) else content)

    def artefact(self, label: str) -> str:
        """The id of a stage of the recipe as it is."""
        nodes = make_plan(Path("recipe.yaml"), [], Path("runs")).nodes
        return next(node.id for node in nodes if node.label == label)

    def command(self, text: str) -> Answer:
        """Carry out `deita-train <text>`, with `stage LABEL` for the stage's id."""
        name, *rest = text.split()
        arguments = [name, *rest]
        if name == "stage":
            arguments = [name, "recipe.yaml", "--stage", self.artefact(rest[0]) if len(rest) == 1 else rest[1]]
        self.capture.readouterr()
        with patch.object(sys, "argv", ["deita-train", *arguments]):
            code = _exit_code()
        return Answer(code, *self.capture.readouterr())

    def process(self, text: str) -> Answer:
        """Carry out `deita-train <text>` in a process of its own, under this one's limits."""
        command = [sys.executable, "-m", "deita_train.cli", *text.split()]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        return Answer(answer.returncode, answer.stdout, answer.stderr)

    def published(self) -> dict[str, str]:
        """Labels and folders of what is published; the folder of an artefact without a manifest has the label None."""
        found = {}
        for folder in (self.path / "runs" / "store").glob("[!.]*/"):
            manifest = folder / "manifest.json"
            found[json.loads(manifest.read_text())["label"] if manifest.exists() else None] = folder.name
        return found


def _exit_code() -> int:
    try:
        main()
    except SystemExit as end:
        return end.code or 0
    except Exception:
        traceback.print_exc()
        return 1
    return 0


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Let every write that makes a file longer fail, as a full disk does; no privilege is needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Take the right to write in a folder away, where that means anything."""
    folder.chmod(0o555)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write everywhere, as root may")
        yield
    finally:
        folder.chmod(0o755)
