import pytest

from deita_train.data.transcripts import is_open_transcript, is_transcript, transcript_texts


@pytest.mark.parametrize(
    ("transcript", "texts"),
    [
        ("\n\nHuman: hi\n\nAssistant: hello", [("user", "hi"), ("assistant", "hello")]),
        ("Human:  hi \n\nmore\n\nAssistant:hello\n", [("user", " hi \n\nmore"), ("assistant", "hello\n")]),
        (
            "\n\nHuman: a\n\nAssistant: b\nHuman: no turn\n\nHuman: c\n\nAssistant:",
            [("user", "a"), ("assistant", "b\nHuman: no turn"), ("user", "c"), ("assistant", "")],
        ),
    ],
)
def test_turns(transcript, texts):
    assert is_transcript(transcript)
    assert transcript_texts(transcript) == texts
    assert is_open_transcript(transcript) is (texts[-1][1] == "")


@pytest.mark.parametrize("value", ["hello", "\n\nAssistant: hi\n\nHuman: a", "A Human: b", "", None, 3, ["Human: a"]])
def test_what_is_not_a_transcript(value):
    assert not is_transcript(value)
    assert not is_open_transcript(value)
