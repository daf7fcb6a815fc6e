import pytest

from deita_train.data.lazy_sequence import LazySequence, Mapped, in_groups


class Broken(LazySequence[int]):
    def __len__(self):
        return 4

    def item(self, place):
        return [10, 20][place]


def test_an_error_of_an_item_is_not_taken_for_the_end():
    made = []
    with pytest.raises(IndexError):
        made.extend(Broken())
    with pytest.raises(IndexError):
        list(Broken())


def test_items_are_made_where_they_are_wanted():
    made = []

    def double(item):
        made.append(item)
        return 2 * item

    items = Mapped(double, range(5))
    assert len(items) == 5 and made == []
    assert items[-1] == 8 and items[1:3] == [2, 4] and made == [4, 1, 2]
    assert list(items) == [0, 2, 4, 6, 8] and 6 in items
    with pytest.raises(IndexError):
        items[5]


def test_groups_are_in_order_and_the_last_has_what_is_left():
    assert list(in_groups(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(in_groups([], 2)) == []
