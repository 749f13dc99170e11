"""The detectors over a file of records, without gateway or server: statistics, outliers and drift, in one report.

The file is a .csv with a header, or a .parquet; its columns are named as the model's features, categories are written
as codes. Without --by all of it is one window; with it each day, week or month is one. Of each window a uniform sample
is compared with the reference, as the service does it. The limits were calibrated for weeks: a shorter period is more
uniform in itself than any week, and alarms more often.

  python batch.py yesterday.csv --out report.html
  python batch.py flights.parquet --out report.json --by week --time scheduled --prediction probability

Exit codes: 0 the report is written, 2 it could not be.
"""

from __future__ import annotations

import one_thread  # noqa: F401 — before anything imports numpy

# isort: split

import argparse
import sys
import time
from pathlib import Path

from errors import DetectorsError

HERE = Path(__file__).resolve().parent
WRITERS = (".html", ".json")


def read_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; a wrong one ends the program with exit code 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("records", type=Path, help="the records, .csv or .parquet")
    add("--out", type=Path, required=True, help="the report, .html or .json; replaced as a whole")
    add("--by", choices=("day", "week", "month"), help="a window for each; needs --time")
    add("--time", metavar="COLUMN", help="when a record came in, ISO 8601 or a Parquet timestamp; needs --by")
    add("--prediction", metavar="COLUMN", help="what the model predicted for it; without, only features are compared")
    add(
        "--reference",
        type=Path,
        default=HERE / "reference.npz",
        help="what to compare with (default: beside this file)",
    )
    add("--calibration", type=Path, default=HERE / "calibration.json", help="the limits (default: beside this file)")
    add("--least-rows", type=int, default=200, help="a window with fewer is not judged (default: %(default)s)")
    add("--quiet", action="store_true", help="show no progress")
    options = parser.parse_args(argv)
    if bool(options.by) != bool(options.time):
        parser.error("--by and --time go together")
    if options.least_rows < 1:
        parser.error(f"--least-rows {options.least_rows}, expected 1 or more")
    return options


def run(options: argparse.Namespace) -> None:
    """Reads, judges and writes.

    Raises:
        DetectorsError: a file is not what it must be; a former report is left as it was.
    """
    _check_paths(options.records, options.out)
    # Imported here: they take seconds, and --help and a misspelt path should not.
    import reports
    from fitting import fit
    from records import Columns, read
    from survey import survey

    started = time.monotonic()
    fitted = fit(options.reference, options.calibration)
    columns = Columns(fitted.measurement.names, options.time, options.prediction)
    told = started

    def tell(rows: int, share: float) -> None:
        nonlocal told
        if not options.quiet and (time.monotonic() - told > 1 or share >= 1):
            told = time.monotonic()
            print(f"{options.records}: {rows:,} rows read ({share:.0%})", file=sys.stderr)

    report = survey(options.records, read(options.records, columns, options.by), fitted, options.least_rows, tell)
    text = reports.as_json(report) if options.out.suffix == ".json" else reports.as_html(report)
    reports.write(options.out, text)
    if not options.quiet:
        print(f"{options.out}: {reports.summary(report)}", file=sys.stderr)


def _check_paths(records: Path, out: Path) -> None:
    if records.suffix not in (".csv", ".parquet"):
        raise DetectorsError(records, f"suffix {records.suffix!r}", ".csv or .parquet", "Convert or rename the file.")
    if not records.is_file():
        raise DetectorsError(records, "no such file", "a file of records", "Give its path.")
    if out.suffix not in WRITERS:
        raise DetectorsError(out, f"suffix {out.suffix!r}", " or ".join(WRITERS), "It says how the report is written.")
    if not out.parent.is_dir():
        raise DetectorsError(out.parent, "no such folder", "a folder to write the report into", "Make it.")
    if out.is_dir():
        raise DetectorsError(out, "a folder", "a file to write or replace", "Give another --out.")


def main() -> int:
    """Runs the program; its exit code."""
    try:
        run(read_arguments())
    except DetectorsError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: no report was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
