"""SIGKILL during a stage, of the run alone or of its process group; then the same command gives the same bytes."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from smoke_run import ROOT, copy_without, digests, run_command, run_environment, run_smoke, selected_ids, stages

# In `make test`: a pass, and the training whose result matters most.
MOMENTS = [("score.quality", "group"), ("sft", "run")]
ALL_STAGES = [
    "pretraining_data", "base", "pool", "train_scorer.complexity", "score.complexity", "train_scorer.quality",
    "score.quality", "embed", "select", "sft", "dpo_data", "reference", "dpo", "heldout_data", "evaluate.base",
    "evaluate.sft", "evaluate.dpo", "heldout_pairs", "evaluate_pairs.base", "evaluate_pairs.sft", "evaluate_pairs.dpo",
]  # fmt: skip
ENDLESS = (
    "--set", "base.pretrain.trainer.max_steps=100000", "--set", "base.pretrain.trainer.num_train_epochs=null",
)  # fmt: skip
TRAININGS = {"base", "train_scorer.complexity", "train_scorer.quality", "sft", "dpo"}
FAULTS = [(label, ("run", "group")[number % 2]) for number, label in enumerate(ALL_STAGES)]


def kill_during(runs, artefact, whom, delay, *arguments, sign="*"):
    """Start a run, wait until `artefact` is being made, and kill the run alone or its group `delay` seconds later.

    `sign` is a pattern below the work folder whose first match shows that the stage is far enough. Returns the
    processes of the run that were alive before.
    """
    process = subprocess.Popen(
        run_command(runs, *arguments),
        env=run_environment(),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    work = runs / "store" / ".work" / artefact
    published = runs / "store" / artefact / "manifest.json"
    deadline = time.monotonic() + 200
    while not list(work.glob(sign)) and not published.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(delay)
    family = psutil.Process(process.pid).children(recursive=True)
    for member in family:
        member.info_rank = member.environ().get("RANK") if "--stage" in member.cmdline() else None
    if whom == "group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return family


def artefact_of(runs, kind, *arguments):
    """The id that `plan --stages` prints for a stage of that kind."""
    plan = subprocess.run(
        [sys.executable, "-m", "deita_train.cli", "plan", *run_command(runs, *arguments)[4:], "--stages"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return re.search(rf"--stage ({kind}-[0-9a-f]{{12}})", plan.stdout).group(1)


def assert_gone(family):
    """No process of a killed run goes on."""
    assert family, "the run had no children: the kill came too early to show anything"
    # A process in a long call of a library notices after it; what goes on for good is still there much later.
    _, left = psutil.wait_procs(family, timeout=15)
    # An orphan that ended stays a zombie where process 1 does not collect it; it writes nothing.
    alive = [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not alive, f"still at work: {[process.cmdline() for process in alive]}"


def check_kill(undisturbed, runs, label, whom):
    """Kill a run that has this stage left to make, and repeat it.

    The stages after it are there. The repeated run keeps them if the bytes of what it makes are those that they were
    made from, and makes them again otherwise, with other digests.
    """
    artefact = stages(undisturbed)[label]
    copy_without(undisturbed, runs, label)
    # A training is killed when it has a checkpoint to go on from; the other stages right after their start.
    sign = "checkpoints/*/complete.json" if label in TRAININGS else "*"
    # The seed only makes a failure repeatable.
    delay = random.Random(f"{label}-{whom}").uniform(0.0, 0.05)
    assert_gone(kill_during(runs, artefact, whom, delay, sign=sign))
    assert not (runs / "store" / artefact).exists(), "the stage was over before the kill"
    answer = run_smoke(runs)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert selected_ids(runs) == selected_ids(undisturbed)
    assert digests(runs) == digests(undisturbed)


@pytest.mark.parametrize("whom", ["run", pytest.param("group", marks=pytest.mark.faults)])
def test_no_process_of_a_killed_run_goes_on(tmp_path, whom):
    """The stage would take many minutes, so what ends within seconds was ended."""
    endless = (*ENDLESS, "--until", "base")
    artefact = artefact_of(tmp_path, "base", *endless)
    family = kill_during(tmp_path, artefact, whom, 3.0, *endless)
    assert_gone(family)
    assert not (tmp_path / "store" / artefact).exists()


@pytest.mark.parametrize(("label", "whom"), MOMENTS)
def test_killed_and_repeated_gives_the_same_bytes(undisturbed, tmp_path, label, whom):
    check_kill(undisturbed, tmp_path, label, whom)


@pytest.mark.faults
@pytest.mark.parametrize(("label", "whom"), FAULTS)
def test_killed_in_any_stage_gives_the_same_bytes(undisturbed, tmp_path, label, whom):
    check_kill(undisturbed, tmp_path, label, whom)


@pytest.mark.faults
@pytest.mark.parametrize("whom", ["run", "group"])
def test_two_ranks_do_not_outlive_a_killed_run(tmp_path, whom):
    endless = ("--set", "base.pretrain.launch=cpu_ddp", *ENDLESS, "--until", "base")
    family = kill_during(tmp_path, artefact_of(tmp_path, "base", *endless), whom, 15.0, *endless)
    ranks = [process for process in family if is_rank(process)]
    assert len(ranks) == 2
    assert_gone(family)


def is_rank(process):
    """Whether a process was one of the ranks; what it was is read from the kernel, or nothing if it is gone."""
    return process.info_rank is not None


# 40 steps each, with a checkpoint after every second: a kill has many steps to fall on.
LONGER = [
    part
    for section in ("sft", "dpo")
    for field in ("num_train_epochs=10", "logging_steps=1", "save_steps=2")
    for part in ("--set", f"{section}.trainer.{field}")
]
NUM_STEPS = 40
TRAINING_FAULTS = [
    (label, ranks, seed, torn)
    for label in ("sft", "dpo")
    for ranks in (1, 2)
    for seed, torn in ((0, False), (1, False), (2, False), (3, True))
]


def longer_run(ranks):
    """The arguments of a run up to DPO whose trainings are long enough, on that many ranks of DDP."""
    launch = [part for section in ("sft", "dpo") for part in ("--set", f"{section}.launch=cpu_ddp")]
    return [*LONGER, *(launch if ranks == 2 else []), "--until", "dpo"]


@pytest.fixture(scope="module")
def longer(undisturbed, tmp_path_factory):
    """The runs folder of undisturbed longer trainings, by the number of ranks."""
    made = {}

    def of(ranks):
        if ranks not in made:
            runs = tmp_path_factory.mktemp(f"longer{ranks}")
            shutil.copytree(undisturbed / "store", runs / "store")
            answer = run_smoke(runs, *longer_run(ranks))
            assert answer.returncode == 0, answer.stdout + answer.stderr
            made[ranks] = runs
        return made[ranks]

    return of


def tear_newest(checkpoints):
    """Cut the newest whole checkpoint in half; its name."""
    whole = [path.parent for path in checkpoints.glob("*/complete.json")]
    newest = max(whole, key=lambda path: int(path.name.removeprefix("checkpoint-")))
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return newest.name


@pytest.mark.faults
@pytest.mark.parametrize(("label", "ranks", "seed", "torn"), TRAINING_FAULTS)
def test_a_training_killed_at_a_random_step_has_the_bits_of_an_undisturbed_one(
    longer, tmp_path, label, ranks, seed, torn
):
    expected = longer(ranks)
    artefact = stages(expected)[label]
    shutil.copytree(expected / "store", tmp_path / "store")
    for made_again in ("sft", "dpo") if label == "sft" else ("dpo",):
        shutil.rmtree(tmp_path / "store" / stages(expected)[made_again])
    drawn = random.Random(f"{label} {ranks} {seed}")
    # With two whole checkpoints at least, so that one is left when the newest is torn.
    step, delay = 2 * drawn.randrange(3, NUM_STEPS // 2 - 3), drawn.uniform(0.0, 0.1)
    whom = ("run", "group")[seed % 2]
    arguments = longer_run(ranks)
    assert_gone(kill_during(tmp_path, artefact, whom, delay, *arguments, sign=f"checkpoints/checkpoint-{step}"))
    work = tmp_path / "store" / ".work" / artefact
    assert work.exists(), "the training was over before the kill"
    damaged = tear_newest(work / "checkpoints") if torn else None
    whole = {int(path.parent.name.split("-")[1]) for path in work.glob("checkpoints/*/complete.json")}
    # An old checkpoint goes only when the new one is recorded, so two are whole at any moment.
    left = max(whole - ({int(damaged.split("-")[1])} if damaged else set()))
    assert left >= step - 4
    answer = run_smoke(tmp_path, *arguments)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    if damaged:
        logs = "".join(path.read_text() for path in (tmp_path / "store" / artefact / "logs").iterdir())
        assert f"not resuming from {damaged}: model.safetensors has" in logs
    one, two = (runs / "store" / artefact for runs in (expected, tmp_path))
    histories = [json.loads((folder / "metrics.json").read_text())["history"] for folder in (one, two)]
    assert [entry["step"] for entry in histories[0]] == list(range(1, NUM_STEPS + 1))
    assert histories[0] == histories[1]
    assert json.loads((two / "metrics.json").read_text())["resumed_from_step"] == left
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (one, two)]
    assert weights[0] == weights[1]
