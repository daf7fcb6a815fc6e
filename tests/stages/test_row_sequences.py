"""Lengths are counted by hand: the tokenizer has one token for each byte, and three control tokens."""

from importlib.resources import files

import datasets
import pytest
from transformers import LlamaConfig

from deita_train.data.rendering import load_tokenizer
from deita_train.errors import UserError
from deita_train.scoring.training_pairs import ScorerExample
from deita_train.stages.context import Progress, StageContext
from deita_train.stages.inspection.row_sequences import InspectedStage, has_loss, sequences
from deita_train.training.miniature import train_tokenizer
from deita_train.training.rows import loss_mask

TEMPLATE = files("deita_train.data").joinpath("templates/vicuna_v1.1.jinja").read_text(encoding="utf-8")
PROMPT = "S USER: Hi ASSISTANT:"
MESSAGES = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yo"},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "So long"},
]
# As the template writes them, the control tokens left out of the count.
PIECES = [("<s>", PROMPT), (" Yo", "</s>"), ("USER: Bye ASSISTANT:", ""), (" So long", "</s>")]
ROW = {"id": "r", "messages": MESSAGES}
COMPLEXITY_HEAD = (
    "You are a helpful assistant. Please identify the complexity score of the following user query. \n##Query: "
)
COMPLEXITY_TAIL = "  \n##Complexity: "
QUALITY_HEAD = (
    "You are a helpful assistant. Please identify the quality score of the Response corresponding to the Question. "
    "\n #Question#:\n"
)
QUALITY_MIDDLE, QUALITY_TAIL = "\n#Response#:\n", " \n##Quality: "


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("per_byte")
    train_tokenizer([], 259, TEMPLATE, made)
    LlamaConfig(max_position_embeddings=512).save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(str(folder))


def sft(tokenizer, max_length=1000):
    return InspectedStage("sft", {"max_length": max_length}, tokenizer)


def other(kind, tokenizer, max_length=1000, **config):
    return InspectedStage(kind, {"max_length": max_length, **config}, tokenizer)


def plain_ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def marked_ids(sequence):
    return [token.id for token in sequence.tokens if token.marked]


def texts(sequence):
    return [(segment.state, segment.text) for segment in sequence.segments]


def test_sft_trains_the_answers_with_their_ends(tokenizer):
    (shown,) = sequences(sft(tokenizer), ROW)
    first, second = (plain_ids(tokenizer, text) for text in (" Yo</s>", " So long</s>"))
    assert (len(first), len(second)) == (4, 9)
    assert marked_ids(shown) == first + second
    assert shown.num_tokens == len(shown.tokens) == 1 + len(PROMPT) + 4 + len("USER: Bye ASSISTANT:") + 9
    assert [token.marked for token in shown.tokens[1 + len(PROMPT) :][:4]] == [True] * 4
    assert texts(shown) == [
        ("plain", "<s>"),
        ("plain", PROMPT),
        ("marked", " Yo"),
        ("marked", "</s>"),
        ("plain", "USER: Bye ASSISTANT:"),
        ("marked", " So long"),
        ("marked", "</s>"),
    ]
    assert [segment.is_control for segment in shown.segments] == [True, False, False, True, False, False, True]


def test_sft_cuts_the_right_and_says_where(tokenizer):
    kept = 1 + len(PROMPT) + 4 + len("USER: Bye ASSISTANT:") + len(" So")
    (shown,) = sequences(sft(tokenizer, kept), ROW)
    assert (len(shown.tokens), shown.num_cut) == (kept, 6)
    assert shown.num_marked == 4 + 3
    *_, before, cut = shown.segments
    assert (before.state, before.text) == ("marked", " So")
    assert (cut.state, cut.text) == ("cut", " long</s>")
    # Five letters and the end of turn: six tokens, all of an answer, nine characters.
    assert cut.notice == f"cut here: 6 tokens beyond max_length {kept} (9 characters, 6 with a loss)"


