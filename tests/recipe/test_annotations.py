import pytest

from deita_train.recipe.annotations import accepts, is_finite, unknown_names, wanted

CASES = [
    ("bool", [True, False], ["no", "true", 0, 1, None, 0.0]),
    ("int", [0, -3], [True, 1.0, "1", None, [1]]),
    ("float", [0.5, 3, -1], [True, "2e-5", None]),
    ("str", ["", "no"], [True, 1, 1.5, None]),
    ("bool | None", [None, True], ["no", 0]),
    ("Optional[int]", [None, 3], [3.0, "3", False]),
    ("typing.Optional[float]", [None, 3, 0.1], ["3"]),
    ("Union[int, str, None]", [1, "auto", None], [1.5, True, []]),
    ("'int | None'", [1, None], ["1"]),
    ("Annotated[int, 'steps']", [1], [1.5]),
    ("None | str | list[str]", [None, "a", ["a", "b"], []], [["a", 1], 1, {}]),
    ("list[float]", [[1, 0.5], []], [["1"], [True], 1.0, {"a": 1}]),
    ("List[int]", [[1]], [[1.0]]),
    ("list", [[1, "a", None]], ["a", {}]),
    ("dict", [{"a": 1}], [[], "a"]),
    ("dict[str, Any] | str | None", [{"a": [1]}, "{}", None], [3, [1]]),
    ("dict[str, bool] | None", [{"rope": True}], [{"rope": 1}, {"rope": "no"}]),
    ("dict[str, list[int]]", [{"a": [1]}], [{"a": [1.0]}, {"a": 1}]),
    ("Literal['a', 'b', 3]", ["a", 3], ["c", 3.0, "3", True]),
    ("str | None | Literal[False]", ["x", None, False], [True, 0]),
    ("Any", [1, "a", None], []),
    ("SchedulerType | str", ["cosine"], [3, False, None, {}]),
    ("trainer_utils.SaveStrategy | str", ["no"], [False]),
    ("str | list[DebugOption]", ["", ["x"], [3]], [3, {}]),
    ("ParallelismConfig | None", [None, "x", {"dp": 2}, 3], []),
    ("Callable[[int], int]", ["x", 3], []),
]


@pytest.mark.parametrize(("annotation", "fit", "misfit"), CASES)
def test_values_fit_or_not(annotation, fit, misfit):
    assert [value for value in fit if not accepts(annotation, value)] == []
    assert [value for value in misfit if accepts(annotation, value)] == []


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ("int | None", ("a whole number", "null")),
        ("Optional[bool]", ("true or false", "null")),
        ("SchedulerType | str", ("text",)),
        ("dict[str, bool] | float", ("a mapping of true or false", "a number")),
        ("list[str]", ("a list of text",)),
        ("Literal['a', False]", ("'a', false",)),
        ("Any", ()),
    ],
)
def test_what_is_wanted_in_words(annotation, words):
    assert wanted(annotation) == words


def test_unknown_names():
    assert unknown_names("a.SchedulerType | str") == ("SchedulerType",)
    assert unknown_names("dict[str, Foo] | list[Bar] | Any | None | bool") == ()


def test_infinite_numbers_are_found_at_any_depth():
    assert is_finite({"a": [1, 2.5, {"b": "inf"}], "c": None})
    assert not is_finite({"a": [1, {"b": float("nan")}]})
    assert not is_finite(float("-inf"))
