"""Scores a .npy file of float32 [n, 12] into one of float64 [n], in the standard library."""

import re
import struct
import sys

from faults import FAULT
from weights import COLUMNS, checked, predict

HEADER = struct.Struct("<6sBBH")


def read(path: str) -> list[list[float]]:
    with open(path, "rb") as file:
        *_, length = HEADER.unpack(file.read(HEADER.size))
        header = file.read(length).decode("latin1")
        assert "'<f4'" in header
        assert re.search(rf"\(\d+, {COLUMNS}\)", header)
        return [list(row) for row in struct.iter_unpack(f"<{COLUMNS}f", file.read())]


def write(path: str, values: list[float]) -> None:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({len(values)},), }}".ljust(117) + "\n"
    with open(path, "wb") as file:
        file.write(HEADER.pack(b"\x93NUMPY", 1, 0, len(header)) + header.encode("latin1"))
        file.write(struct.pack(f"<{len(values)}d", *values))


if __name__ == "__main__":
    if FAULT == "offline_ends_with_an_error":
        sys.exit("the offline path is broken")
    probabilities = predict(checked(read(sys.argv[1])))
    if FAULT == "offline_is_off":
        probabilities[-1] += 1e-3
    write(sys.argv[2], probabilities[1:] if FAULT == "offline_loses_a_row" else probabilities)
