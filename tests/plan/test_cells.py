"""The parts of a sweep: which artefacts each has, and the commands and the script that carry out all of them."""

import os
import shlex
import stat
import subprocess

import pytest
from tiny_recipe import LABELS, no_gpus, plan, recipe  # noqa: F401

from deita_train.commands.slurm import slurm_script
from deita_train.errors import UserError
from deita_train.plan import launch
from deita_train.plan.cells import cell_commands, cell_nodes

pytestmark = pytest.mark.usefixtures("no_gpus")
SWEEP = {"select.method": ["random", "longest_response"], "sft.seed": [1, 2], "until": "sft"}
CELLS = [f"{method}, seed {seed}" for method in ("random", "longest_response") for seed in (1, 2)]
SHARED = ["pretraining_data", "base", "pool"]
# What stands in for `deita-train` in the printed shell lines: it writes its arguments, one per line.
STUB = '#!/bin/bash\nprintf "%s\\n" "$@" >> "$CALLS"\necho --- >> "$CALLS"\n'


def labels(made, cell):
    return [node.label for node in cell_nodes(made, cell)]


def test_what_cells_share_is_what_two_or_more_need(tmp_path):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    nodes = cell_nodes(made, "shared")
    assert [(node.label, made.cell_name(node)) for node in nodes] == [
        *((label, "") for label in SHARED),
        ("select", "random, seed 1 and 1 other"),
        ("select", "longest_response, seed 1 and 1 other"),
    ]


def test_a_cell_by_label_and_by_number(tmp_path):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    assert labels(made, "0") == labels(made, "base run") == LABELS
    for number, cell in enumerate(CELLS, 1):
        assert cell_nodes(made, cell) == cell_nodes(made, str(number))
        assert labels(made, cell) == [*SHARED, "select", "sft"]
    assert cell_nodes(made, "1")[-1].identity["seed"] == 1
    assert cell_nodes(made, "3")[-2].identity["method"] == "longest_response"


def test_the_shared_part_and_the_cells_are_the_whole_plan(tmp_path):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    parts = [cell_nodes(made, part) for part in ("shared", "0", "1", "2", "3", "4")]
    assert {node.key for part in parts for node in part} == {node.key for node in made.nodes}


@pytest.mark.parametrize("cell", ["5", "-1", "random", "", "Shared"])
def test_an_unknown_cell_is_refused_with_the_known_ones(tmp_path, cell):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    with pytest.raises(UserError) as caught:
        cell_nodes(made, cell)
    message = str(caught.value)
    assert message.startswith(f"--cell {cell}: {tmp_path / 'recipe.yaml'} has no such cell")
    assert message.endswith(
        "Give shared, or one of these by number or label: 0 'base run'; 1 'random, seed 1'; 2 'random, seed 2'; "
        "3 'longest_response, seed 1'; 4 'longest_response, seed 2'."
    )
    assert ("did you mean 'random, seed 1'?" in message) == (cell == "random")


def test_a_long_list_of_cells_is_cut_short(tmp_path):
    made = plan(tmp_path, recipe(sweep={"sft.seed": list(range(30)), "until": "sft"}))
    with pytest.raises(UserError, match=r"; 19 'seed 18' and 11 more\.$"):
        cell_nodes(made, "x")


def test_a_recipe_without_a_sweep_has_no_cells(tmp_path):
    made = plan(tmp_path, recipe())
    for option, ask in (
        ("--cell", lambda: cell_nodes(made, "0")),
        ("--commands", lambda: cell_commands(made, None)),
        ("--slurm", lambda: slurm_script(made, None)),
    ):
        with pytest.raises(UserError) as caught:
            ask()
        assert str(caught.value) == (
            f"{option}: {tmp_path / 'recipe.yaml'} has no sweep:, so it has one cell only. Leave {option} out."
        )


def test_the_commands_by_hand(tmp_path):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    run = f"deita-train run {tmp_path / 'recipe.yaml'} --runs {tmp_path / 'runs'}"
    assert cell_commands(made, None) == [
        f"{run} --cell shared",
        f"{run} --cell 'base run'",
        f"{run} --cell 'random, seed 1'",
        f"{run} --cell 'random, seed 2'",
        f"{run} --cell 'longest_response, seed 1'",
        f"{run} --cell 'longest_response, seed 2'",
        run,
    ]
    assert cell_commands(made, "select")[-1] == f"{run} --until select"


AWKWARD = ['description=it\'s a "test" of $HOME, `x` & more', "sft.trainer={learning_rate: 0.5}"]


@pytest.fixture
def awkward(tmp_path):
    """A plan whose folder and settings want quoting."""
    folder = tmp_path / "my runs; $x"
    folder.mkdir()
    return plan(folder, recipe(sweep=SWEEP), *AWKWARD)


@pytest.fixture
def shell(tmp_path):
    """Run a shell with a `deita-train` that only writes down its arguments; they are returned call by call."""
    (tmp_path / "bin").mkdir()
    stub = tmp_path / "bin" / "deita-train"
    stub.write_text(STUB)
    stub.chmod(stub.stat().st_mode | stat.S_IXUSR)

    def shell(*command, **variables):
        calls = tmp_path / "calls"
        calls.write_text("")
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        environment = {"PATH": path, "HOME": "/", "CALLS": str(calls), **variables}
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return answer, [call.splitlines() for call in calls.read_text().split("---\n")[:-1]]

    return shell


