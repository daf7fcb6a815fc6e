"""The names of the formats in which rows come. Imports nothing heavy: recipes name them too."""

from typing import Literal

ConversationFormat = Literal[
    "sharegpt",
    "messages",
    "alpaca",
    "prompt_completion",
    "instruction_response",
    "question_answer",
    "query_response",
]
PairFormat = Literal[
    "ultrafeedback", "sharegpt_pairs", "prompt_pairs", "question_pairs", "instruction_pairs", "transcript_pairs"
]
