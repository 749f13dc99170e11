"""Histograms, samples, windows, the queue and the copies port: exact counts, bounded memory."""

# ruff: noqa: PT009 (pytest is not there)
from __future__ import annotations

import asyncio
import gzip
import threading
import unittest

import copies
import histograms
import numpy as np
import rig
from aiohttp import web
from histograms import Buckets
from intake import BODY_BYTES, REASONS, Intake
from judgements import PREDICTION, judge_window
from scipy import stats
from window import Reservoir, Window, age_after_rest


class Histograms(unittest.TestCase):
    """Each finite value is in one bucket, one count and one sum."""

    def test_buckets_are_those_of_a_plain_loop(self) -> None:
        bounds = [(0.0, 1.0, 2.0), (10.0,), (-5.0, -1.0, 0.1, 7.5)]
        random = np.random.default_rng(4)
        values = random.choice([-np.inf, np.nan, np.inf, -5.0, 0.0, 0.1, 1.0, 1.5, 10.0, 99.0], (500, 3)).astype(
            np.float32
        )
        buckets = Buckets(bounds)
        tally = buckets.nothing()
        for part in np.array_split(values, 7):
            tally += buckets.tally(part)
        for column, edges in enumerate(bounds):
            finite = [float(value) for value in values[:, column] if np.isfinite(value)]
            expected = [(str(float(edge)), sum(value <= edge for value in finite)) for edge in edges]
            self.assertEqual(buckets.cumulated(tally, column), [*expected, ("+Inf", len(finite))])
            self.assertAlmostEqual(tally.sums[column], sum(finite), places=3)

    def test_bounds_span_the_range_and_are_at_most_eleven(self) -> None:
        random = np.random.default_rng(1)
        for low, width in zip(random.normal(0, 1000, 300), random.exponential(1, 300) ** 5 + 1e-6, strict=True):
            for whole in (False, True):
                bounds = histograms.round_bounds(low, low + width, whole=whole)
                self.assertLessEqual(len(bounds), 11)
                self.assertGreaterEqual(len(bounds), 1)
                self.assertEqual(sorted(set(bounds)), list(bounds))
        self.assertEqual(histograms.round_bounds(5, 23, whole=True)[-1], 27)
        self.assertEqual(histograms.round_bounds(0, 10)[0], 0)

    def test_all_codes_fall_in(self) -> None:
        for codes in range(1, 60):
            bounds = histograms.code_bounds(codes)
            self.assertLessEqual(len(bounds), 11)
            self.assertGreaterEqual(bounds[-1], codes - 1)
            self.assertEqual(len({np.searchsorted(bounds, code) for code in range(codes)}), len(bounds))


class Reservoirs(unittest.TestCase):
    """The sample is uniform, however the stream is cut."""

    def test_each_row_is_kept_as_often(self) -> None:
        for rows, capacity in ((120, 12), (8, 1)):  # an error of one in the draw shows where there is one place
            with self.subTest(rows=rows):
                self.check_uniform(rows, capacity, seeds=3000)

    def check_uniform(self, rows: int, capacity: int, seeds: int) -> None:
        kept = np.zeros(rows)
        numbers = np.arange(rows, dtype=np.float32)[:, None]
        for seed in range(seeds):
            random = np.random.default_rng(seed)
            reservoir = Reservoir(capacity, 1, random)
            for part in np.split(numbers, np.sort(random.integers(0, rows, 6))):
                reservoir.feed(part, part[:, 0].astype(np.float64))
            self.assertEqual(reservoir.size, capacity)
            self.assertEqual(len(set(reservoir.predictions)), capacity)
            self.assertTrue((reservoir.rows[:, 0] == reservoir.predictions).all())
            kept[reservoir.predictions.astype(int)] += 1
        expected = seeds * capacity / rows
        # Places of one sample exclude each other: along each of rows - 1 directions the counts vary by
        # expected * (1 - capacity / rows) * rows / (rows - 1), which makes this a chi-square variable.
        statistic = float(((kept - expected) ** 2).sum() / expected / (1 - capacity / rows) * (rows - 1) / rows)
        self.assertGreater(stats.chi2.sf(statistic, rows - 1), 1e-4, f"{statistic=}")

    def test_fewer_rows_than_places_are_all_kept(self) -> None:
        reservoir = Reservoir(10, 1)
        reservoir.feed(np.arange(7, dtype=np.float32)[:, None], np.arange(7.0))
        self.assertEqual(reservoir.predictions.tolist(), list(range(7)))


