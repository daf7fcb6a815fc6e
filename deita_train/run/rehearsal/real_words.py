"""A rehearsal's errors in the words of the real recipe: its file and lines, its models and its datasets."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deita_train.errors import UserError
from deita_train.recipe.loading import LoadedRecipe
from deita_train.run.failures import StageFailed


class RealNames:
    """What the files of a rehearsal stand for."""

    def __init__(self, loaded: LoadedRecipe, recipe_file: Path, made: Mapping[str, str]) -> None:
        """Remember names.

        Args:
            loaded: the real recipe.
            recipe_file: the recipe that is carried out in its place.
            made: by the path of a made file or folder, what it stands for.
        """
        self._loaded = loaded
        self._made = made
        self._line = re.compile(rf"^{re.escape(str(recipe_file))}(?::\d+)?: ([\w.-]+): ", re.MULTILINE)

    def told(self, text: str) -> str:
        """A message with the real names."""
        for path in sorted(self._made, key=len, reverse=True):
            text = text.replace(path, self._made[path])
        return self._line.sub(lambda found: f"{self._place(found[1])}: {found[1]}: ", text)

    def of(self, error: Exception) -> Exception:
        """An error that says the same with the real names."""
        return type(error)(self.told(str(error)))

    @contextmanager
    def in_errors(self) -> Iterator[None]:
        """Tell errors of what is done within by the real names."""
        try:
            yield
        except (UserError, StageFailed) as error:
            raise self.of(error) from error

    def _place(self, path: str) -> str:
        """The real recipe's file, with the line where it states something at a path."""
        line = self._loaded.positions.line(path.split("."))
        return f"{self._loaded.path}:{line}" if line else str(self._loaded.path)
