"""GPUs by name: their peak in bfloat16 and their memory, from the makers' data sheets. Imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass

from deita_train.errors import UserError


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU.

    Attributes:
        title: its name with the variant.
        peak_flops: dense bfloat16 products with float32 sums, in FLOP/s, without sparsity.
        memory: bytes, a gigabyte of the data sheet as 10^9. Drivers and CUDA take the rest of what is there.
        words: that tell it by the name that the driver gives; the first row with all of them counts.
        source: the document that states the numbers.
    """

    title: str
    peak_flops: float
    memory: int
    words: frozenset[str]
    source: str


def _gpu(title: str, tflops: float, gigabytes: int, words: str, source: str) -> Gpu:
    return Gpu(title, tflops * 1e12, gigabytes * 10**9, frozenset(words.split()), source)


_HOPPER = "NVIDIA H100 and H200 data sheets"
_AMPERE = "NVIDIA A100 data sheet"
# In the order in which a device's name is looked up: a variant before the name that it contains.
GPUS: Mapping[str, Gpu] = {
    "h200-nvl": _gpu("H200 NVL", 835, 141, "H200 NVL", _HOPPER),
    "h100-nvl": _gpu("H100 NVL", 835, 94, "H100 NVL", _HOPPER),
    "h100-pcie": _gpu("H100 PCIe", 756, 80, "H100 PCIe", _HOPPER),
    "h200": _gpu("H200 SXM", 989, 141, "H200", _HOPPER),
    "h100": _gpu("H100 SXM", 989, 80, "H100", _HOPPER),
    "gh200": _gpu("GH200", 989, 96, "GH200", "NVIDIA GH200 data sheet"),
    "b200": _gpu("B200", 2250, 180, "B200", "NVIDIA DGX B200 data sheet"),
    "a100-40gb": _gpu("A100 40 GB", 312, 40, "A100 40GB", _AMPERE),
    "a100": _gpu("A100 80 GB", 312, 80, "A100", _AMPERE),
    "l40s": _gpu("L40S", 362, 48, "L40S", "NVIDIA L40S data sheet"),
    "l4": _gpu("L4", 121, 24, "L4", "NVIDIA L4 data sheet"),
    "a10": _gpu("A10", 125, 24, "A10", "NVIDIA A10 data sheet"),
    "5090": _gpu("RTX 5090", 209.5, 32, "RTX 5090", "NVIDIA RTX Blackwell GPU architecture paper"),
    "4090": _gpu("RTX 4090", 165.2, 24, "RTX 4090", "NVIDIA Ada GPU architecture paper"),
    "3090": _gpu("RTX 3090", 71, 24, "RTX 3090", "NVIDIA Ampere GA102 GPU architecture paper"),
}


def named_gpu(name: str) -> Gpu:
    """The GPU that an option names.

    Raises:
        UserError: there is no such name.
    """
    found = GPUS.get(name.lower().removeprefix("rtx").strip("-_ "))
    if found is None:
        raise UserError(f"--gpu {name}: unknown; give one of {', '.join(sorted(GPUS))}.")
    return found


def named_peak(name: str) -> float | None:
    """The peak of a device by the name that its driver gives, in FLOP/s; None for an unknown one."""
    gpu = gpu_of_device(name)
    return None if gpu is None else gpu.peak_flops


def gpu_of_device(name: str) -> Gpu | None:
    """The kind of a device by the name that its driver gives; None for an unknown one.

    A MIG slice has no data sheet.
    """
    words = set(name.replace("-", " ").split())
    if "MIG" in words:
        return None
    return next((gpu for gpu in GPUS.values() if gpu.words <= words), None)
