import errno
import json
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_train.errors import UserError, machine_fault
from deita_train.llm import answers
from deita_train.llm.answers import Answer, AnswerStore, Failure
from deita_train.llm.requests import ChatRequest
from llm.asking_children import add_forty, add_in_a_fork


def request(text):
    return ChatRequest(({"role": "user", "content": text},))


def key(text):
    return request(text).key("m")


def add(store, text, answer=None):
    given = Answer(f"to {text}", "stop", 3, 4) if answer is None else answer
    store.add(key(text), request(text), given, "m")
    return given


def files(folder):
    return sorted(folder.glob("*.jsonl"))


def test_an_answer_is_found_by_its_key_here_and_in_the_next_process(tmp_path):
    store = AnswerStore(tmp_path / "deep" / "answers")
    given = add(store, "a")
    assert store.get(key("a")) == given and store.get(key("b")) is None and len(store) == 1
    again = AnswerStore(tmp_path / "deep" / "answers")
    assert again.get(key("a")) == given and len(again) == 1


def test_a_line_is_json_that_a_person_can_read(tmp_path):
    store = AnswerStore(tmp_path)
    add(store, "Grüße", Answer("Zürich\n\u2028", None, None, None))
    (file,) = files(tmp_path)
    (line,) = file.read_text(encoding="utf-8").split("\n")[:-1]
    assert "Grüße" in line and "Zürich" in line
    body = json.loads(line)
    assert set(body) == {"checksum", "key", "answer", "model", "request"}
    assert body["request"]["messages"] == [{"role": "user", "content": "Grüße"}]
    assert (body["key"], body["model"]) == (key("Grüße"), "m")


def test_a_store_that_is_only_read_makes_nothing(tmp_path):
    store = AnswerStore(tmp_path / "answers")
    store.refresh()
    store.sync()
    store.close()
    assert store.get(key("a")) is None and list(tmp_path.iterdir()) == []


def test_failures_are_kept_and_never_served(tmp_path):
    store = AnswerStore(tmp_path)
    add(store, "a", Failure("deadline", "no answer within 3 s"))
    add(store, "a", Failure("server_error", "status 500"))
    for reader in (store, AnswerStore(tmp_path)):
        assert reader.get(key("a")) is None and len(reader) == 0
        assert reader.failure(key("a")) == Failure("server_error", "status 500")
        assert reader.failure(key("b")) is None
    given = add(store, "a")
    assert AnswerStore(tmp_path).get(key("a")) == given


def test_processes_write_files_of_their_own_and_see_each_others_answers_after_refresh(tmp_path):
    one, two = AnswerStore(tmp_path), AnswerStore(tmp_path)
    add(one, "a"), add(two, "b")
    assert len(files(tmp_path)) == 2
    assert one.get(key("b")) is None
    one.refresh(), two.refresh()
    assert (one.get(key("b")).text, two.get(key("a")).text) == ("to b", "to a")
    add(two, "c"), one.refresh()
    assert one.get(key("c")).text == "to c"


def test_of_two_answers_the_older_file_counts_and_a_served_one_stays(tmp_path):
    one, two = AnswerStore(tmp_path), AnswerStore(tmp_path)
    add(one, "before")
    first, second = Answer("first", "stop", 1, 1), Answer("second", "stop", 1, 1)
    add(two, "a", second)
    add(one, "a", first)
    one.refresh(), two.refresh()
    assert (one.get(key("a")), two.get(key("a"))) == (first, second)
    assert AnswerStore(tmp_path).get(key("a")) == first


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """The bytes of a file with answers to a, b, c and d."""
    folder = tmp_path_factory.mktemp("whole")
    store = AnswerStore(folder)
    for text in "abcd":
        add(store, text)
    return files(folder)[0].read_bytes()


def found_in(folder, content):
    """Which of a, b, c and d a store finds that has only a file with these bytes, and its damaged lines."""
    (folder / "1.jsonl").write_bytes(content)
    store = AnswerStore(folder)
    return [store.get(key(text)) is not None for text in "abcd"], store.damaged_lines


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_is_cut_off_the_end_costs_only_the_lines_it_touches(tmp_path_factory, content, data):
    cut = data.draw(st.integers(0, len(content)))
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    assert found_in(tmp_path_factory.mktemp("cut"), content[:cut]) == ([end <= cut for end in ends], 0)


def test_a_changed_byte_costs_one_line(tmp_path, content):
    """Every byte of the second line but its end."""
    start, end = (
        place + 1 for place, byte in list(enumerate(content)) if byte == ord("\n") and place < len(content) / 2
    )
    for place in range(start, end - 1):
        changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        assert found_in(tmp_path, changed) == ([True, False, True, True], 1)


def test_a_process_after_a_kill_goes_on_in_another_file(tmp_path, content):
    """So that nothing is glued to the line that was cut."""
    assert found_in(tmp_path, content[:-5]) == ([True, True, True, False], 0)
    add(AnswerStore(tmp_path), "d")
    assert len(files(tmp_path)) == 2 and len(AnswerStore(tmp_path)) == 4


