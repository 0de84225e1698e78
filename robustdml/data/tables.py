"""Tables as spreadsheets, pandas, polars and Parquet write them, as rows of values."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from robustdml.errors import DataError
from robustdml.printable import shown
from robustdml.values import brief

T = TypeVar("T")

#: What ends the name of a table, before that of a compression.
SUFFIXES = (".csv", ".tsv", ".parquet")
_UNPACKED: Mapping[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
#: In bytes, unpacked: a row for each of ten million images. What is packed may be a thousand times as large.
_LARGEST = 2**30
_DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Row:
    """One row: its values by column, and how a person finds it."""

    place: str
    values: Mapping[str, Any]

    def get(self, column: str) -> Any:
        """The value; None where there is no such column. Bytes, as some writers of Parquet store text, are text."""
        value = self.values.get(column)
        return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value

    def read(self, column: str, parse: Callable[[Any], T], wanted: str) -> T:
        """The parsed value.

        Raises:
            DataError: ``parse`` refuses it; the message says what is ``wanted``.
        """
        value = self.get(column)
        try:
            return parse(value)
        except (KeyError, ValueError, TypeError, OverflowError):
            problem = "empty" if is_missing(value) else brief(value)
            raise self.error(column, f"is {problem}: it must be {wanted}") from None

    def error(self, column: str, problem: str) -> DataError:
        """The error that says what is wrong with the value."""
        return DataError(f"{self.place}, column '{column}' {problem}")


@dataclass(frozen=True)
class Table:
    """The rows of a table.

    Args:
        name: for messages.
        columns: their names, without spaces around them and in small letters.
        rows: those in which anything is written.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def is_table(path: Path) -> bool:
    """Whether the name says so."""
    return _kind(path) in SUFFIXES


def is_missing(value: Any) -> bool:
    """Whether there is no value: None, NaN, pandas' NA, or no letter but spaces."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value)) or str(value) in {"<NA>", "NaT"}


def columns_of(path: Path) -> tuple[str, ...]:
    """The columns of a table, as in `Table`; none where it cannot be read."""
    try:
        columns = _read_parquet(path)[0] if _kind(path) == ".parquet" else _csv_header(path)
    except (OSError, ValueError, EOFError, csv.Error, lzma.LZMAError):
        return ()
    return tuple(column.strip().lower() for column in columns)


def read_table(path: Path) -> Table:
    """Read a file.

    Raises:
        DataError: it is no table by its name, or cannot be read, or two columns have one name.
    """
    name = f"the table '{shown(str(path))}'"
    if not is_table(path):
        raise DataError(
            f"{name} must be {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, by its extension, after which may stand "
            f"{', '.join(_UNPACKED)}"
        )
    try:
        columns, rows = _read_parquet(path) if _kind(path) == ".parquet" else _read_csv(path)
    except (OSError, ValueError, EOFError, csv.Error, lzma.LZMAError) as cause:
        raise DataError(f"{name} cannot be read ({cause}): write it again as CSV or Parquet") from None
    return _table(name, columns, rows)


def table_of_frame(frame: Any) -> Table:
    """The rows of a frame of pandas or polars, or of a table of pyarrow.

    Raises:
        DataError: it is none of these, or two columns have one name.
    """
    frame = frame.collect() if hasattr(frame, "collect") else frame  # polars, lazily
    if hasattr(frame, "to_pylist"):
        columns, records = list(frame.column_names), frame.to_pylist()
    elif hasattr(frame, "columns") and hasattr(frame, "__getitem__"):
        columns = [str(column) for column in frame.columns]
        _check_distinct("the frame", columns)  # A frame gives two columns for a name that two have.
        values = [[_plain(value) for value in frame[column]] for column in frame.columns]
        records = [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]
    else:
        raise DataError(
            f"a table is a file, or a frame of pandas, polars or pyarrow, and this is {type(frame).__name__}: give one"
        )
    rows = [Row(f"row {number} of the frame", values) for number, values in enumerate(records, start=1)]
    return _table("the frame", columns, rows)


def _plain(value: Any) -> Any:
    """A scalar of NumPy as Python's own."""
    return value.item() if hasattr(value, "item") and not hasattr(value, "__len__") else value


