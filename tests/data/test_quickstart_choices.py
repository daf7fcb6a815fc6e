import re

from deita_train.data.quickstart import make_choices, make_heldout


def test_one_of_four_answers_is_right_and_only_its_last_words_tell():
    rows = make_choices(60, 5)
    assert rows == make_choices(60, 5) and rows != make_choices(60, 6)
    assert len({row["question"] for row in rows}) == 60 and {row["answer"] for row in rows} == {0, 1, 2, 3}
    for row in rows:
        assert len(set(row["choices"])) == 4
        steps = {choice.rpartition("Final answer: ")[0] for choice in row["choices"]}
        assert len(steps) == 1 and "Check:" in steps.pop()
    # Where the last step is a sum, its result is the right answer.
    sums = [row for row in rows if re.search(r"= \d+\. Check", row["choices"][0])]
    assert len(sums) > 3
    for row in sums:
        result = re.findall(r"= (\d+)\. Check", row["choices"][0])[-1]
        assert row["choices"][row["answer"]].endswith(f"Final answer: {result}.")


def test_no_question_is_asked_in_the_heldout_conversations():
    asked = " ".join(message["content"] for row in make_heldout(300, 5) for message in row["messages"])
    assert not [row["question"] for row in make_choices(60, 5) if row["question"] in asked]
