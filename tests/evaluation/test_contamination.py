"""Rows that repeat questions: against a brute force, by planted copies, and where the rule ends."""

import json
import random
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_train.evaluation import contamination
from deita_train.evaluation.contamination import Index, Passage, Question
from deita_train.evaluation.normalised_words import is_unspaced, normalised_words

WORDS = [first + second for first in ("ba", "ce", "di", "fo", "gu", "ha", "ki") for second in ("lo", "mi", "nu", "ra")]


def question(name, *texts):
    return Question(name, texts)


def user(*texts):
    return [Passage(number, "user", text) for number, text in enumerate(texts)]


def find(questions, *rows):
    return list(Index({"bench": questions}).find(rows))


def found(questions, *rows):
    """The ids of the questions that each row repeats."""
    return [[hit.question for hit in hits] for hits in find(questions, *rows)]


def numbered(number, start=0, word="word"):
    return " ".join(f"{word}{place}" for place in range(start, start + number))


# The brute force: every window of every text against every window of every passage.


def weight(words):
    return sum(1 if is_unspaced(word) else 2 for word in words)


def wanted_sequences(texts):
    """For each text the sequences that are looked for, with the place of each, and what is looked for alone."""
    wanted, texts_of = [], defaultdict(set)
    for turn, text in texts:
        words, here = normalised_words(text), []
        if weight(words) >= 26:
            for start in range(len(words)):
                end = next((end for end in range(start, len(words) + 1) if weight(words[start:end]) >= 26), None)
                if end is not None and telling(words[start:end]) > 0.33:
                    here.append((start, words[start:end]))
        elif weight(words) >= 16 and telling(words) > 0:
            here.append((0, words))
        for _, sequence in here:
            texts_of[tuple(sequence)].add(tuple(words))
        whole_only = [(0, words)] if 8 <= weight(words) < 16 and turn == 0 else []
        wanted.append((here, whole_only))
    return [
        ([(start, words) for start, words in here if len(texts_of[tuple(words)]) <= 10], whole)
        for here, whole in wanted
    ]


def telling(words):
    different = {word for word in words if any(map(str.isalpha, word)) and (len(word) > 1 or is_unspaced(word))}
    return weight(different) / weight(words)


def brute_force(questions, passages):
    """For each question that is found, the words of the longest run and the share of the question."""
    texts = [(number, turn, text) for number, of in enumerate(questions) for turn, text in enumerate(of.texts)]
    sequences = wanted_sequences([(turn, text) for _, turn, text in texts])
    covered, longest = defaultdict(set), defaultdict(int)
    for place, ((number, _, text), (anywhere, whole)) in enumerate(zip(texts, sequences, strict=True)):
        of_text = normalised_words(text)
        for passage in passages:
            words = normalised_words(passage.text)
            same = {
                (row, start)
                for start, sequence in anywhere
                for row in range(len(words))
                if words[row : row + len(sequence)] == sequence
            }
            lengths = {start: len(sequence) for start, sequence in anywhere}
            pairs = {(row + step, start + step) for row, start in same for step in range(lengths[start])}
            if passage.role == "user" and whole and whole[0][1] == words:
                pairs |= {(step, step) for step in range(len(words))}
            covered[number] |= {(place, of) for _, of in pairs}
            for row, start in pairs:
                length = 0
                while (row + length, start + length) in pairs:
                    length += 1
                longest[number] = max(longest[number], weight(of_text[start : start + length]))
    sizes = [weight([word for text in of.texts for word in normalised_words(text)]) for of in questions]
    return {
        questions[number].id: (
            -(-longest[number] // 2),
            sum(weight([normalised_words(texts[place][2])[of]]) for place, of in words) / sizes[number],
        )
        for number, words in covered.items()
        if words
    }


PIECES = st.sampled_from([*WORDS[:5], "a", "7", "中", "文", "字", "か"])
TEXTS = st.lists(PIECES, max_size=40).map(" ".join)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.lists(TEXTS, max_size=2), min_size=1, max_size=4),
    st.lists(st.tuples(st.sampled_from(["user", "assistant"]), TEXTS), max_size=3),
    st.data(),
)
def test_what_is_found_is_what_a_brute_force_finds(texts, messages, data):
    questions = [Question(str(number), tuple(of)) for number, of in enumerate(texts)]
    # Among them pieces of the questions, so that there is something to find.
    pieces = [text.split() for of in texts for text in of if text]
    for number in range(len(messages) if pieces else 0):
        words = data.draw(st.sampled_from(pieces))
        start = data.draw(st.integers(0, len(words) - 1))
        piece = " ".join(words[start : data.draw(st.integers(start, len(words)))])
        messages[number] = (messages[number][0], data.draw(st.sampled_from(["", messages[number][1]])) + f" {piece}")
    passages = [Passage(number, role, text) for number, (role, text) in enumerate(messages)]
    [hits] = find(questions, passages)
    assert {hit.question: (hit.words, pytest.approx(hit.share)) for hit in hits} == brute_force(questions, passages)
    assert [hit.words for hit in hits] == sorted((hit.words for hit in hits), reverse=True)
    for hit in hits:
        text = passages[hit.message].text
        assert text[hit.start : hit.end] == hit.span and passages[hit.message].role == hit.role
        asked = " ".join(normalised_words(questions[int(hit.question)].texts[hit.turn]))
        assert " ".join(normalised_words(hit.span)) in asked