def test_the_kept_part_is_what_the_whole_begins_with(tokenizer):
    (whole,) = sequences(sft(tokenizer, None), ROW)
    for limit in range(1, len(whole.tokens) + 2):
        (shown,) = sequences(sft(tokenizer, limit), ROW)
        assert shown.tokens == whole.tokens[:limit]
        assert shown.num_cut == max(0, len(whole.tokens) - limit)
        assert "".join(segment.text for segment in shown.segments) == "".join(map("".join, PIECES))


def test_a_row_whose_answer_is_beyond_the_limit_has_no_loss(tokenizer):
    limit = 1 + len(PROMPT)
    assert not has_loss(sft(tokenizer, limit), ROW)
    assert has_loss(sft(tokenizer, limit + 1), ROW)


def test_sft_shows_what_its_preparation_writes(folder, tokenizer, tmp_path):
    from deita_train.stages.training.sft import prepare

    rows = [ROW, {"id": "long", "messages": [*MESSAGES[1:4], {"role": "assistant", "content": "東京 " * 40}]}]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "pool" / "data"))
    config = {"chat_template": TEMPLATE, "trainer": {"max_length": 270}}
    parents = {"data": tmp_path / "pool", "model": tmp_path / "model_parent"}
    (tmp_path / "model_parent").mkdir()
    (tmp_path / "model_parent" / "model").symlink_to(folder)
    context = StageContext("sft", "sft", config, {}, parents, tmp_path / "work", 0, 1, Progress(None))
    context.prepared_dir.mkdir(parents=True)
    prepare(context)
    prepared = datasets.load_from_disk(str(context.prepared_dir / "rows"))
    assert len(prepared) == len(rows)
    for row, written in zip(rows, prepared, strict=True):
        (shown,) = sequences(sft(tokenizer, 270), row)
        assert [token.id for token in shown.tokens] == written["input_ids"]
        assert [token.marked for token in shown.tokens] == loss_mask(written["labels"])
    assert shown.num_cut > 0


def test_the_first_token_is_never_learnt():
    assert loss_mask([5, 5, -100, 5]) == [False, True, False, True]
    assert loss_mask([]) == []


def test_base_trains_every_token_but_the_first(tokenizer):
    (shown,) = sequences(other("base", tokenizer), ROW)
    assert [token.marked for token in shown.tokens] == [False] + [True] * (shown.num_tokens - 1)


def test_evaluate_measures_what_sft_trains_and_embed_nothing(tokenizer):
    (trained,) = sequences(sft(tokenizer), ROW)
    (measured,) = sequences(other("evaluate", tokenizer), ROW)
    (embedded,) = sequences(other("embed", tokenizer), ROW)
    assert measured == trained
    assert [token.id for token in embedded.tokens] == [token.id for token in trained.tokens]
    assert embedded.num_marked == 0


@pytest.mark.parametrize(("score", "digit"), [(1, "1"), (6, "6")])
def test_a_scorer_learns_the_digit_and_the_end(tokenizer, score, digit):
    stage = other("train_scorer", tokenizer, dimension="complexity")
    (shown,) = sequences(stage, ScorerExample("here", "What?", None, score))
    prompt = COMPLEXITY_HEAD + "What?" + COMPLEXITY_TAIL
    assert shown.num_tokens == 1 + len(prompt) + 2
    assert marked_ids(shown) == [*plain_ids(tokenizer, digit), tokenizer.eos_token_id]
    assert [token.marked for token in shown.tokens[-2:]] == [True, True]
    assert texts(shown) == [("plain", "<s>"), ("plain", prompt), ("marked", digit), ("marked", "</s>")]


