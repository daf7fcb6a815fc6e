"""A runs folder by hand: artefacts that read each other, and records of runs that name some of them."""

from deita_train.store.artefacts import Manifest, Store
from deita_train.store.run_record import RecordedCell, RecordedNode, RunRecord


def manifest(name, parents=()):
    return Manifest(
        id=name, key=name.rpartition("-")[2], kind=name.partition("-")[0], label=name.partition("-")[0], config={},
        parents={parent.partition("-")[0]: parent for parent in parents}, parent_digests={}, rows_in=1, rows_out=1,
        drops={}, content_digest="d", seed=None, versions={}, device="cpu", world_size=1, distributed_type="NO",
        threads=1, command="deita-train stage", started="2026-01-01 00:00:00", wall_seconds=1.0,
    )  # fmt: skip


def publish(store, name, parents=(), size=100):
    """An artefact with a model of that many bytes."""
    model = store.work_path(name) / "model"
    model.mkdir(parents=True)
    (model / "weights").write_bytes(b"x" * size)
    store.publish(manifest(name, parents), {})


def record(runs, run, *cells):
    """A run whose cells have these artefacts; the first is the base run."""
    recorded = tuple(
        RecordedCell(f"cell {number}", {}, number == 0, {name.partition("-")[0]: name for name in names})
        for number, names in enumerate(cells)
    )
    nodes = {name: RecordedNode(name.partition("-")[0], "sft", {}, {}) for names in cells for name in names}
    (runs / run).mkdir(parents=True, exist_ok=True)
    RunRecord(run.rpartition("/")[2], "", 42, recorded, nodes).write(runs / run)


def make_runs(runs):
    """Two runs and a single command. `old` artefacts are of no run; nor is `pool-1`, which a used one was made from."""
    store = Store(runs / "store")
    publish(store, "pool-1")
    publish(store, "select-1", ["pool-1"])
    publish(store, "sft-1", ["select-1"], size=1000)
    publish(store, "sft-2", ["select-1"])
    publish(store, "score-1")
    publish(store, "oldpool-1")
    publish(store, "oldsft-1", ["oldpool-1", "select-1"], size=5000)
    record(runs, "mine", ["select-1", "sft-1"], ["sft-2"])
    record(runs, "other", ["select-1"])
    record(runs, "commands/score-abc", ["score-1"])
    return store
