import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import answered, chain_of

from deita_train.evolve.chains import (
    Seed,
    evolution_request,
    evolved_text,
    first_version,
    judge_evolution,
    last_good,
    next_request,
    next_version,
)
from deita_train.evolve.elimination import LONGEST_REFUSAL_CHARS, is_refusal
from deita_train.evolve.prompts import read_prompts
from deita_train.llm.answers import Failure
from deita_train.llm.requests import ChatRequest

SEED = Seed("row-1", "Name a fruit.", "A pear.")
MAX_CHARS = 2000


@pytest.fixture(scope="module")
def prompts():
    return {dimension: read_prompts(dimension, None) for dimension in ("complexity", "quality")}


def evolved(prompts, answer, dimension="complexity", operation="deepen", **more):
    parent = first_version(SEED, dimension)
    return judge_evolution(parent, answer, operation, 1, MAX_CHARS, prompts=prompts[dimension], **more)


def test_the_first_version_is_the_seed():
    version = first_version(SEED, "quality")
    assert (version.seed_id, version.step, version.operation, version.status) == ("row-1", 0, None, "ok")
    assert (version.instruction, version.response, version.text, version.raw) == (
        "Name a fruit.",
        "A pear.",
        "A pear.",
        None,
    )
    assert (
        first_version(SEED, "complexity").response is None and first_version(SEED, "complexity").text == "Name a fruit."
    )


def test_a_seed_for_quality_needs_a_response():
    with pytest.raises(AssertionError, match="row-1"):
        first_version(Seed("row-1", "Name a fruit.", None), "quality")


def test_a_request_is_the_operations_prompt_about_the_version(prompts):
    version = first_version(SEED, "quality")
    request = evolution_request(prompts["quality"], version, "detail", temperature=0.7, max_tokens=99, attempt=2)
    content = prompts["quality"].render("detail", instruction="Name a fruit.", response="A pear.")
    assert request == ChatRequest(({"role": "user", "content": content},), 0.7, 99, False, 2)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("Name a red fruit.", "Name a red fruit."),
        ("Sure!\n<evolved>\nName a red fruit.\n</evolved>\nMore?", "Name a red fruit."),
        ("<think>fruit</think><EVOLVED>Name a red fruit.</EVOLVED>", "Name a red fruit."),
        ("I write between <evolved> and </evolved>:\n<evolved>New</evolved>", "New"),
        ("Sure: <evolved>New", "New"),
        ("New</evolved>", "New"),
        ("<evolved></evolved>", ""),
        ("<think>never ends", ""),
        ("  \n", ""),
    ],
)
def test_the_text_of_an_answer(raw, text):
    assert evolved_text(raw) == text


@given(st.text() | st.text(alphabet="<>/evold think\n"))
def test_no_answer_is_too_odd(raw):
    assert evolved_text(raw) == evolved_text(raw).strip()
    assert isinstance(is_refusal(raw), bool)


def test_a_good_answer_makes_a_version(prompts):
    raw = "Here it is: <evolved>Name a fruit that is red and sour.</evolved>"
    version = evolved(prompts, answered(raw))
    assert (version.instruction, version.response, version.status) == ("Name a fruit that is red and sour.", None, "ok")
    assert (version.seed_id, version.step, version.operation, version.raw) == ("row-1", 1, "deepen", raw)
    version = evolved(prompts, answered("A ripe Williams pear."), "quality", "detail")
    assert (version.instruction, version.response, version.status) == ("Name a fruit.", "A ripe Williams pear.", "ok")


LONG = "Name a fruit and say why. " * 100


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (answered(""), "empty"),
        (answered("<evolved> ... </evolved>"), "empty"),
        (answered("<think>no end"), "empty"),
        (answered("**name** a   FRUIT!"), "copy"),
        (answered(LONG), "too_long"),
        (answered("I'm sorry, but I can't help with that."), "refusal"),
        (answered("Name a red fr", "length"), "cut_off"),
        (answered("", "content_filter"), "filtered"),
        (Failure("deadline", "600 s"), "failed_deadline"),
        (Failure("no_content", ""), "failed_no_content"),
    ],
)
def test_an_eliminated_version_has_its_reason(prompts, answer, status):
    version = evolved(prompts, answer)
    assert version.status == status and not version.is_good
    assert version.raw == (None if isinstance(answer, Failure) else answer.text)
    assert (version.step, version.operation) == (1, "deepen")