def arguments(made, *rest):
    return ["run", *made.arguments(), *rest]


def test_the_shell_reads_the_commands_as_they_were_meant(awkward, shell):
    parts = ["shared", "base run", *CELLS]
    _, calls = shell("bash", "-c", "\n".join(cell_commands(awkward, "sft")))
    assert calls == [
        *(arguments(awkward, "--until", "sft", "--cell", part) for part in parts),
        arguments(awkward, "--until", "sft"),
    ]


@pytest.fixture
def script(awkward, tmp_path):
    path = tmp_path / "job.sbatch"
    path.write_text(slurm_script(awkward, None))
    return str(path)


def test_the_script_is_bash(script, shell):
    answer, _ = shell("bash", "-n", script)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_each_task_of_the_script_is_one_cell(awkward, script, shell):
    for task, cell in enumerate(["base run", *CELLS], 1):
        answer, calls = shell("bash", script, SLURM_ARRAY_TASK_ID=str(task))
        assert (answer.returncode, calls) == (0, [arguments(awkward, "--cell", cell)]), answer.stderr


def test_the_scripts_first_and_last_job(awkward, script, shell):
    assert shell("bash", script, "shared")[1] == [arguments(awkward, "--cell", "shared")]
    assert shell("bash", script, "report")[1] == [arguments(awkward)]


def test_a_script_that_is_started_in_another_way_carries_out_nothing(script, shell):
    for command, variables, message in (
        (["bash", script], {}, "SLURM_ARRAY_TASK_ID: is set by sbatch --array"),
        (["bash", script, "all"], {}, "unknown part all: shared, cell or report"),
        (["bash", script], {"SLURM_ARRAY_TASK_ID": "6"}, "unbound variable"),
    ):
        answer, calls = shell(*command, **variables)
        assert answer.returncode != 0 and calls == []
        assert message in answer.stderr


def test_a_failing_cell_fails_its_task(awkward, script, shell, tmp_path):
    (tmp_path / "bin" / "deita-train").write_text("#!/bin/bash\nexit 2\n")
    assert shell("bash", script, SLURM_ARRAY_TASK_ID="1")[0].returncode == 2


def directives(text, prefix="#SBATCH "):
    return [line.removeprefix(prefix) for line in text.splitlines() if line.startswith(prefix)]


def test_the_directives_come_before_the_first_command(awkward):
    text = slurm_script(awkward, None)
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash"
    commands = [number for number, line in enumerate(lines) if line and not line.startswith("#")]
    assert all(number < commands[0] for number, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert lines[commands[0]] == "set -euo pipefail"
    assert directives(text) == [
        "--job-name=tiny",
        "--array=1-5",
        "--requeue",
        f"--output='{awkward.runs_dir}/tiny/slurm/%x-%A_%a.log'",
        "--time=04:00:00",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=8",
    ]
    assert directives(text, "##SBATCH ") == ["--gpus-per-node=1"], "no stage wants a GPU"


def test_a_per_cent_sign_of_the_folder_is_none_of_slurms(tmp_path):
    folder = tmp_path / "50%a"
    folder.mkdir()
    (output,) = [line for line in directives(slurm_script(plan(folder, recipe(sweep=SWEEP)), None)) if "output" in line]
    assert output == f"--output={tmp_path}/50%%a/runs/tiny/slurm/%x-%A_%a.log"


def test_the_gpus_are_those_of_the_largest_launch(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "count_gpus", lambda: 4)
    launch.resolve_launch.cache_clear()
    data = recipe(sweep=SWEEP, embedding__launch="single_gpu", sft__launch="zero2", base__pretrain__launch="cpu_ddp")
    assert "--gpus-per-node=4" in directives(slurm_script(plan(tmp_path, data), None))


def test_the_three_submissions_are_in_the_script_and_can_be_pasted(script, tmp_path, shell):
    """With an sbatch that writes its arguments and answers with a number, as the real one does with --parsable."""
    stub = tmp_path / "bin" / "sbatch"
    stub.write_text(f'{STUB}echo "17"\n')
    stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    lines = [line.removeprefix("#   ") for line in (tmp_path / "job.sbatch").read_text().splitlines()]
    start = next(number for number, line in enumerate(lines) if line.startswith("mkdir -p "))
    answer, calls = shell("bash", "-euc", "\n".join(lines[start : start + 4]))
    assert answer.returncode == 0, answer.stderr
    assert calls == [
        ["--parsable", "--array=1", "tiny.sbatch", "shared"],
        ["--parsable", "--dependency=afterok:17", "tiny.sbatch"],
        ["--array=1", "--dependency=afterany:17", "tiny.sbatch", "report"],
    ]
    folder = tmp_path / "my runs; $x" / "runs" / "tiny" / "slurm"
    assert folder.is_dir(), "SLURM makes no folder for its logs"
    assert shlex.quote(str(folder)) in lines[start]
