"""Answers requests of several callers by one call of the model."""

import threading
import time
from queue import Empty, SimpleQueue

from faults import FAULT
from weights import predict

WAIT_SECONDS = 0.01

Rows = list[tuple[float, ...]]


class Batcher:
    """Collects, for WAIT_SECONDS from the first on, what callers ask, and counts rows and calls of the model."""

    def __init__(self) -> None:
        self.rows, self.calls = 0, 0
        self._asked: SimpleQueue[tuple[Rows, SimpleQueue[list[float]]]] = SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def predict(self, rows: Rows) -> list[float]:
        answer: SimpleQueue[list[float]] = SimpleQueue()
        self._asked.put((rows, answer))
        return answer.get()

    def _run(self) -> None:
        while True:
            asked = [self._asked.get()]
            deadline = time.monotonic() + WAIT_SECONDS
            while FAULT != "batches_nothing":
                try:
                    asked.append(self._asked.get(timeout=max(0, deadline - time.monotonic())))
                except Empty:
                    break
            answers = predict([row for rows, _ in asked for row in rows])
            self.rows, self.calls = self.rows + len(answers), self.calls + 1
            if FAULT == "batches_mix_answers_up":
                answers.reverse()
            for rows, caller in asked:
                caller.put(answers[: len(rows)])
                answers = answers[len(rows) :]
