"""Sequences whose items are made where they are wanted."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar, overload

Item = TypeVar("Item")


class LazySequence(Sequence[Item], Generic[Item]):
    """A sequence that holds no items; a slice of it is a list of them."""

    @abstractmethod
    def item(self, place: int) -> Item:
        """The item at a place, 0 or more."""

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> list[Item]: ...
    def __getitem__(self, place: int | slice) -> Item | list[Item]:
        if isinstance(place, slice):
            return [self.item(one) for one in range(*place.indices(len(self)))]
        return self.item(range(len(self))[place])

    def __iter__(self) -> Iterator[Item]:
        # Sequence's own takes an IndexError of `item` for the end.
        return map(self.item, range(len(self)))


class Mapped(LazySequence[Item]):
    """What a function makes of each of some items, each time anew."""

    def __init__(self, function: Callable[[Any], Item], items: Sequence[Any]) -> None:
        self._function = function
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def item(self, place: int) -> Item:
        """What is made of the item at a place."""
        return self._function(self._items[place])


def in_groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Items in lists of `size`, the last one of what is left."""
    waiting = iter(items)
    while group := list(islice(waiting, size)):
        yield group