def _table(name: str, columns: Iterable[str | None], rows: Iterable[Row]) -> Table:
    written = [column for column in columns if column is not None]
    _check_distinct(name, written)
    names = {column: column.strip().lower() for column in written}
    cleaned = (Row(row.place, {names[key]: value for key, value in row.values.items()}) for row in rows)
    kept = tuple(row for row in cleaned if not all(is_missing(value) for value in row.values.values()))
    return Table(name, tuple(names.values()), kept)


def _check_distinct(name: str, columns: Iterable[str]) -> None:
    # Columns without a name are what pandas writes for its index.
    repeated = [column for column, count in Counter(map(str.lower, map(str.strip, columns))).items() if count > 1]
    if any(repeated):
        raise DataError(f"{name} has the column '{next(filter(None, repeated))}' twice: leave one out")


def _kind(path: Path) -> str:
    """The extension, without that of a compression."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in _UNPACKED else suffix


def _content(path: Path) -> bytes:
    with _UNPACKED.get(path.suffix.lower(), Path.open)(path, "rb") as file:
        data: bytes = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise ValueError(f"it is larger than {_LARGEST:,} bytes")
    return data


def _decoded(content: bytes) -> str:
    """Text in UTF-8, or in UTF-16 or 32 with its mark; other bytes are kept, as names of files may hold any."""
    if content.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return content.decode("utf-32")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    if b"\0" in content:
        raise ValueError("it holds a zero byte, so it is no text")
    return content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


def _csv_header(path: Path) -> list[str]:
    lines, delimiter = _from_header(_decoded(_content(path)).splitlines())
    return next(csv.reader(lines[:1], delimiter=delimiter or _delimiter(lines), skipinitialspace=True), [])


def _from_header(lines: list[str]) -> tuple[list[str], str | None]:
    """Without empty lines at the top and a first line ``sep=;``, which spreadsheets write; the delimiter it names."""
    lines = lines[next((number for number, line in enumerate(lines) if line.strip()), 0) :]
    if lines and lines[0].strip().strip('"').lower().startswith("sep=") and len(lines[0].strip().strip('"')) == 5:
        return lines[1:], lines[0].strip().strip('"')[-1]
    return lines, None


def _delimiter(lines: list[str]) -> str:
    """What stands between the columns: of the usual marks that which parts the header into most."""
    header = lines[0] if lines else ""
    return max(_DELIMITERS, key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))


def _read_csv(path: Path) -> tuple[list[str], list[Row]]:
    whole = _decoded(_content(path)).splitlines(keepends=True)
    lines, named = _from_header(whole)
    skipped = len(whole) - len(lines)
    reader = csv.DictReader(
        io.StringIO("".join(lines), newline=""),
        restval="",
        delimiter=named or _delimiter(lines),
        skipinitialspace=True,
        strict=True,
    )
    header = list(reader.fieldnames or ())
    rows = []
    for values in reader:
        row = Row(f"line {reader.line_num + skipped} of '{shown(str(path))}'", values)
        if any(not is_missing(value) for value in values.pop(cast(str, None), ())):
            raise DataError(
                f"{row.place} has more cells than the {len(header)} columns that the first line names: put quotes "
                f"around a value that holds the mark between columns ('{reader.reader.dialect.delimiter}')"
            )
        rows.append(row)
    return header, rows


def _read_parquet(path: Path) -> tuple[list[str], list[Row]]:
    # Slow to import, and no other data set needs it. Its errors are subclasses of ValueError and OSError.
    import pyarrow
    from pyarrow import parquet

    table = parquet.read_table(pyarrow.BufferReader(_content(path)))
    records = enumerate(table.to_pylist(), start=1)
    place = f"of '{shown(str(path))}'"
    return list(table.column_names), [Row(f"row {number} {place}", values) for number, values in records]
