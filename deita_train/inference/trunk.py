"""One base in memory for several passes of one process: each adapter is put into it and taken out again.

Inside :func:`sharing`, `load_model` takes its models from here. A base whose adapter was taken out is the very modules
that were loaded, and the next adapter goes in as into a fresh base: the numbers are bitwise those of separate models.
"""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel

from deita_train.inference.adapter_loading import base_folder, load_base, put_adapter
from deita_train.models.adapter_files import ADAPTER_WEIGHTS, is_adapter, read_adapter
from deita_train.models.remote_code import own_code

# Fields of an adapter that change the base's own parameters or replace its modules, and the value that does not.
_TOUCHING = {
    "bias": "none", "modules_to_save": None, "trainable_token_indices": None, "target_parameters": None,
    "layer_replication": None,
}  # fmt: skip
# Other initialisations may change the base's weights when the adapter is put in.
_PLAIN_STARTS = (True, False, "gaussian")


class SharedTrunk:
    """At most one whole model in memory, with at most one adapter in it at a time.

    `log` takes a line for each model that is asked for. `num_loads` and `load_seconds` count the bases that were read.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._kept: tuple[Path, str, torch.device, bool] | None = None
        self._base: Any = None
        self._adapted: Any = None
        self._free_bytes: int | None = None
        self.num_loads = 0
        self.load_seconds = 0.0

    def model(
        self, path: Path, dtype: str, device: torch.device, *, head: bool, trust_code: bool = False
    ) -> PreTrainedModel | None:
        """The model of a folder in evaluation mode, without its output head unless `head`; valid until the next call.

        `path` holds a whole causal language model, or an adapter, which is then active and unmerged inside its base.
        Code that the model brings along is executed where `trust_code` says so.
        None for an adapter that does not leave its base as it is: it must be loaded alone, and nothing is kept.
        """
        self._take_adapter_out()
        adapted = is_adapter(path)
        if adapted and not leaves_base(path):
            self.release()
            self._log(f"the adapter {path} changes its base and is loaded on one of its own")
            return None
        folder = base_folder(path) if adapted else path
        load = load_base if adapted else _load_whole
        base = self._hold(folder.resolve(), dtype, device, load, trust_code)
        if adapted:
            self._put_adapter_in(path, folder)
            base.to(device)  # type: ignore[arg-type]  # peft is given the adapter's weights on the CPU
        base.eval()
        whole: Any = base
        return whole if head else whole.base_model

    def release(self) -> None:
        """Give the memory back."""
        self._kept = self._base = self._adapted = None
        gc.collect()  # modules refer to each other in circles
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def free_gpu_bytes(self) -> int:
        """Free bytes of the current GPU before any base was loaded, as a process of its own would find them."""
        if self._free_bytes is None:
            self._free_bytes = torch.cuda.mem_get_info()[0]
        return self._free_bytes

    def _hold(
        self,
        folder: Path,
        dtype: str,
        device: torch.device,
        load: Callable[[Path, torch.dtype, bool], PreTrainedModel],
        trust_code: bool,
    ) -> PreTrainedModel:
        wanted = (folder, dtype, device, trust_code)
        if self._base is not None and self._kept == wanted:
            self._log(f"the base {folder} is in memory already")
            return self._base
        self.release()
        if device.type == "cuda":
            self.free_gpu_bytes()
        began = time.monotonic()
        base = load(folder, getattr(torch, dtype), trust_code)
        base.to(device)  # type: ignore[arg-type]  # transformers types the first argument as self
        seconds = time.monotonic() - began
        self._kept, self._base = wanted, base
        self.num_loads += 1
        self.load_seconds += seconds
        self._log(f"loaded the base {folder} in {seconds:.1f} s")
        return base

    def _put_adapter_in(self, path: Path, folder: Path) -> None:
        assert self._base is not None
        try:
            self._adapted = put_adapter(self._base, path, folder)
        except BaseException:
            self.release()  # some of its layers may be in the base
            raise

    def _take_adapter_out(self) -> None:
        if self._adapted is None:
            return
        from peft.tuners.tuners_utils import BaseTunerLayer  # a second, and few runs have adapters

        plain: Any = self._adapted.unload()
        self._adapted = None
        assert plain is self._base, "peft gave another model back than it was given"
        left = [name for name, module in plain.named_modules() if isinstance(module, BaseTunerLayer)]
        assert not left, f"peft left layers of an adapter in its base: {left[:3]}"


def _load_whole(folder: Path, dtype: torch.dtype, trust_code: bool) -> PreTrainedModel:
    with own_code(folder, trust_code):
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=trust_code)
    return model


def leaves_base(adapter: Path) -> bool:
    """Whether an adapter only adds layers, so that its base without them is bitwise the base as it was loaded."""
    config = read_adapter(adapter)
    if any(config.get(name) not in (value, None, [], {}) for name, value in _TOUCHING.items()):
        return False
    if config.get("init_lora_weights", True) not in _PLAIN_STARTS:
        return False
    with safe_open(adapter / ADAPTER_WEIGHTS, framework="pt") as weights:
        # An embedding with an adapter is saved together with weights of the base.
        return not any(".base_layer." in name for name in weights.keys())  # noqa: SIM118  # safe_open is no mapping


_open: SharedTrunk | None = None


@contextmanager
def sharing(log: Callable[[str], None]) -> Iterator[SharedTrunk]:
    """Keep the last base in memory until the end of the block; blocks do not nest."""
    global _open
    assert _open is None, "a base is shared already"
    _open = SharedTrunk(log)
    try:
        yield _open
    finally:
        _open.release()
        _open = None


def shared_model(
    path: Path, dtype: str, device: torch.device, *, head: bool, trust_code: bool = False
) -> PreTrainedModel | None:
    """As :meth:`SharedTrunk.model`; None outside :func:`sharing` too."""
    return None if _open is None else _open.model(path, dtype, device, head=head, trust_code=trust_code)


def free_gpu_bytes() -> int:
    """Free bytes of the current GPU; inside :func:`sharing` those before the base was loaded.

    Batches planned by it are then the same whether the base is in memory already or not.
    """
    return torch.cuda.mem_get_info()[0] if _open is None else _open.free_gpu_bytes()
