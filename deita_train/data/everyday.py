"""A few general questions, to read what a model says where nothing else is asked."""

from typing import Any

_QUESTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("explanation", ("Why is the sky blue? Explain it to a child of ten years.",)),
    ("writing", ("Write a short and friendly note that invites a new neighbour to dinner on Saturday.",)),
    ("advice", ("I sleep badly before exams. Name three things that I could try tonight.",)),
    ("facts", ("Which is the longest river of Africa, and through which countries does it flow?",)),
    ("math", (
        "A train leaves at 9:40 and arrives at 12:15. How long is the journey?",
        "The way back takes 20 minutes longer. How long are both journeys together?",
    )),
    ("coding", ("Write a Python function that returns the second largest number of a list, and say what it does with "
                "an empty list.",)),
    ("summary", ("Say this in one sentence: The library opens at nine. On Fridays it closes early, at two, because "
                 "the staff meet. On Sundays it is closed.",)),
    ("conversation", ("Hello! What can you help me with?",)),
)  # fmt: skip

EVERYDAY_QUESTIONS = len(_QUESTIONS)


def everyday_questions() -> list[dict[str, Any]]:
    """The questions as rows in the form of MT-Bench's file."""
    return [
        {"question_id": f"everyday-{number}", "category": category, "turns": list(turns)}
        for number, (category, turns) in enumerate(_QUESTIONS, start=1)
    ]
