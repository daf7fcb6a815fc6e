"""What a model answered, and what is to be said of how."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deita_train.evaluation.dialogues import Reply


@dataclass(frozen=True)
class GivenAnswers:
    """The replies to each turn of each question, metrics of the asking, and the type of the device."""

    replies: list[list[Reply]]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