def random_text(rng, number):
    return " ".join(rng.choices(WORDS, k=number))


def planted(rng, text):
    return f"{random_text(rng, 40)}. {text} {random_text(rng, 40)}"


CHANGES = {
    "verbatim": lambda words: " ".join(words),
    "case and spaces": lambda words: "  \n".join(words).upper(),
    "punctuation": lambda words: "**" + " -- ".join(words) + "?!**",
    "quoted line by line": lambda words: "".join(f"> {word}\n" for word in words),
    "another encoding": lambda words: " ".join(chr(ord(word[0]) + 0xFEE0) + word[1:] for word in words),
    "one word changed in the middle": lambda words: " ".join(
        "other" if place == len(words) // 2 else word for place, word in enumerate(words)
    ),
    "cut at both ends": lambda words: " ".join(words[5:-5]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_every_planted_copy_is_found_and_nothing_else(change):
    """200 questions of 27 to 60 words, of which 40 are planted in 120 rows."""
    rng = random.Random(11)
    questions = [question(str(number), random_text(rng, rng.randint(27, 60))) for number in range(200)]
    rows = [user(planted(rng, change(questions[place].texts[0].split())) if place < 40 else random_text(rng, 90))
            for place in range(120)]  # fmt: skip
    assert found(questions, *rows) == [[str(place)] if place < 40 else [] for place in range(120)]


@pytest.mark.parametrize(("length", "is_found"), [(25, False), (26, True)])
def test_a_word_changed_in_the_middle_hides_a_question_of_less_than_26_words(length, is_found):
    changed = numbered(length // 2) + " other " + numbered(length - length // 2 - 1, length // 2 + 1)
    assert found([question("q", numbered(length))], user(changed)) == [["q"] if is_found else []]


def test_a_paraphrase_escapes():
    asked = "Compose an engaging travel blog post about a recent trip to Hawaii, highlighting cultural experiences."
    other = "Write a lively blog entry on a journey to Hawaii that you made lately, with its culture in the foreground."
    assert found([question("81", asked)], user(other)) == [[]]


@pytest.mark.parametrize("length", range(1, 15))
def test_short_texts(length):
    """Of 13 words and more as any; of 8 to 12 whole and anywhere; of 4 to 7 as the whole of a user's message."""
    asked = [question("q", numbered(length))]
    whole, inside, of_assistant = user(numbered(length)), user(f"so {numbered(length)} then"), numbered(length)
    assert found(asked, whole, inside, [Passage(0, "assistant", of_assistant)]) == [
        ["q"] if length >= 4 else [],
        ["q"] if length >= 8 else [],
        ["q"] if length >= 8 else [],
    ]
    assert Index({"b": asked}).benchmarks["b"].left_out == ({} if length >= 4 else {"too_short": 1})
    follow_up = [question("q", numbered(20, word="first"), numbered(length))]
    assert found(follow_up, whole) == [["q"] if length >= 8 else []]


def test_characters_of_scripts_without_spaces_are_half_words():
    text = "请写一篇关于最近去夏威夷旅行的博客文章重点介绍文化体验和必看的景点谢谢"
    assert len(text) == 35
    asked = [question("q", text)]
    [hits, too_little] = find(asked, user(f"你好 {text[2:28]}。"), user(f"你好 {text[2:27]}。"))
    assert [(hit.span, hit.words) for hit in hits] == [(text[2:28], 13)] and too_little == []
    assert found([question("q", text[:8])], user(text[:8]), user(text)) == [["q"], []]
    assert found([question("q", text[:7])], user(text[:7])) == [[]]


def test_numbers_letters_and_repetitions_say_nothing():
    counting = ", ".join(map(str, range(1, 40)))
    alphabet = " ".join("abcdefghijklmnopqrstuvwxyz")
    asked = [question("count", counting), question("letters", alphabet), question("again", "ha " * 30)]
    assert found(asked, user(counting), user(alphabet), user("ha " * 40)) == [[], [], []]
    assert Index({"b": asked}).benchmarks["b"].left_out == {"tells_nothing": 3}
    # The rest of the question is looked for.
    mixed = [question("q", f"{counting} {numbered(14)}")]
    assert found(mixed, user(counting), user(numbered(14))) == [[], ["q"]]
    equations, repeated = "x+y = 4z, x*y = 4z^2, express x-y in z", "X + Y = 4z, x*y=4z^2; express x-y in z!"
    assert found([question("q", equations)], user(repeated)) == [["q"]]  # a text of 12 words, whole


def test_the_frame_of_a_benchmark_is_no_question():
    frame = "choose the best answer to the following question from the four options that are given below"
    asked = [question(str(number), f"{frame} {numbered(15, 100 * number)}") for number in range(11)]
    assert found(asked, user(frame), user(asked[3].texts[0])) == [[], ["3"]]
    [hits] = find(asked, user(asked[3].texts[0]))
    assert hits[0].words == 27  # from the first 13 words that are the question's own
    assert len(found(asked[:10], user(frame))[0]) == 10
    only = [question(str(number), f"{frame} option {number}") for number in range(11)]
    assert Index({"b": only}).benchmarks["b"].left_out == {}  # the last 13 words are each one's own
    assert (
        Index({"b": [question(str(number), f"{frame} {number}") for number in range(11)]}).benchmarks["b"].left_out
        == {}
    )
    # The same question many times is still one question.
    same = [question(str(number), numbered(20)) for number in range(15)]
    assert len(found(same, user(numbered(20)))[0]) == 15


def test_a_question_made_of_the_frame_alone_is_counted():
    frame = numbered(13)
    asked = [question(str(number), " ".join([frame, numbered(3, 100 * number + 50)])) for number in range(11)]
    asked.append(question("frame", frame))
    assert Index({"b": asked}).benchmarks["b"].left_out == {"shared_by_many": 1}


def test_frames_are_of_one_benchmark():
    frame = numbered(14)
    benchmarks = {
        name: [question(str(number), f"{frame} {numbered(3, 100 * number + 100)}") for number in range(6)]
        for name in ("one", "two")
    }
    [hits] = Index(benchmarks).find([user(frame)])
    assert [(hit.benchmark, hit.question) for hit in hits] == [
        (of, str(number)) for of in benchmarks for number in range(6)
    ]


def test_the_longest_run_is_shown_and_all_are_counted():
    asked = [question("q", numbered(40), numbered(20, 100))]
    row = [
        Passage(0, "system", "Say it."),
        Passage(1, "user", f"First {numbered(14)} "),
        Passage(2, "assistant", f"“{numbered(20, 20).upper()}”, and {numbered(20, 100)}"),
    ]
    [[hit]] = find(asked, row)
    assert (hit.message, hit.role, hit.turn, hit.words) == (2, "assistant", 0, 20)
    assert hit.span == numbered(20, 20).upper() and row[2].text[hit.start : hit.end] == hit.span
    assert hit.share == (14 + 20 + 20) / 60


def test_sequences_do_not_go_over_turns_or_messages():
    asked = [question("q", numbered(10), numbered(10, 10))]
    assert found(asked, user(numbered(6), numbered(14, 6))) == [["q"]]  # the second turn is whole in the second message
    assert found(asked, user(numbered(6), numbered(6, 6))) == [[]]
    assert found([question("q", numbered(20))], user(numbered(12), numbered(8, 12))) == [[]]


def test_batches_change_nothing(monkeypatch):
    rng = random.Random(3)
    questions = [question(str(number), random_text(rng, 20)) for number in range(30)]
    rows = [user(planted(rng, questions[place].texts[0]), "") if place % 3 else [] for place in range(30)]
    whole = find(questions, *rows)
    monkeypatch.setattr(contamination, "_BATCH_WORDS", 150)
    assert find(questions, *rows) == whole
    assert sum(map(bool, whole)) == 20


def test_equal_hashes_of_other_words_are_no_match(monkeypatch):
    def constant(stream, starts, ends):
        return starts.astype("uint64") * 0 + 1

    monkeypatch.setattr(contamination, "hashes_of", constant)
    asked = [question("a", numbered(13)), question("b", numbered(14, 50))]
    assert found(asked, user(numbered(14, 50)), user(numbered(13, 1))) == [["b"], []]


def test_nothing_to_look_for_and_nowhere():
    assert find([], user(numbered(20))) == [[]]
    assert find([question("q")], user(numbered(20)), []) == [[], []]
    assert Index({"b": [question("q")]}).benchmarks["b"].left_out == {"too_short": 1}
    assert find([question("q", numbered(20))]) == []


# Of the first turns of MT-Bench's questions, how many are found after each change; docs/evaluation.md has them.
RECALL = {
    "verbatim": 80, "case and spaces": 80, "punctuation": 80, "quoted line by line": 80,
    "one word changed in the middle": 48, "cut at both ends": 54,
}  # fmt: skip


def test_recall_on_real_questions_in_real_rows(shared):
    """Each is planted in the answer of a real conversation of which nothing is found before."""
    lines = (shared / "data" / "mt_bench_questions.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [Question(str(row["question_id"]), tuple(row["turns"])) for row in map(json.loads, lines)]
    alpaca = json.loads((shared / "data" / "real_alpaca.json").read_text(encoding="utf-8"))
    assert found(questions, *(user(row["instruction"], row["output"]) for row in alpaca)) == [[]] * 999
    counts = {}
    for name in RECALL:
        planted_in = [
            user(row["instruction"], f"{row['output']} {CHANGES[name](of.texts[0].split())} {row['output']}")
            for row, of in zip(alpaca, questions, strict=False)
        ]
        hits = found(questions, *planted_in)
        counts[name] = sum(of.id in of_row for of, of_row in zip(questions, hits, strict=True))
    assert counts == RECALL
    texts = [of.texts[0].split() for of in questions]
    halves = [(words[: len(words) // 2], words[len(words) // 2 + 1 :]) for words in texts]
    lengths = [max(len(normalised_words(" ".join(half))) for half in both) for both in halves]
    assert sum(length >= 13 for length in lengths) == RECALL["one word changed in the middle"]
    left = [len(normalised_words(" ".join(words[5:-5]))) for words in texts]
    assert sum(length >= 13 for length in left) == RECALL["cut at both ends"]
