"""The single commands as a literal table: each option with the field of the recipe that it states."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from deita_train.budget import parse_budget
from deita_train.commands.options import REQUIRED, OptionSpec, place, place_of_file, trainer_fields


@dataclass(frozen=True)
class SingleCommand:
    """A command that makes one stage from options.

    Attributes:
        name: as it is typed.
        help: its text in `--help`.
        label: of the stage, with `{dimension}`; None for every stage of the recipe.
        options: in the order of `--help`.
        gives: what it writes or prints once the stage is made.
        names: options to name in messages about fields that no option states alone.
        fixed: what the recipe states besides the options.
    """

    name: str
    help: str
    label: str | None
    options: tuple[OptionSpec, ...]
    gives: Literal["table", "selection", "model", "measures"]
    names: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)


def _score_files(files: list[str]) -> dict[str, str]:
    from deita_train.commands.select_options import dimensions_of

    return {dimension: place(file) for dimension, file in dimensions_of(files).items()}


def _places(files: list[str]) -> list[str]:
    return [place(file) for file in files]


def _methods(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


_POOL = OptionSpec(
    "POOL",
    "pool.dataset",
    "Conversations: a data file, a folder or a pattern of them, a URL or a Hub id.",
    str,
    REQUIRED,
    read=place,
)
_DIMENSION = OptionSpec("--dimension", "", "What the scorer rates.", Literal["complexity", "quality"], REQUIRED)
_FORMATS = "A file (.jsonl, .json, each also .gz or .zst, .parquet) or a folder."
_OVERWRITE = OptionSpec("--overwrite", "", "Replace what is at --output.", bool, False, True)
_OUTPUT = (OptionSpec("--output", "", _FORMATS, str, REQUIRED), _OVERWRITE)


def _data(name: str, section: str, text: str, default: Any = None) -> OptionSpec:
    return OptionSpec(name, f"{section}.dataset", text, default=default, read=place)


def _model(section: str) -> OptionSpec:
    return OptionSpec("--model", f"{section}.model", "A model's folder or Hub id.", str, REQUIRED, read=place)


def _batch(section: str) -> OptionSpec:
    text = "Rows of a step over all ranks (global_batch_size)."
    return OptionSpec("--batch", f"{section}.global_batch_size", text, int, REQUIRED)


def _chat_template(section: str) -> OptionSpec:
    text = "A name or a .jinja file."
    return OptionSpec(
        "--chat-template",
        f"{section}.chat_template",
        text,
        shown="the model's own, else vicuna_v1.1",
        read=place_of_file,
    )


def _launch(section: str) -> OptionSpec:
    text = "A file of accelerate_configs/ by name, or a path."
    return OptionSpec("--launch", f"{section}.launch", text, shown="what the machine has", read=place_of_file)


def _seed(section: str) -> OptionSpec:
    return OptionSpec("--seed", f"{section}.seed", "The seed.", int, shown="42")


def _inference(section: str) -> tuple[OptionSpec, ...]:
    dtypes, memory = "float32 on a CPU, else bfloat16", "what the memory holds"
    tokens = "Tokens of a batch, padding included."
    return (
        OptionSpec("--dtype", f"{section}.dtype", "float32 or bfloat16.", shown=dtypes),
        OptionSpec("--max-batch-tokens", f"{section}.max_batch_tokens", tokens, int, shown=memory),
        _launch(section),
    )


def _training(section: str) -> tuple[OptionSpec, ...]:
    text = "A field of trl's own: field=value. May be repeated."
    trainer = OptionSpec(
        "--trainer", f"{section}.trainer", text, list[str], read=trainer_fields, entries="--trainer {}"
    )
    copy = OptionSpec("--output", "", "A folder to copy the model to.", shown="it stays in --runs")
    return (trainer, copy, _OVERWRITE, _launch(section), _seed(section))


_SELECT = (
    _POOL,
    _OUTPUT[0],
    OptionSpec(
        "--budget", "select.budget", "What to keep: 6000 rows, '2%' of them, '5000000 tokens' of SFT.",
        read=parse_budget,
    ),
    OptionSpec("--method", "select.method", "deita, or another method of a recipe's select.", str, "deita", True),
    OptionSpec(
        "--scores", "scores", "A file that `score` wrote. May be repeated.", list[str], read=_score_files,
        entries="--scores",
    ),
    OptionSpec("--embeddings", "embeddings.file", "The file that `embed` wrote.", read=place),
    OptionSpec("--threshold", "select.threshold", "Highest similarity to a kept row.", float, shown="0.9"),
    OptionSpec("--center", "embeddings.center", "Subtract the pool's mean embedding first.", bool, False, True),
    OptionSpec(
        "--tokenizer", "select.read_as.tokenizer", "The model by whose tokenizer tokens are counted.", read=place
    ),
    OptionSpec(
        "--decontaminate", "select.decontaminate",
        "A file of questions; rows that repeat one are removed. May be repeated.", list[str], read=_places,
    ),
    _launch("select"),
    _seed("select"),
    OptionSpec(
        "--compare", "compare.methods", "Select by these methods too, and measure all selections alike.",
        read=_methods, metavar="METHOD,...",
    ),
    OptionSpec("--all", "", "Write every row, with what became of it.", bool, False, True),
    _OVERWRITE,
)  # fmt: skip
_CONTINUES = "The same command again continues where it stopped."
COMMANDS = (
    SingleCommand(
        "score",
        f"Score every turn of a pool by complexity or quality. {_CONTINUES}",
        "score.{dimension}",
        (_POOL, _DIMENSION, _model("scorers.{dimension}"), *_OUTPUT, *_inference("scorers.{dimension}")),
        "table",
    ),
    SingleCommand(
        "embed",
        f"Embed every conversation of a pool. {_CONTINUES}",
        "embed",
        (_POOL, _model("embedding"), *_OUTPUT, _chat_template("embedding"), *_inference("embedding")),
        "table",
    ),
    SingleCommand(
        "select",
        "Select rows of a pool, best first: DEITA's ranking and diversity filter, or another method.",
        "select",
        _SELECT,
        "selection",
        names={"select": "--budget", "compare": "--compare"},
        fixed={"select.allow_fewer": True},
    ),
    SingleCommand(
        "evolve",
        f"Make labels for a scorer with a chat model, from seeds. {_CONTINUES}",
        "rank.{dimension}",
        (
            OptionSpec(
                "SEEDS",
                "evolve.seeds.dataset",
                "Conversations whose first exchange is a seed: a data file, a folder or "
                "a pattern of them, a URL or a Hub id.",
                str,
                REQUIRED,
                read=place,
            ),
            OptionSpec(
                "--dimension",
                "",
                "What is evolved: the instruction, or the answer.",
                Literal["complexity", "quality"],
                REQUIRED,
            ),
            OptionSpec(
                "--base-url",
                "llm.judge.base_url",
                "A server that speaks the OpenAI protocol, such as http://localhost:8000/v1.",
            ),
            OptionSpec("--model", "llm.judge.model", "The model's name at that server."),
            OptionSpec("--local", "llm.judge.local", "A model's folder or Hub id instead of a server.", read=place),
            OptionSpec("--api-key-env", "llm.judge.api_key_env", "The environment variable with the server's key."),
            *_OUTPUT,
            OptionSpec("--evolutions", "evolve.{dimension}.evolutions", "Versions made of each seed.", int, 5, True),
            OptionSpec("--orders", "evolve.{dimension}.orders", "Orders in which versions are ranked.", int, shown="1"),
            _seed("evolve"),
        ),
        "table",
        names={"llm.judge": "--base-url, --model, --local"},
        fixed={"evolve.llm": "judge", "llm.judge": {}},
    ),
    SingleCommand(
        "train-scorer",
        "Train a scorer of complexity or quality.",
        "train_scorer.{dimension}",
        (
            _DIMENSION,
            _data("--data", "scorers.{dimension}.train.data", "Labelled rows.", REQUIRED),
            _model("scorers.{dimension}.train"),
            _batch("scorers.{dimension}.train"),
            _data("--heldout", "scorers.{dimension}.train.heldout", "Labelled rows to measure the scorer on."),
            *_training("scorers.{dimension}.train"),
        ),
        "model",
    ),
    SingleCommand(
        "sft",
        "Fine-tune a model on conversations.",
        "sft",
        (
            _data("--data", "sft.data", "Conversations to train on.", REQUIRED),
            _model("sft"),
            _batch("sft"),
            _chat_template("sft"),
            *_training("sft"),
        ),
        "model",
    ),
    SingleCommand(
        "dpo",
        "Train a model on preference pairs (DPO).",
        "dpo",
        (
            _data("--preferences", "dpo.preferences", "Pairs of a chosen and a rejected answer.", REQUIRED),
            _model("dpo"),
            _batch("dpo"),
            _chat_template("dpo"),
            *_training("dpo"),
        ),
        "model",
    ),
    SingleCommand(
        "evaluate",
        "Measure a model on held-out conversations and preference pairs, and have it answer questions.",
        None,
        (
            _model("evaluate"),
            OptionSpec(
                "--against",
                "",
                "Another model, measured on the same rows and pairs: how far --model is from it.",
                metavar="MODEL",
            ),
            _data("--heldout", "evaluate.heldout", "Conversations: loss per assistant token."),
            _data("--preferences", "evaluate.preferences", "Pairs: which answer is the likelier one."),
            _data("--questions", "evaluate.answers.questions", "Questions to answer: prompts, MT-Bench's file, ..."),
            OptionSpec("--output", "", f"Where the answers to --questions are written. {_FORMATS}"),
            _OVERWRITE,
            _chat_template("evaluate"),
            *_inference("evaluate"),
        ),
        "measures",
        names={"evaluate": "--heldout, --preferences, --questions"},
    ),
)
