"""Rows of CSV and TSV files: a header, then values, all of them text."""

import csv
import sys
from collections import Counter
from collections.abc import Iterator

from deita_train.data.data_file import DataFile, decoded_line, text_lines
from deita_train.data.source_row import SourceRow
from deita_train.errors import UserError


def csv_rows(file: DataFile) -> Iterator[SourceRow]:
    """The rows of a file whose first record names the columns.

    Every value is text, an empty one null. A value in double quotes may hold the delimiter, line ends and doubled
    quotes. Empty lines are skipped but counted in ``where``, which names a record's first line. A column without a name
    is called "Unnamed: <position>", as pandas and datasets do.

    Raises:
        UserError: with file and line, if the quotes are wrong, a record has another number of values than the header,
            two columns have one name, or the file cannot be read.
    """
    records = _records(file)
    line, names = next(records, (1, []))
    columns = [name or f"Unnamed: {position}" for position, name in enumerate(names)]
    repeated = [name for name, count in Counter(columns).items() if count > 1]
    if repeated:
        raise UserError(f"{file.label}:{line}: two columns are named {repeated[0]!r}; give each its own name")
    for index, (line, values) in enumerate(records):
        where = f"{file.label}:{line}"
        if len(values) != len(columns):
            raise UserError(
                f"{where}: {len(values)} values for {len(columns)} columns ({', '.join(columns)}); a value that holds "
                "the delimiter or a line end stands in double quotes, and a double quote inside it is doubled"
            )
        yield SourceRow(index, where, {name: value or None for name, value in zip(columns, values, strict=True)})


def _records(file: DataFile) -> Iterator[tuple[int, list[str]]]:
    """Each record that is not empty, with its first line."""
    csv.field_size_limit(sys.maxsize)  # by default a value of 128 KiB is an error
    delimiter = "\t" if file.suffix.startswith(".tsv") else ","
    reader = csv.reader(_text_lines(file), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise UserError(
                f"{file.label}:{line}: malformed {file.suffix.split('.')[1].upper()}: {error}; fix the quotes "
                "of this record"
            ) from error
        if values is None:
            return
        if values:
            yield line, values


def _text_lines(file: DataFile) -> Iterator[str]:
    for number, line in enumerate(text_lines(file), start=1):
        yield decoded_line(line, f"{file.label}:{number}")