class Windows(unittest.TestCase):
    """When a window closes, and how old it is after a rest."""

    def test_it_is_due_when_its_period_is_over_and_it_has_rows_enough(self) -> None:
        reservoir = Reservoir(10, 1)
        reservoir.feed(np.zeros((4, 1), np.float32), np.zeros(4))
        self.assertFalse(Window(reservoir, 99).due(100, 4))
        self.assertFalse(Window(reservoir, 101).due(100, 5))
        self.assertTrue(Window(reservoir, 101).due(100, 4))

    def test_a_rest_counts_but_not_a_wall_clock_that_was_set(self) -> None:
        self.assertEqual(age_after_rest(40, saved_at=1000, now=1007, period_seconds=60), 47)
        self.assertEqual(age_after_rest(40, saved_at=1000, now=10, period_seconds=60), 40)
        self.assertEqual(age_after_rest(40, saved_at=1000, now=9e9, period_seconds=60), 100)

    def test_predictions_of_part_of_a_sample_are_judged_if_enough(self) -> None:
        rows, predictions = rig.flights(30), np.full(30, 0.9)
        predictions[:10] = np.nan
        judged = judge_window(rig.judge, rows, predictions, least_rows=20, seen=30)
        self.assertAlmostEqual(judged.distances[PREDICTION], 0.4)
        self.assertAlmostEqual(judged.distances["temp"], abs(rows[:, 5].mean() - 50) / 10, places=5)
        few = judge_window(rig.judge, rows, predictions, least_rows=21, seen=30)
        self.assertEqual(list(few.distances), ["temp"])
        predictions[10:] = 0.9
        predictions[:10] = 3.0
        self.assertTrue(judge_window(rig.judge, rows, predictions, least_rows=20, seen=30).drifted)


class Intakes(unittest.TestCase):
    """The queue is bounded, and a copy is settled once."""

    def test_it_is_bounded_in_copies_and_bytes(self) -> None:
        intake = Intake(copies=3, size_bytes=100)
        for body in (b"a" * 50, b"b" * 51, b"c" * 20, b"d", b"e"):
            intake.put(body)
        self.assertEqual(intake.unsettled, 5)
        self.assertEqual(intake.take_dropped()["queue_full"], 2)
        self.assertEqual([intake.pop() for _ in range(4)], [b"a" * 50, b"c" * 20, b"d", None])
        self.assertTrue(intake.hold(100))
        self.assertFalse(intake.hold(1))
        intake.put(b"f")
        intake.release(100)
        intake.put(b"g")
        intake.put(b"h" * (BODY_BYTES + 1))
        self.assertEqual(intake.take_dropped(), {"queue_full": 1, "unreadable": 0, "too_large": 1})
        self.assertEqual(intake.pop(), b"g")
        intake.settle(8)
        self.assertEqual(intake.unsettled, 0)

    def test_a_batch_is_due_when_full_or_old_or_closed(self) -> None:
        intake = Intake()
        never = 2 * rig.PATIENCE_SECONDS

        def two_bodies() -> None:
            for size in (BODY_BYTES, 1):
                intake.put(b"y" * size)

        for begin in (
            lambda: [intake.put(b"x") for _ in range(3)],
            two_bodies,
            intake.close,
        ):
            waiting = threading.Thread(target=intake.wait, args=(never, 3, never), daemon=True)
            waiting.start()
            begin()
            waiting.join(rig.PATIENCE_SECONDS)
            self.assertFalse(waiting.is_alive())
            while intake.pop() is not None:
                pass
        intake = Intake()
        intake.put(b"x")
        intake.wait(0.01, 3, never)  # returns since the copy has waited long enough

    def test_nothing_is_lost_between_many_senders_and_one_owner(self) -> None:
        intake, taken, dropped = Intake(copies=20), [], dict.fromkeys(REASONS, 0)
        senders = [threading.Thread(target=lambda: [intake.put(b"x") for _ in range(500)]) for _ in range(4)]
        for sender in senders:
            sender.start()
        while intake.unsettled or any(sender.is_alive() for sender in senders):
            copies_taken = 0
            while intake.pop() is not None:
                copies_taken += 1
            new = intake.take_dropped()
            dropped = {reason: dropped[reason] + new[reason] for reason in REASONS}
            intake.settle(copies_taken + sum(new.values()))
            taken.append(copies_taken)
        self.assertEqual(sum(taken) + sum(dropped.values()), 2000)


