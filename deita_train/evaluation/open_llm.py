"""The paper's part of the Open LLM Leaderboard (v1): four tasks with their shots and metrics."""

from dataclasses import dataclass
from typing import Literal

OPEN_LLM_V1 = "open_llm_v1"


@dataclass(frozen=True)
class LeaderboardTask:
    """A task or group of the harness, with the examples before each question and the metric that counts."""

    kind: Literal["task", "group"]
    name: str
    num_fewshot: int
    metric: str


OPEN_LLM_V1_TASKS = (
    LeaderboardTask("task", "arc_challenge", 25, "acc_norm"),
    LeaderboardTask("task", "hellaswag", 10, "acc_norm"),
    LeaderboardTask("group", "mmlu", 5, "acc"),
    LeaderboardTask("task", "truthfulqa_mc2", 0, "acc"),
)
