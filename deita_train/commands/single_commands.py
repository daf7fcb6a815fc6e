"""The single commands: a stage from options in place of a recipe. Nothing heavy is imported before one runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from deita_train.commands.single import Single
    from deita_train.data.outputs import Output
    from deita_train.plan.plan import Plan

Dimension = Literal["complexity", "quality"]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override one value: dotted.path=value. May be repeated.")
]
RunsOption = Annotated[Path, typer.Option("--runs", envvar="DEITA_RUNS", help="Where runs and their artefacts lie.")]
PoolArgument = Annotated[
    str, typer.Argument(help="Conversations: a data file, a save_to_disk folder or a Hub id.", show_default=False)
]
ModelOption = Annotated[str, typer.Option("--model", help="A model's folder or Hub id.", show_default=False)]
DimensionOption = Annotated[Dimension, typer.Option("--dimension", help="What the scorer rates.", show_default=False)]
RowsOption = Annotated[
    str,
    typer.Option(
        "--output", help="A file (.jsonl, .json, each also .gz or .zst, .parquet) or a folder.", show_default=False
    ),
]
CopyOption = Annotated[
    str | None, typer.Option("--output", help="A folder to copy the model to.", show_default="it stays in --runs")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is at --output.")]
DtypeOption = Annotated[
    str | None, typer.Option("--dtype", help="float32 or bfloat16.", show_default="float32 on a CPU, else bfloat16")
]
TokensOption = Annotated[
    int | None,
    typer.Option(
        "--max-batch-tokens", help="Tokens of a batch, padding included.", show_default="what the memory holds"
    ),
]
LaunchOption = Annotated[
    str | None,
    typer.Option(
        "--launch", help="A file of accelerate_configs/ by name, or a path.", show_default="what the machine has"
    ),
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="The seed.", show_default="42")]
BatchOption = Annotated[
    int, typer.Option("--batch", help="Rows of a step over all ranks (global_batch_size).", show_default=False)
]
TrainerOption = Annotated[
    list[str] | None,
    typer.Option("--trainer", help="A field of trl's own: field=value. May be repeated.", show_default=False),
]
TemplateOption = Annotated[
    str | None, typer.Option("--chat-template", help="A name or a .jinja file.", show_default="vicuna_v1.1")
]


def add_commands(app: typer.Typer) -> None:
    """Add the single commands to the command line."""
    for command in (score, embed, select, train_scorer, sft, dpo, evaluate):
        app.command(rich_help_panel="One stage without a recipe")(command)


def score(
    pool: PoolArgument,
    dimension: DimensionOption,
    model: ModelOption,
    output: RowsOption,
    overwrite: OverwriteOption = False,
    dtype: DtypeOption = None,
    max_batch_tokens: TokensOption = None,
    launch: LaunchOption = None,
    sets: SetOption = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Score every turn of a pool by complexity or quality. The same command again continues where it stopped."""
    from deita_train.commands.single import Single, as_options, place, place_file

    section = f"scorers.{dimension}"
    options = as_options(
        ("POOL", "pool.dataset", place(pool)),
        ("--model", f"{section}.model", place(model)),
        ("--dtype", f"{section}.dtype", dtype),
        ("--max-batch-tokens", f"{section}.max_batch_tokens", max_batch_tokens),
        ("--launch", f"{section}.launch", place_file(launch)),
    )
    _table(Single("score", f"score.{dimension}", options, tuple(sets or ())), runs, output, overwrite)