class CopiesPort(unittest.IsolatedAsyncioTestCase):
    """Every request is answered 202 at once and is one copy, whatever it holds."""

    async def asyncSetUp(self) -> None:
        self.intake = Intake(copies=50)
        runner = web.ServerRunner(web.Server(copies.Copies(self.intake, body_seconds=0.2), **copies.SERVER_OPTIONS))
        await runner.setup()
        self.addAsyncCleanup(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]

    async def test_with_no_owner_what_does_not_fit_is_dropped(self) -> None:
        statuses = await asyncio.to_thread(rig.send, self.port, [rig.request(b"x")] * 200)
        self.assertEqual(statuses, [202] * 200)
        self.assertEqual(self.intake.unsettled, 200)
        self.assertEqual(self.intake.take_dropped()["queue_full"], 150)

    async def test_headers_as_large_as_the_gateway_lets_through_are_read(self) -> None:
        header = "".join(f"x-{number}: {'y' * 590}\r\n" for number in range(100)) + f"z: {'z' * 60_000}\r\n"
        large = rig.request(b"x", path="/" + "p" * 60_000, headers=header)
        self.assertEqual(await asyncio.to_thread(rig.send, self.port, [large]), [202])
        self.assertEqual(self.intake.pop(), b"x")

    async def test_nothing_is_decompressed(self) -> None:
        bomb = gzip.compress(bytes(2**27))
        sent = rig.request(bomb, headers="Content-Encoding: gzip\r\n")
        self.assertEqual(await asyncio.to_thread(rig.send, self.port, [sent]), [202])
        self.assertEqual(self.intake.pop(), bomb)

    async def test_bodies_too_large_too_slow_or_broken_off_are_dropped(self) -> None:
        large = b"x" * (BODY_BYTES + 1)
        chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        pieces = b"".join(b"10000\r\n" + b"x" * 65536 + b"\r\n" for _ in range(17))  # and no end
        for sent in (rig.request(large), chunked + pieces):
            self.assertEqual(await asyncio.to_thread(rig.send, self.port, [sent]), [202])
        slow = rig.request(b"x" * 10)[:-5]
        self.assertEqual(await asyncio.to_thread(rig.send, self.port, [slow]), [202])
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(slow)
        writer.close()
        await asyncio.to_thread(rig.until, lambda: self.intake.unsettled >= 4, "four copies")
        self.assertEqual(self.intake.take_dropped(), {"queue_full": 0, "unreadable": 2, "too_large": 2})

    async def test_bodies_that_arrive_slowly_fill_no_memory(self) -> None:
        self.intake.size_bytes = 2 * BODY_BYTES
        writers = []
        for _ in range(4):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(rig.request(b"x" * BODY_BYTES)[:-1])
            writers.append(writer)
        await asyncio.to_thread(rig.until, lambda: self.intake.unsettled >= 4, "four copies")
        dropped = self.intake.take_dropped()
        self.assertGreaterEqual(dropped["queue_full"], 2)
        self.assertEqual(sum(dropped.values()), 4)
        for writer in writers:
            writer.close()
        self.assertTrue(self.intake.hold(2 * BODY_BYTES), "room was not given back")


if __name__ == "__main__":
    unittest.main()
