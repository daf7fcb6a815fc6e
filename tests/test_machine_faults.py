"""What reads data calls nothing damaged that the machine only could not read."""

import errno
import json
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
import safetensors
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from deita_train.data.rendering import load_tokenizer
from deita_train.errors import MachineFault
from deita_train.inference import adapter_loading, shards
from deita_train.models import model_folder
from deita_train.models.adapter_files import read_adapter
from deita_train.plan.training_launch import unsaved_model
from deita_train.stages.context import Progress, StageContext
from deita_train.stages.inference import row_reuse
from deita_train.stages.selecting.walk import read_trace
from deita_train.stages.training import adapter_merge
from deita_train.store.artefacts import Store
from deita_train.store.keys import ContentHashes
from deita_train.training.checkpoints import find_damage

FILES = OSError(errno.EMFILE, "Too many open files")
# As transformers, peft and pyarrow wrap it.
WORDS = OSError("Failed to open local file. Detail: [errno 24] Too many open files")
MEMORY = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")


def fails(error):
    def fail(*arguments, **named):
        raise error

    return fail


def context(folder):
    return StageContext("score", "score", {}, {}, {}, folder, 0, 1, Progress(None))


def manifest(folder):
    return Store(folder).manifest("sft-1")


def file_hash(folder):
    (folder / "data.jsonl").touch()
    return ContentHashes(folder / "hashes.json").of(folder / "data.jsonl")


def deepspeed_file(folder):
    file = folder / "mine.yaml"
    file.write_text(f"distributed_type: DEEPSPEED\ndeepspeed_config: {{deepspeed_config_file: {folder / 'ds.json'}}}\n")
    return unsaved_model(str(file))


# What is read, the function that fails while it is, with which error, and what reads it.
READERS = {
    "a manifest": (Path, "read_text", FILES, manifest),
    "a data file": (Path, "open", FILES, file_hash),
    "a file of DeepSpeed's": (Path, "read_text", FILES, deepspeed_file),
    "an adapter's configuration": (Path, "read_text", FILES, read_adapter),
    "a shard": (pq, "read_table", WORDS, lambda folder: shards._read_batches(folder / "0.parquet", None, set())),
    "a published table": (
        datasets, "load_from_disk", WORDS, lambda folder: row_reuse._chunks(context(folder), folder, "value"),
    ),
    "copied rows": (pq, "ParquetFile", WORDS, lambda folder: list(row_reuse.reused_items(context(folder)))),
    "a trace": (datasets, "load_from_disk", WORDS, lambda folder: read_trace("select", folder, [])),
    "a tokenizer": (AutoTokenizer, "from_pretrained", WORDS, lambda folder: load_tokenizer(str(folder))),
    "a model's configuration": (AutoConfig, "from_pretrained", WORDS, model_folder.check_model_folder),
    "weights": (
        model_folder, "safe_open", safetensors.SafetensorError("I/O error: Too many open files (os error 24)"),
        lambda folder: model_folder._check_header(folder / "model.safetensors"),
    ),
    "a tokenizer beside an adapter": (
        adapter_merge, "check_tokenizer", FILES,
        lambda folder: adapter_merge._check_tokenizer_alone(folder, folder / "alone"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", READERS)
def test_a_fault_of_the_machine_is_no_damage(tmp_path, monkeypatch, what):
    owner, name, error, read = READERS[what]
    monkeypatch.setattr(owner, name, fails(error))
    with pytest.raises(MachineFault, match=r"too many open files; close other programs.*ulimit -n") as caught:
        read(tmp_path)
    assert "damaged" not in str(caught.value) and caught.value.__cause__ is error


def test_too_little_memory_for_an_adapter_is_no_wrong_adapter(tmp_path, monkeypatch):
    monkeypatch.setattr(adapter_loading, "base_folder", lambda adapter: tmp_path)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: None)
    monkeypatch.setattr(PeftModel, "from_pretrained", fails(MEMORY))
    with pytest.raises(MachineFault, match="the memory does not suffice"):
        adapter_loading.load_adapter(tmp_path, "auto")


@pytest.mark.parametrize(("error", "damage"), [(FileNotFoundError(), "it was not finished"), (FILES, None)])
def test_a_checkpoint_is_not_taken_for_unfinished_because_files_cannot_be_opened(tmp_path, monkeypatch, error, damage):
    """An unfinished one would be removed."""
    (tmp_path / "complete.json").write_text(json.dumps({"files": {}, "world_size": 1, "distributed_type": "NO"}))
    assert find_damage(tmp_path) is None
    monkeypatch.setattr(Path, "read_text", fails(error))
    if damage is None:
        with pytest.raises(OSError, match="Too many open files"):
            find_damage(tmp_path)
    else:
        assert find_damage(tmp_path) == damage