@pytest.mark.parametrize("dimension", ["complexity", "quality"])
def test_the_bound_itself_is_allowed(prompts, dimension):
    operation = "deepen" if dimension == "complexity" else "detail"
    assert evolved(prompts, answered("x" * MAX_CHARS), dimension, operation).status == "ok"
    assert evolved(prompts, answered("x" * (MAX_CHARS + 1)), dimension, operation).status == "too_long"


def test_a_version_that_goes_back_to_an_earlier_one_is_eliminated(prompts):
    chain = [first_version(SEED, "complexity")]
    chain.append(evolved(prompts, answered("Name a red fruit.")))
    back = judge_evolution(
        chain[1], answered("name a fruit"), "deepen", 2, 99, prompts=prompts["complexity"], earlier=chain
    )
    assert back.status == "repeats_an_earlier_version"
    # An eliminated one is no text of the chain.
    failed = judge_evolution(
        chain[1], answered("Other words", "length"), "deepen", 2, 99, prompts=prompts["complexity"]
    )
    other = answered("Other words.")
    later = judge_evolution(chain[1], other, "deepen", 3, 99, prompts=prompts["complexity"], earlier=[*chain, failed])
    assert later.status == "ok"


def test_an_answer_that_gives_back_the_prompt_is_eliminated(prompts):
    prompt = prompts["complexity"].render("deepen", instruction=SEED.instruction)
    assert evolved(prompts, answered(prompt)).status == "repeats_the_prompt"
    own = prompts["complexity"].own_words("deepen")
    assert evolved(prompts, answered(f"Name a fruit: {' '.join(own[3:11])}?")).status == "repeats_the_prompt"
    assert evolved(prompts, answered(f"Name a fruit: {' '.join(own[3:10])}?")).status == "ok"


def test_what_the_seed_shares_with_the_prompt_is_not_the_prompts(prompts):
    own = " ".join(prompts["complexity"].own_words("deepen")[3:11])
    parent = first_version(Seed("row-1", f"Explain: {own}", None), "complexity")
    version = judge_evolution(
        parent, answered(f"Explain to a child: {own}"), "deepen", 1, 999, prompts=prompts["complexity"]
    )
    assert version.status == "ok"


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that request.",
        "I\N{RIGHT SINGLE QUOTATION MARK}m unable to write this.",
        "AS AN AI language model, I have no fruit.",
        "Es tut mir leid, aber das geht nicht.",
        "Je suis désolé, mais je ne peux pas.",
        "Lo siento, pero no puedo.",
        "抱歉\N{FULLWIDTH COMMA}我不能这样做。",
        "申し訳ありませんが、お手伝いできません。",
        "죄송하지만 도와드릴 수 없습니다.",
        "Извините, но я не могу.",
    ],
)
def test_refusals(text):
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "Why does a model say: I'm sorry, but I can't assist?",
        "I cannot open the jar. What can I do?",
        "Sorry is a card game. How is it played?",
        "I'm sorry, but " + "this is a letter of apology. " * (LONGEST_REFUSAL_CHARS // 25),
        "",
    ],
)
def test_no_refusals(text):
    assert not is_refusal(text)


def test_a_chain_goes_on_from_the_last_good_version(prompts):
    chain = chain_of("row-1", ("ok", "ok", "empty", "copy"))
    assert last_good(chain) == chain[1]
    request = next_request(prompts["complexity"], chain, "concretize", temperature=1.0, max_tokens=50)
    expected = evolution_request(
        prompts["complexity"], chain[1], "concretize", temperature=1.0, max_tokens=50, attempt=2
    )
    assert request == expected
    version = next_version(prompts["complexity"], chain, "concretize", answered("row-1 task 1!"), 99)
    assert (version.step, version.status) == (4, "copy")
    version = next_version(prompts["complexity"], chain, "concretize", answered("row-1 task 0!"), 99)
    assert version.status == "repeats_an_earlier_version"


def test_a_whole_chain(prompts):
    chain = [first_version(SEED, "quality")]
    for text in ("A green pear.", "", "A green pear from Styria.", "A pear."):
        request = next_request(prompts["quality"], chain, "detail", temperature=0.0, max_tokens=50)
        assert last_good(chain).text in request.messages[0]["content"]
        chain.append(next_version(prompts["quality"], chain, "detail", answered(text), 99))
    assert [version.status for version in chain] == ["ok", "ok", "empty", "ok", "repeats_an_earlier_version"]
    assert [version.step for version in chain] == [0, 1, 2, 3, 4]
    assert {version.instruction for version in chain} == {"Name a fruit."}