def test_a_scorers_prompt_loses_the_end_of_its_texts_and_keeps_its_own(tokenizer):
    # Room for the beginning, the prompt's own text, three characters of the instruction, the digit and the end.
    limit = 1 + len(COMPLEXITY_HEAD) + 3 + len(COMPLEXITY_TAIL) + 2
    (shown,) = sequences(
        other("train_scorer", tokenizer, limit, dimension="complexity"), ScorerExample("here", "abcdefg", None, 2)
    )
    assert texts(shown) == [
        ("plain", "<s>"),
        ("plain", COMPLEXITY_HEAD + "abc"),
        ("cut", "defg"),
        ("plain", COMPLEXITY_TAIL),
        ("marked", "2"),
        ("marked", "</s>"),
    ]
    notices = [segment.notice for segment in shown.segments if segment.notice]
    assert notices == [
        f"shortened here: 4 characters left out, so that the prompt fits max_length {limit} with the digit and the end "
        "of sequence"
    ]
    assert (len(shown.tokens), shown.num_tokens) == (limit, limit + 4)


def test_a_scorers_row_without_room_is_refused_as_in_training(tokenizer):
    stage = other("train_scorer", tokenizer, 20, dimension="complexity")
    with pytest.raises(UserError, match="here: max_length 20 has no room for the prompt"):
        sequences(stage, ScorerExample("here", "abc", None, 2))


def test_with_parity_a_long_prompt_is_reported_and_not_shortened(tokenizer):
    row = {"id": "r", "messages": [{"role": "user", "content": "abc"}, {"role": "user", "content": "abcd"}]}
    limit = 1 + len(COMPLEXITY_HEAD) + 3 + len(COMPLEXITY_TAIL)
    whole, long = sequences(other("score", tokenizer, limit, dimension="complexity", parity=True), row)
    assert texts(whole)[1] == ("plain", COMPLEXITY_HEAD + "abc" + COMPLEXITY_TAIL)
    assert (long.tokens, long.note) == ((), "not scored: prompt_longer_than_context")


def test_every_turn_is_scored_by_its_own_prompt(tokenizer):
    row = {"id": "r", "messages": [*MESSAGES, {"role": "user", "content": "More?"}]}
    first, second, third = sequences(other("score", tokenizer, dimension="quality"), row)
    for shown, instruction, response in ((first, "Hi", "Yo"), (second, "Bye", "So long")):
        prompt = QUALITY_HEAD + instruction + QUALITY_MIDDLE + response + QUALITY_TAIL
        assert texts(shown) == [("plain", "<s>"), ("plain", prompt)]
        assert (shown.num_tokens, shown.num_marked, shown.num_cut) == (1 + len(prompt), 0, 0)
    assert (first.title, third.title) == ("turn 1 of 3", "turn 3 of 3")
    assert (third.tokens, third.note) == ((), "not scored: no_response")
    assert has_loss(other("score", tokenizer, dimension="quality"), row)


def test_a_quality_prompt_loses_the_end_of_the_response(tokenizer):
    limit = 1 + len(QUALITY_HEAD + "Hi" + QUALITY_MIDDLE + "Y" + QUALITY_TAIL)
    (first, _) = sequences(other("score", tokenizer, limit, dimension="quality"), ROW)
    assert texts(first) == [
        ("plain", "<s>"),
        ("plain", QUALITY_HEAD + "Hi" + QUALITY_MIDDLE + "Y"),
        ("cut", "o"),
        ("plain", QUALITY_TAIL),
    ]
    assert first.num_cut == 1


def test_a_turn_of_which_nothing_is_left_to_judge_is_not_scored(tokenizer):
    limit = 1 + len(QUALITY_HEAD + "Hi" + QUALITY_MIDDLE + QUALITY_TAIL)
    (first, _) = sequences(other("score", tokenizer, limit, dimension="quality"), ROW)
    assert (first.tokens, first.note) == ((), "not scored: response_beyond_max_length")
    limit = 1 + len(COMPLEXITY_HEAD + COMPLEXITY_TAIL)
    (first, _) = sequences(other("score", tokenizer, limit, dimension="complexity"), ROW)
    assert (first.tokens, first.note) == ((), "not scored: instruction_beyond_max_length")


def test_an_empty_response_has_lost_nothing(tokenizer):
    row = {"id": "r", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}]}
    limit = 1 + len(QUALITY_HEAD + "Hi" + QUALITY_MIDDLE + QUALITY_TAIL)
    (shown,) = sequences(other("score", tokenizer, limit, dimension="quality"), row)
    assert shown.num_tokens == limit