def test_a_line_being_written_is_read_once_it_is_whole(tmp_path):
    store = AnswerStore(tmp_path)
    add(store, "a")
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    copy = file.with_name("99999-copy.jsonl")
    copy.write_bytes(whole.replace(key("a").encode(), key("b").encode())[:-5])
    reader = AnswerStore(tmp_path)
    assert len(reader) == 1
    other = AnswerStore(tmp_path / "other")
    add(other, "b")
    copy.write_bytes(files(tmp_path / "other")[0].read_bytes())
    reader.refresh()
    assert reader.get(key("b")).text == "to b"


def test_a_file_changed_after_it_was_read_is_told(tmp_path):
    store = AnswerStore(tmp_path)
    add(store, "a")
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes().replace(b"to a", b"to b"))
    with pytest.raises(UserError, match="changed from outside"):
        store.get(key("a"))


def test_a_lone_surrogate_is_kept(tmp_path):
    add(AnswerStore(tmp_path), "a", Answer("\ud800", "stop", 1, 1))
    assert AnswerStore(tmp_path).get(key("a")).text == "\ud800"


def test_add_waits_for_the_disk_and_append_does_not(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(answers.os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    store = AnswerStore(tmp_path)
    store.append(key("a"), request("a"), Answer("x", "stop", 1, 1))
    store.append(key("b"), request("b"), Answer("x", "stop", 1, 1))
    assert not [size for size in synced if size and size == files(tmp_path)[0].stat().st_size]
    synced.clear()
    store.sync(), store.sync()
    assert synced == [files(tmp_path)[0].stat().st_size]
    add(store, "c")
    assert synced[1:] == [files(tmp_path)[0].stat().st_size]


def test_threads_add_at_once(tmp_path):
    store = AnswerStore(tmp_path)
    texts = [[f"{thread} {number}" for number in range(25)] for thread in range(8)]
    threads = [threading.Thread(target=lambda mine=mine: [add(store, text) for text in mine]) for mine in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = AnswerStore(tmp_path)
    assert all(again.get(key(text)).text == f"to {text}" for mine in texts for text in mine)
    assert len(again) == 200 and again.damaged_lines == 0


def test_processes_add_at_once(processes, tmp_path):
    children = [processes.Process(target=add_forty, args=(tmp_path, name)) for name in "abc"]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    store = AnswerStore(tmp_path)
    assert len(store) == 3 * 40 + 40 and store.damaged_lines == 0 and len(files(tmp_path)) == 3


def test_a_forked_process_writes_a_file_of_its_own(processes, tmp_path):
    child = processes.Process(target=add_in_a_fork, args=(tmp_path,))
    child.start(), child.join(60)
    assert child.exitcode == 0
    assert len(files(tmp_path)) == 2 and len(AnswerStore(tmp_path)) == 3


class FullDisk:
    """A file that takes `room` bytes."""

    def __init__(self, file, room):
        self._file, self._room = file, room

    def write(self, data):
        if self._room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._file.write(data[: self._room])
        self._room -= written
        return written

    def __getattr__(self, name):
        return getattr(self._file, name)


def test_a_full_disk_is_told_and_costs_only_the_answer_that_did_not_fit(tmp_path):
    store = AnswerStore(tmp_path)
    add(store, "a")
    own = store._own
    own._file = FullDisk(own._file, 20)
    with pytest.raises(OSError, match="No space left") as raised:
        add(store, "b")
    fault = machine_fault(raised.value, tmp_path)
    assert str(own.path) in str(fault)
    assert store.get(key("b")) is None
    add(store, "c")
    again = AnswerStore(tmp_path)
    assert [again.get(key(text)) is not None for text in "abc"] == [True, False, True]
    assert len(files(tmp_path)) == 2 and again.damaged_lines == 0


def test_the_alternatives_to_a_first_token_come_back_and_other_lines_stay_as_they_were(tmp_path):
    store = AnswerStore(tmp_path)
    weighted = ChatRequest(({"role": "user", "content": "a"},), top_logprobs=5)
    assert "top_logprobs" not in request("a").as_dict() and weighted.key("m") != key("a")
    # The key and the line of a request from before there were alternatives.
    assert key("a") == "5713cceeb27b9216a7801918c5f1072972f4e8b967bec34f304c0ee117c715da"
    given = Answer("A", "length", 3, 1, {"A": -0.5, " B": -1.25})
    store.add(weighted.key("m"), weighted, given, "m")
    add(store, "b")
    assert AnswerStore(tmp_path).get(weighted.key("m")) == given
    (file,) = files(tmp_path)
    of_b = json.loads(file.read_text().splitlines()[1])
    assert set(of_b["answer"]) == {"text", "finish_reason", "prompt_tokens", "completion_tokens"}
