"""Sequences whose items are made where they are wanted."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar, overload

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