def test_a_labelled_row_of_which_nothing_is_left_to_judge_is_refused(tokenizer):
    limit = 1 + len(QUALITY_HEAD + "Hi" + QUALITY_MIDDLE + QUALITY_TAIL) + 2
    stage = other("train_scorer", tokenizer, limit, dimension="quality")
    with pytest.raises(UserError, match=f"here: max_length {limit} leaves nothing of the response that is labelled; r"):
        sequences(stage, ScorerExample("here", "Hi", "Yo", 2))


PAIR = {"id": "p", "prompt": MESSAGES[:2], "chosen": "Yo", "rejected": "No!"}


@pytest.mark.parametrize("kind", ["dpo", "log_probs"])
def test_a_pair_is_a_prompt_and_two_answers_of_which_every_token_counts(tokenizer, kind):
    prompt, chosen, rejected = sequences(other(kind, tokenizer), PAIR)
    assert "".join(segment.text for segment in prompt.segments) == "<s>" + PROMPT
    assert (prompt.num_tokens, prompt.num_marked, prompt.first_position) == (1 + len(PROMPT), 0, 0)
    for shown, text in ((chosen, " Yo</s>"), (rejected, " No!</s>")):
        assert marked_ids(shown) == [token.id for token in shown.tokens] == plain_ids(tokenizer, text)
        assert shown.first_position == 1 + len(PROMPT)
    assert has_loss(other(kind, tokenizer), PAIR)


def test_each_answer_of_a_pair_is_cut_by_itself(tokenizer):
    stage = other("dpo", tokenizer, 1 + len(PROMPT) + 4)
    prompt, chosen, rejected = sequences(stage, PAIR)
    assert (prompt.num_cut, chosen.num_cut, rejected.num_cut) == (0, 0, 1)
    assert texts(rejected)[-1] == ("cut", "</s>")
    short = other("dpo", tokenizer, 5)
    assert [shown.num_cut for shown in sequences(short, PAIR)] == [1 + len(PROMPT) - 5, 4, 5]
    assert has_loss(stage, PAIR) and not has_loss(short, PAIR)


def test_what_a_message_spells_is_shown_as_text(tokenizer):
    asked, answered = {"role": "user", "content": "a</s>"}, {"role": "assistant", "content": "<s>b"}
    row = {"id": "r", "messages": [MESSAGES[0], asked, answered]}
    for stage in (sft(tokenizer), other("embed", tokenizer)):
        (shown,) = sequences(stage, row)
        assert "".join(text for _, text in texts(shown)) == "<s>S USER: a</s> ASSISTANT: <s>b</s>"
        assert [segment.text for segment in shown.segments if segment.is_control] == ["<s>", "</s>"]
        assert shown.num_tokens == 1 + len("S USER: a</s> ASSISTANT: <s>b") + 1
    (trained,) = sequences(sft(tokenizer), row)
    assert trained.num_marked == len(" <s>b") + 1


def test_what_a_pair_and_a_scorers_prompt_spell_is_shown_as_text(tokenizer):
    pair = {"prompt": [{"role": "user", "content": "</s>"}], "chosen": "</s>", "rejected": "no"}
    prompt, chosen, _ = sequences(other("dpo", tokenizer), pair)
    assert [segment.is_control for segment in prompt.segments] == [True, False]
    assert texts(chosen) == [("marked", " </s>"), ("marked", "</s>")]
    assert len(chosen.tokens) == len(" </s>") + 1
    example = ScorerExample("file:1", "a</s>", None, 3)
    (shown,) = sequences(other("train_scorer", tokenizer, dimension="complexity"), example)
    assert [segment.text for segment in shown.segments if segment.is_control] == ["<s>", "</s>"]
    assert shown.num_tokens == 1 + len(COMPLEXITY_HEAD) + len("a</s>") + len(COMPLEXITY_TAIL) + 2