def embed(
    pool: PoolArgument,
    model: ModelOption,
    output: RowsOption,
    overwrite: OverwriteOption = False,
    chat_template: TemplateOption = None,
    dtype: DtypeOption = None,
    max_batch_tokens: TokensOption = None,
    launch: LaunchOption = None,
    sets: SetOption = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Embed every conversation of a pool. The same command again continues where it stopped."""
    from deita_train.commands.single import Single, as_options, place, place_file

    options = as_options(
        ("POOL", "pool.dataset", place(pool)),
        ("--model", "embedding.model", place(model)),
        ("--chat-template", "embedding.chat_template", place_file(chat_template)),
        ("--dtype", "embedding.dtype", dtype),
        ("--max-batch-tokens", "embedding.max_batch_tokens", max_batch_tokens),
        ("--launch", "embedding.launch", place_file(launch)),
    )
    _table(Single("embed", "embed", options, tuple(sets or ())), runs, output, overwrite)


def select(
    pool: PoolArgument,
    output: RowsOption,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget", help="What to keep: 6000 rows, '2%' of them, '5000000 tokens' of SFT.", show_default=False
        ),
    ] = None,
    method: Annotated[str, typer.Option("--method", help="deita, or another method of a recipe's select.")] = "deita",
    scores: Annotated[
        list[str] | None,
        typer.Option("--scores", help="A file that `score` wrote. May be repeated.", show_default=False),
    ] = None,
    embeddings: Annotated[
        str | None, typer.Option("--embeddings", help="The file that `embed` wrote.", show_default=False)
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Highest similarity to a kept row.", show_default="0.9")
    ] = None,
    center: Annotated[bool, typer.Option("--center", help="Subtract the pool's mean embedding first.")] = False,
    tokenizer: Annotated[
        str | None,
        typer.Option("--tokenizer", help="The model by whose tokenizer tokens are counted.", show_default=False),
    ] = None,
    launch: LaunchOption = None,
    seed: SeedOption = None,
    compare: Annotated[
        str | None,
        typer.Option(
            "--compare",
            metavar="METHOD,...",
            help="Select by these methods too, and measure all selections alike.",
            show_default=False,
        ),
    ] = None,
    all_rows: Annotated[bool, typer.Option("--all", help="Write every row, with what became of it.")] = False,
    overwrite: OverwriteOption = False,
    sets: SetOption = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Select rows of a pool, best first: DEITA's ranking and diversity filter, or another method."""
    from deita_train.budget import parse_budget
    from deita_train.commands.comparison_files import ComparisonFiles
    from deita_train.commands.exports import export_selection
    from deita_train.commands.select_options import check_select, compare_options, dimensions_of
    from deita_train.commands.single import Single, as_options, place, place_file
    from deita_train.data.outputs import Output

    target = Output.for_rows(output, overwrite)
    files = None if compare is None else ComparisonFiles.beside(target)
    options = as_options(
        ("POOL", "pool.dataset", place(pool)),
        *(("--scores", f"scores.{name}", place(file)) for name, file in dimensions_of(scores or []).items()),
        ("--embeddings", "embeddings.file", place(embeddings)),
        ("--center", "embeddings.center", center or None),
        ("--method", "select.method", method),
        ("--budget", "select.budget", None if budget is None else parse_budget(budget)),
        ("--budget", "select", None),  # what is wrong with the section as a whole is its budget
        ("--threshold", "select.threshold", threshold),
        ("--tokenizer", "select.read_as.tokenizer", place(tokenizer)),
        ("--launch", "select.launch", place_file(launch)),
        ("--seed", "select.seed", seed),
        ("", "select.allow_fewer", True),
    )
    options += compare_options(compare)
    stated = frozenset(option.name for option in options if option.is_given)
    label = "select" if files is None else "compare"
    single = Single("select", label, options, tuple(sets or ()), lambda recipe: check_select(recipe, stated))
    outputs = [] if files is None else [("compare", file) for file in files.outputs]
    plan, console = _make(single, runs, ("select", target), *outputs)
    export_selection(plan, target, all_rows, console)
    if files is not None:
        files.write(plan, console)


def train_scorer(
    dimension: DimensionOption,
    data: Annotated[str, typer.Option("--data", help="Labelled rows.", show_default=False)],
    model: ModelOption,
    batch: BatchOption,
    heldout: Annotated[
        str | None, typer.Option("--heldout", help="Labelled rows to measure the scorer on.", show_default=False)
    ] = None,
    trainer: TrainerOption = None,
    output: CopyOption = None,
    overwrite: OverwriteOption = False,
    launch: LaunchOption = None,
    seed: SeedOption = None,
    sets: SetOption = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Train a scorer of complexity or quality."""
    from deita_train.commands.single import Single, as_options, place, place_file, trainer_options

    section = f"scorers.{dimension}.train"
    options = as_options(
        ("--data", f"{section}.data.dataset", place(data)),
        ("--heldout", f"{section}.heldout.dataset", place(heldout)),
        ("--model", f"{section}.model", place(model)),
        ("--batch", f"{section}.global_batch_size", batch),
        ("--launch", f"{section}.launch", place_file(launch)),
        ("--seed", f"{section}.seed", seed),
    )
    options += trainer_options(section, trainer or [])
    _model(Single("train-scorer", f"train_scorer.{dimension}", options, tuple(sets or ())), runs, output, overwrite)


def sft(
    data: Annotated[str, typer.Option("--data", help="Conversations to train on.", show_default=False)],
    model: ModelOption,
    batch: BatchOption,
    chat_template: TemplateOption = None,
    trainer: TrainerOption = None,
    output: CopyOption = None,
    overwrite: OverwriteOption = False,
    launch: LaunchOption = None,
    seed: SeedOption = None,
    sets: SetOption = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Fine-tune a model on conversations."""
    from deita_train.commands.single import Single, as_options, place, place_file, trainer_options

    options = as_options(
        ("--data", "sft.data.dataset", place(data)),
        ("--model", "sft.model", place(model)),
        ("--batch", "sft.global_batch_size", batch),
        ("--chat-template", "sft.chat_template", place_file(chat_template)),
        ("--launch", "sft.launch", place_file(launch)),
        ("--seed", "sft.seed", seed),
    )
    options += trainer_options("sft", trainer or [])
    _model(Single("sft", "sft", options, tuple(sets or ())), runs, output, overwrite)


def dpo(
    preferences: Annotated[
        str, typer.Option("--preferences", help="Pairs of a chosen and a rejected answer.", show_default=False)
    ],
    model: ModelOption,
    batch: BatchOption,
    chat_template: TemplateOption = None,
    trainer: TrainerOption = None,
    output: CopyOption = None,
    overwrite: OverwriteOption = False,
    launch: LaunchOption = None,
    seed: SeedOption = None,
    sets: SetOption = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Train a model on preference pairs (DPO)."""
    from deita_train.commands.single import Single, as_options, place, place_file, trainer_options

    options = as_options(
        ("--preferences", "dpo.preferences.dataset", place(preferences)),
        ("--model", "dpo.model", place(model)),
        ("--batch", "dpo.global_batch_size", batch),
        ("--chat-template", "dpo.chat_template", place_file(chat_template)),
        ("--launch", "dpo.launch", place_file(launch)),
        ("--seed", "dpo.seed", seed),
    )
    options += trainer_options("dpo", trainer or [])
    _model(Single("dpo", "dpo", options, tuple(sets or ())), runs, output, overwrite)


def evaluate(
    model: ModelOption,
    heldout: Annotated[
        str | None, typer.Option("--heldout", help="Conversations: loss per assistant token.", show_default=False)
    ] = None,
    preferences: Annotated[
        str | None, typer.Option("--preferences", help="Pairs: which answer is the likelier one.", show_default=False)
    ] = None,
    chat_template: TemplateOption = None,
    dtype: DtypeOption = None,
    max_batch_tokens: TokensOption = None,
    launch: LaunchOption = None,
    sets: SetOption = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Measure a model on held-out conversations, on preference pairs, or on both."""
    from deita_train.commands.exports import print_facts
    from deita_train.commands.single import Single, as_options, place, place_file

    options = as_options(
        ("--model", "evaluate.model", place(model)),
        ("--heldout", "evaluate.heldout.dataset", place(heldout)),
        ("--heldout, --preferences", "evaluate", None),  # what is wrong with the section as a whole
        ("--preferences", "evaluate.preferences.dataset", place(preferences)),
        ("--chat-template", "evaluate.chat_template", place_file(chat_template)),
        ("--dtype", "evaluate.dtype", dtype),
        ("--max-batch-tokens", "evaluate.max_batch_tokens", max_batch_tokens),
        ("--launch", "evaluate.launch", place_file(launch)),
    )
    plan, console = _make(Single("evaluate", None, options, tuple(sets or ())), runs)
    print_facts(plan, console)


def _table(single: "Single", runs: Path, output: str, overwrite: bool) -> None:
    from deita_train.commands.exports import export_table, print_facts
    from deita_train.data.outputs import Output

    target = Output.for_rows(output, overwrite)
    assert single.label is not None
    plan, console = _make(single, runs, (single.label, target))
    print_facts(plan, console)
    export_table(plan, single.label, target, console)


def _model(single: "Single", runs: Path, output: str | None, overwrite: bool) -> None:
    from deita_train.commands.exports import export_model, print_facts
    from deita_train.data.outputs import Output

    target = None if output is None else Output.for_model(output, overwrite)
    assert single.label is not None
    plan, console = _make(single, runs, *([] if target is None else [(single.label, target)]))
    print_facts(plan, console)
    export_model(plan, single.label, target, console)


def _make(single: "Single", runs: Path, *outputs: tuple[str, "Output"]) -> tuple["Plan", "Console"]:
    from rich.console import Console

    from deita_train.commands.single import carry_out

    console = Console()
    try:
        return carry_out(single, runs, outputs, console), console
    except KeyboardInterrupt:
        console.print("stopped; the same command continues from here")
        raise typer.Exit(130) from None
