"""Records out of a CSV or Parquet file, a part at a time; what cannot be read is named by column, row and remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from errors import DetectorsError
from pandas.errors import EmptyDataError, ParserError

PART_ROWS = 50_000
SUFFIXES = (".csv", ".parquet")
PERIODS = ("day", "week", "month")


@dataclass(frozen=True)
class Columns:
    """Which columns to read: the features in the model's order, and where asked for the time and the prediction."""

    features: Sequence[str]
    time: str | None = None
    prediction: str | None = None

    @property
    def all(self) -> list[str]:
        return [*self.features, *(name for name in (self.time, self.prediction) if name)]


@dataclass(frozen=True)
class Part:
    """Some rows [n, k] in the file's order, with predictions [n] (NaN where there is none) and the period of each."""

    rows: npt.NDArray[np.float32]
    predictions: npt.NDArray[np.float64]
    periods: npt.NDArray[np.str_] | None
    share_read: float
    """How much of the file has been read with this part, 0 to 1."""


def read(path: Path, columns: Columns, by: str | None = None, part_rows: int = PART_ROWS) -> Iterator[Part]:
    """The records of a .csv (with a header, comma-separated, UTF-8) or .parquet file.

    `by` (one of PERIODS, needs columns.time) gives each row the ISO name of its period, by UTC where times have a zone.

    Raises:
        DetectorsError: no such file, no records, a column that is missing or holds what is no number or no time.
    """
    if not path.is_file():
        raise DetectorsError(path, "no such file", "a file of records", "Give its path.")
    frames = _csv(path, columns, part_rows) if path.suffix == ".csv" else _parquet(path, columns, part_rows)
    first_row = 1
    for frame, share_read in frames:
        rows = np.column_stack([_numbers(path, frame[name], first_row) for name in columns.features])
        with np.errstate(over="ignore"):  # what a float32 cannot hold is infinite, and counted as missing
            rows = rows.astype(np.float32)
        predictions = (
            _numbers(path, frame[columns.prediction], first_row) if columns.prediction else np.full(len(rows), np.nan)
        )
        periods = _periods(path, frame[columns.time], first_row, by) if by and columns.time else None
        yield Part(rows, predictions, periods, share_read)
        first_row += len(frame)
    if first_row == 1:
        raise DetectorsError(path, "no records", "one or more rows below the header", "Give a file that holds some.")


def _csv(path: Path, columns: Columns, part_rows: int) -> Iterator[tuple[pd.DataFrame, float]]:
    try:
        with path.open("rb") as file:
            _require(path, list(pd.read_csv(file, nrows=0).columns), columns)
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            parts = pd.read_csv(
                file,
                usecols=list(dict.fromkeys(columns.all)),
                chunksize=part_rows,
                low_memory=False,
                # The default is off by a last bit now and then, which parts what is equal in the reference.
                float_precision="round_trip",
            )
            for frame in parts:
                yield frame, file.tell() / size_bytes
    except EmptyDataError:
        raise DetectorsError(path, "empty", "a header and records", "Give a file that holds some.") from None
    except (ParserError, UnicodeDecodeError, OSError) as error:
        raise DetectorsError(
            path, str(error).strip(), "comma-separated values in UTF-8", "Write it anew, or as Parquet."
        ) from error


def _parquet(path: Path, columns: Columns, part_rows: int) -> Iterator[tuple[pd.DataFrame, float]]:
    try:
        with pq.ParquetFile(path) as file:
            _require(path, file.schema_arrow.names, columns)
            done = 0
            for batch in file.iter_batches(part_rows, columns=list(dict.fromkeys(columns.all))):
                done += batch.num_rows
                yield batch.to_pandas(), done / file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DetectorsError(path, str(error).strip(), "a Parquet file", "Write it anew, or as CSV.") from error


def _require(path: Path, found: Sequence[str], columns: Columns) -> None:
    missing = [name for name in columns.all if name not in found]
    if missing:
        plural = "s" if len(missing) > 1 else ""
        raise DetectorsError(
            path,
            f"no column{plural} {', '.join(missing)} among {', '.join(map(str, found[:30]))}",
            f"the features {', '.join(columns.features)} and the columns named on the command line",
            "Name the columns as the model's features are named; write categories as the codes of the training data.",
        )


def _numbers(path: Path, values: pd.Series, first_row: int) -> npt.NDArray[np.float64]:
    """The column as float64 [n], NaN where it is empty."""
    if values.dtype.kind in "iuf":
        return values.to_numpy(np.float64, na_value=np.nan)
    plain = values.astype(object)
    numbers = pd.to_numeric(plain, errors="coerce") if values.dtype.kind not in "bmM" else plain.where(plain.isna())
    wrong = np.flatnonzero(numbers.isna() & plain.notna())
    if len(wrong):
        raise _wrong(
            path, plain, first_row, int(wrong[0]), "a number", "Write categories as the codes of the training data."
        )
    return numbers.to_numpy(np.float64, na_value=np.nan)


def _periods(path: Path, values: pd.Series, first_row: int, by: str) -> npt.NDArray[np.str_]:
    """The name of each row's period: 2013-02-28, 2013-W09 or 2013-02."""
    if values.dtype.kind in "iufb":
        times = pd.Series(pd.NaT, values.index, dtype="datetime64[ns, UTC]")
    elif values.dtype.kind == "M":
        times = pd.to_datetime(values, utc=True)
    else:
        times = pd.to_datetime(values, errors="coerce", format="ISO8601", utc=True)
    wrong = np.flatnonzero(times.isna())
    if len(wrong):
        raise _wrong(path, values, first_row, int(wrong[0]), "a date or time as in 2013-02-28 or 2013-02-28T17:05", "")
    if by == "week":
        weeks = times.dt.isocalendar()
        names = weeks["year"].astype(str).str.zfill(4) + "-W" + weeks["week"].astype(str).str.zfill(2)
    else:
        names = times.dt.strftime("%Y-%m-%d" if by == "day" else "%Y-%m")
    return names.to_numpy(np.str_)


def _wrong(path: Path, values: pd.Series, first_row: int, index: int, expected: str, remedy: str) -> DetectorsError:
    found = repr(values.iloc[index])[:80]
    return DetectorsError(
        f"{path}, column {values.name}, row {first_row + index}",
        f"found {found}",
        expected,
        f"{remedy} Rows are counted from 1 below the header.".strip(),
    )
