"""The state folder: one file, replaced as a whole after each micro-batch, and a lock that keeps two owners apart."""

from __future__ import annotations

import fcntl
import io
import os
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from errors import DetectorsError

Arrays = dict[str, npt.NDArray[np.generic]]

FILE = "state.npz"
FORMAT = 1


class DamagedError(Exception):
    """The file is not what was written; the message says how."""


class StateFolder:
    """The folder that outlives the process. The lock is the kernel's, so that a kill leaves none behind.

    Raises:
        DetectorsError: it cannot be made or written to, or another process has it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = open(folder / "lock", "a")  # noqa: SIM115 — held as long as the process lives
        except OSError as error:
            raise DetectorsError(
                folder, f"{error.strerror}", "a folder that can be written to", "Give another --state."
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise DetectorsError(
                folder, "in use by another process", "a state folder for each", "Stop it, or give another --state."
            ) from error

    def close(self) -> None:
        """Gives the folder back; the end of the process does so too."""
        self._lock.close()

    def save(self, arrays: Arrays) -> None:
        """Replaces the file: a reader, and a restart after a kill, find the old one or the new one.

        It is not forced to the disk: a power cut may lose the last seconds, or leave what load() calls damaged.

        Raises:
            OSError: the disk is full, or the folder is gone; the old file stays.
        """
        unfinished = self.folder / f".{FILE}.new"
        try:
            with unfinished.open("wb") as file:
                np.savez(file, format=np.array(FORMAT), **arrays)
            os.replace(unfinished, self.path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise

    def load(self) -> Arrays | None:
        """What was saved last, None when nothing was; the zip file's checksums tell of damage.

        Raises:
            DamagedError: there is a file, but not one that was saved whole.
            DetectorsError: the file cannot be read at all.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DetectorsError(self.path, f"{error.strerror}", "a readable file", "Mend its permissions.") from error
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
            written = int(found.pop("format"))
        except Exception as error:  # damage can make the readers of zip and npy stumble over anything
            raise DamagedError(f"{type(error).__name__}: {error}") from error
        if written != FORMAT:
            raise DamagedError(f"format {written}, this program reads {FORMAT}")
        return found

    def set_aside(self) -> Path:
        """Renames the file to `state.npz.damaged-<seconds since the epoch>`, for whoever wants to look into it."""
        epoch = int(time.time())
        while (aside := self.folder / f"{FILE}.damaged-{epoch}").exists():
            epoch += 1
        os.replace(self.path, aside)
        return aside

    def count_set_aside(self) -> int:
        """How many damaged files lie in the folder."""
        return len(list(self.folder.glob(f"{FILE}.damaged-*")))
