"""Variables of the environment that would change what a stage computes, and that no recipe states."""

from collections.abc import MutableMapping

# What accelerate's launcher tells its ranks. In a shell they are leftovers, and would do the same to every stage.
_OF_LAUNCHERS = ("ACCELERATE_", "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_")
# What torch's and MPI's launchers tell theirs, and some clusters every process: one alone would wait for the others.
_OF_RANKS = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "TORCHELASTIC_", "PMI_RANK",
    "PMI_SIZE", "OMPI_COMM_WORLD_", "MV2_COMM_WORLD_",
)  # fmt: skip
_HARMLESS = frozenset(
    {"ACCELERATE_CPU_AFFINITY", "ACCELERATE_DEBUG_MODE", "ACCELERATE_DISABLE_RICH", "ACCELERATE_LOG_LEVEL"}
)
# Float32 products in fewer bits, on GPUs (cuBLAS, torch, Triton) and CPUs (oneDNN), and weights in bfloat16.
_OF_PRECISION = frozenset(
    {
        "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TRITON_F32_DEFAULT",
        "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "XLA_USE_BF16", "XLA_DOWNCAST_BF16",
    }
)  # fmt: skip


def clear_environment(environment: MutableMapping[str, str], *, launched: bool = False) -> list[str]:
    """Remove the variables that would change a stage's content.

    Call before torch is loaded, which reads some of them then.

    Args:
        environment: of this process, and so of its children.
        launched: whether a launcher has started this process; its own variables stay.

    Returns:
        The names of what was removed.
    """
    removed = sorted(name for name in environment if name in _OF_PRECISION or (_is_launchers(name) and not launched))
    for name in removed:
        del environment[name]
    return removed


def told_as_cleared(names: list[str]) -> str:
    """A line that names removed variables; empty if there are none."""
    return f"ignored, because no recipe states them: {', '.join(names)}\n" if names else ""


def _is_launchers(name: str) -> bool:
    return name.startswith((*_OF_LAUNCHERS, *_OF_RANKS)) and name not in _HARMLESS
