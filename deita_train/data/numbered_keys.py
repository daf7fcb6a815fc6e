"""Different keys, numbered in the order in which they were added: hash tables in arrays, without objects of Python."""

from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable
from typing import Generic, TypeVar

Key = TypeVar("Key")
# Slots for each key that is found by its hash; with fewer, searches grow long.
_LEAST_FREE, _GROWTH = 3, 2
_EMPTY = -1
_BYTES = 8


class NumberedKeys(ABC, Generic[Key]):
    """Keys found by their hashes. Memory holds some twenty bytes for each, and what a subclass keeps of them."""

    def __init__(self) -> None:
        self._hashes = array("q")
        self._slots = array("i", [_EMPTY]) * 64

    def __len__(self) -> int:
        return len(self._hashes)

    def number_of(self, key: Key) -> int | None:
        """The number of a key; None for one that was not added."""
        number = self._slots[self._slot(key)]
        return None if number == _EMPTY else number

    def add(self, key: Key) -> int:
        """The number of a key, which is the next one if it was not there."""
        slot = self._slot(key)
        if self._slots[slot] != _EMPTY:
            return self._slots[slot]
        self._slots[slot] = len(self._hashes)
        self._hashes.append(self._hash(key))
        self._keep(key)
        if len(self._hashes) * _LEAST_FREE > len(self._slots) * 2:
            self._grow()
        return len(self._hashes) - 1

    def extend(self, keys: Iterable[Key]) -> None:
        """Add several."""
        for key in keys:
            self.add(key)

    @abstractmethod
    def _hash(self, key: Key) -> int:
        """A number of 64 bits, with a sign."""

    @abstractmethod
    def _keep(self, key: Key) -> None:
        """Keep what tells a new key, which gets the next number, from others of the same hash."""

    @abstractmethod
    def _is(self, number: int, key: Key) -> bool:
        """Whether a number is that of a key that has its hash."""

    def _slot(self, key: Key) -> int:
        """The slot that holds the number of a key, or is left for it."""
        code, last = self._hash(key), len(self._slots) - 1
        slot = code & last
        while (number := self._slots[slot]) != _EMPTY:
            if self._hashes[number] == code and self._is(number, key):
                break
            slot = (slot + 1) & last
        return slot

    def _grow(self) -> None:
        self._slots = array("i", [_EMPTY]) * (_GROWTH * len(self._slots))
        last = len(self._slots) - 1
        for number, code in enumerate(self._hashes):
            slot = code & last
            while self._slots[slot] != _EMPTY:
                slot = (slot + 1) & last
            self._slots[slot] = number


class NumberedDigests(NumberedKeys[bytes]):
    """SHA-256 digests by their first 16 bytes: two of 2**50 are taken for one with a probability of 2**-29."""

    def __init__(self) -> None:
        super().__init__()
        self._rests = array("q")

    def _hash(self, key: bytes) -> int:
        return int.from_bytes(key[:_BYTES], "big", signed=True)

    def _keep(self, key: bytes) -> None:
        self._rests.append(self._rest(key))

    def _is(self, number: int, key: bytes) -> bool:
        return self._rests[number] == self._rest(key)

    def _rest(self, key: bytes) -> int:
        return int.from_bytes(key[_BYTES : 2 * _BYTES], "big", signed=True)


class PlacesOfDigests:
    """A whole number of up to 63 bits for each of many SHA-256 digests; some forty bytes for each."""

    def __init__(self) -> None:
        self._digests = NumberedDigests()
        self._places = array("q")

    def __len__(self) -> int:
        return len(self._places)

    def get(self, digest: bytes) -> int | None:
        """The number of a digest; None if it has none."""
        number = self._digests.number_of(digest)
        return None if number is None else self._places[number]

    def put(self, digest: bytes, place: int, *, replace: bool) -> None:
        """Keep a digest's number; one that it has already stays, unless it is to be replaced."""
        number = self._digests.add(digest)
        if number == len(self._places):
            self._places.append(place)
        elif replace:
            self._places[number] = place
