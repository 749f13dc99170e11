"""Counting is exact and memory bounded; nothing here needs alibi-detect."""

# ruff: noqa: PT009, PT027 (pytest is not there)
from __future__ import annotations

import asyncio
import gzip
import shutil
import threading
import unittest
from types import SimpleNamespace
from typing import Any
from unittest import mock

import copies
import exposition
import histograms
import ledger as ledgers
import numpy as np
import rig
from aiohttp import web
from histograms import Buckets
from intake import BODY_BYTES, REASONS, Intake
from judgements import PREDICTION, judge_window
from ledger import Ledger, Periods
from measurement import Measurement
from owner import Owner
from prometheus_client import CollectorRegistry, generate_latest
from scipy import stats
from state import StateFolder
from window import Reservoir, Window, age_after_rest


def measurement(flags: Any = None) -> Measurement:
    """Of the rig's features; rows with a distance above 80 are outliers."""
    ranges = dict.fromkeys(rig.FEATURES, (15.0, 85.0)) | {"hour": (5.0, 23.0)}
    ranges |= {name: tuple(range(codes)) for name, codes in rig.CODES.items()}

    def out_of_range(rows: Any) -> Any:
        return np.stack([(column < min(ranges[name])) | (column > max(ranges[name]))
                         for name, column in zip(rig.FEATURES, rows.T, strict=True)], axis=1)  # fmt: skip

    return Measurement(
        rig.FEATURES, tuple(rig.CODES), ranges, ["hour"], out_of_range, flags or (lambda rows: rows[:, 4] > 80)
    )


def judge(rows: Any, predictions: Any) -> Any:
    """Drift is the mean temperature's distance from 50 in tens; predictions must be as many as rows."""
    assert predictions is None or len(predictions) == len(rows) > 0
    values = {"temp": abs(float(rows[:, 5].mean()) - 50) / 10}
    if predictions is not None:
        values[PREDICTION] = abs(float(predictions.mean()) - 0.5)
    return SimpleNamespace(distances=values, p_values=dict.fromkeys(values, 0.5), limits=dict.fromkeys(values, 0.5))


CLIENT: Any = SimpleNamespace()
exec(rig.CLIENT, vars(CLIENT))


class OwnerCase(rig.Files):
    """An owner that is driven by hand."""

    def owner(self, *, intake: Intake | None = None, flags: Any = None, **periods: Any) -> Owner:
        known = {"batch_seconds": 0.01, "window_seconds": 3600.0, "window_rows": 50, "least_rows": 20} | periods
        measured = measurement(flags)
        folder = StateFolder(self.folder / "state")
        self.addCleanup(folder.close)
        ledger = Ledger(folder, measured, Periods(**known), "basis")
        return Owner(CLIENT, measured, judge, lambda rows, usual: rig.probabilities(rows), intake or Intake(), ledger)

    def take(self, owner: Owner, *bodies: bytes) -> dict[str, float]:
        """Gives `bodies` to the owner, lets it work, and reads its metrics."""
        for body in bodies:
            owner.intake.put(body)
        while owner.intake.unsettled:
            owner.work()
        return self.metrics(owner)

    def metrics(self, owner: Owner) -> dict[str, float]:
        registry = CollectorRegistry()
        registry.register(exposition.Exposition(owner.ledger, owner.measurement, owner.intake, {"library": "none"}))
        lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


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
        judged = judge_window(judge, rows, predictions, least_rows=20, seen=30)
        self.assertAlmostEqual(judged.distances[PREDICTION], 0.4)
        self.assertAlmostEqual(judged.distances["temp"], abs(rows[:, 5].mean() - 50) / 10, places=5)
        few = judge_window(judge, rows, predictions, least_rows=21, seen=30)
        self.assertEqual(list(few.distances), ["temp"])
        predictions[10:] = 0.9
        predictions[:10] = 3.0
        self.assertTrue(judge_window(judge, rows, predictions, least_rows=20, seen=30).drifted)


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


class Owners(OwnerCase):
    """What the owner makes of copies."""

    def test_rubbish_is_dropped_and_rows_beside_it_are_counted(self) -> None:
        owner = self.owner()
        good = [rig.encode(rig.flights(size, size)) for size in (1, 2, 700)]
        rubbish = [b"", b"\xff", b"{}", b"[" * 100_000, b'{"rows": []}', b'{"rows": [[]]}', b'{"rows": "x"}',
                   b'{"rows": [["a"]]}', b'{"rows": [[1],[1,2]]}', b'{"rows": 1e999}',
                   rig.encode(rig.flights(3)[:, :11]),
                   rig.encode(rig.flights(1)[0]), b'{"rows": [[[1]]]}',
                   b'{"rows":[[' + b"9" * 5000 + b"]]}"]  # fmt: skip
        with self.assertNoLogs("detectors"):
            now = self.take(owner, *good[:1], *rubbish, *good[1:])
        self.assertEqual(now["detectors_copies_total"], len(good) + len(rubbish))
        self.assertEqual(now['detectors_dropped_total{reason="unreadable"}'], len(rubbish))
        self.assertEqual(now["detectors_records_total"], 703)
        self.assertEqual(now['detectors_feature_value_count{feature="temp"}'], 703)
        self.assertEqual(now["detectors_prediction_count"], 703)

    def test_rows_with_missing_values_count_but_are_not_judged(self) -> None:
        rows = rig.flights(30)
        rows[0, 5], rows[1, 5], rows[2, 7] = np.nan, np.inf, -np.inf
        rows[:3, 4] = 9000  # outliers, were they complete
        rows[3, 4] = 9000
        owner = self.owner()
        body = rig.encode(rows).replace(b"-Infinity", b"-1e39")  # which a float32 cannot hold
        now = self.take(owner, body, b'{"rows": [[1, 1, 1, 9, null, 50, 50, 50, 50, 50, 50, 50]]}')
        self.assertEqual(now["detectors_records_total"], 31)
        self.assertEqual(now['detectors_feature_missing_total{feature="temp"}'], 2)
        self.assertEqual(now['detectors_feature_missing_total{feature="humid"}'], 1)
        self.assertEqual(now['detectors_feature_missing_total{feature="distance"}'], 1)
        self.assertEqual(now['detectors_feature_out_of_range_total{feature="distance"}'], 4)
        self.assertEqual(now['detectors_feature_out_of_range_total{feature="temp"}'], 0)
        self.assertEqual(now['detectors_feature_value_count{feature="temp"}'], 29)
        self.assertEqual(now["detectors_outliers_total"], 1)
        self.assertEqual(now["detectors_window_rows"], 27)
        self.assertEqual(now["detectors_predictions_missing_total"], 4)
        self.assertEqual(now["detectors_prediction_count"], 27)

    def test_a_copy_that_cannot_be_measured_costs_no_other(self) -> None:
        def flags(rows: Any) -> Any:
            if (rows[:, 4] == 66).any():
                raise FloatingPointError("66")
            return np.zeros(len(rows), bool)

        owner, bad = self.owner(flags=flags), rig.flights(2)
        bad[1, 4] = 66
        with self.assertLogs("detectors", "ERROR"):
            now = self.take(owner, rig.encode(rig.flights(5)), rig.encode(bad), rig.encode(rig.flights(1)))
        self.assertEqual(now["detectors_records_total"], 6)
        self.assertEqual(now['detectors_dropped_total{reason="unreadable"}'], 1)
        self.assertEqual(now["detectors_copies_total"], 3)

    def test_windows_are_judged_and_listed(self) -> None:
        owner = self.owner(window_seconds=1e-9)
        warm = rig.flights(300)
        warm[:, 5] += 20
        for number, rows in enumerate((rig.flights(19), rig.flights(300), warm)):
            self.take(owner, rig.encode(rows))
            owner.close_window()
            self.assertEqual(self.metrics(owner)["detectors_windows_total"], number)
        now = self.metrics(owner)
        self.assertGreater(now["detectors_drift_ratio"], 1)
        self.assertEqual(now["detectors_window_rows"], 0)
        first, second = owner.ledger.published.judgements
        self.assertEqual((first.rows, first.seen, first.drifted), (50, 319, False))
        self.assertEqual((second.rows, second.seen, second.drifted), (50, 300, True))
        self.assertEqual(now['detectors_drift_distance{feature="temp"}'], second.distances["temp"])
        again = self.metrics(self.reopened(owner))
        volatile = ("detectors_window_age_seconds", "detectors_state_restored")
        self.assertEqual(*({key: value for key, value in one.items() if key not in volatile} for one in
                           (str_nan(now), str_nan(again))))  # fmt: skip

    def test_a_window_that_cannot_be_judged_is_thrown_away_and_told(self) -> None:
        owner = self.owner(window_seconds=1e-9)
        self.take(owner, rig.encode(rig.flights(300)))
        owner.judge = mock.Mock(side_effect=ZeroDivisionError)
        with self.assertLogs("detectors", "ERROR"):
            owner.close_window()
        now = self.metrics(owner)
        self.assertEqual((now["detectors_windows_total"], now["detectors_window_rows"]), (0, 0))
        self.assertTrue(rig.until(lambda: self.take(owner, rig.encode(rig.flights(1))), "the next row"))

    def test_told_to_finish_it_works_off_the_queue_or_drops_it_in_time(self) -> None:
        for late, taken in ((False, 900), (True, 0)):
            with self.subTest(late=late):
                owner = self.owner(intake=Intake())
                before = self.metrics(owner)["detectors_records_total"]
                for _ in range(900):
                    owner.intake.put(rig.encode(rig.flights(1)))
                owner.intake.close()
                owner.run(lambda late=late: 0.0 if late else float("inf"))
                now = self.metrics(owner)
                self.assertEqual(now["detectors_records_total"] - before, taken)
                self.assertTrue(rig.conserved(now))
                self.assertEqual(now["detectors_copies_unsettled"], 0)
                owner.ledger.folder.close()

    def reopened(self, owner: Owner) -> Owner:
        owner.ledger.folder.close()
        return self.owner()


def str_nan(values: dict[str, float]) -> dict[str, str]:
    """So that NaN equals NaN."""
    return {name: str(value) for name, value in values.items()}


class States(OwnerCase):
    """What was counted outlives the process; what is damaged is set aside."""

    def filled(self) -> Owner:
        owner = self.owner(window_seconds=1e-9)
        self.take(owner, rig.encode(rig.flights(100)))
        owner.close_window()
        self.take(owner, rig.encode(rig.flights(70, 2)), b"rubbish")
        return owner

    def test_it_is_saved_before_it_is_shown(self) -> None:
        """Otherwise a kill between the two takes back what Prometheus has seen, and it counts everything twice."""
        owner = self.owner()
        shown = []

        def save(arrays: Any) -> None:
            shown.append(owner.ledger.published.counts.records)

        with mock.patch.object(owner.ledger.folder, "save", save):
            self.take(owner, rig.encode(rig.flights(3)))
        self.assertEqual(shown, [0])
        self.assertEqual(owner.ledger.published.counts.records, 3)

    def test_window_and_counters_are_taken_up(self) -> None:
        before = self.filled()
        before.ledger.folder.close()
        after = self.owner(window_seconds=1e-9)
        self.assertTrue(after.ledger.restored)
        for name in ("rows", "predictions"):
            self.assertTrue(np.array_equal(*(getattr(one.ledger.window.reservoir, name) for one in (before, after))))
        self.assertEqual(after.ledger.window.reservoir.seen, 70)
        self.assertGreaterEqual(after.ledger.window.age_seconds, before.ledger.window.age_seconds - 60)
        now = self.take(after, rig.encode(rig.flights(5)))
        self.assertEqual(now["detectors_records_total"], 175)
        self.assertEqual(now["detectors_copies_total"], 4)
        self.assertEqual(now["detectors_windows_total"], 1)

    def test_a_window_is_as_old_as_its_rest_says(self) -> None:
        for later, age in ((30, 130), (-500, 100), (1e9, 700)):
            with self.subTest(later=later):
                shutil.rmtree(self.folder / "state", ignore_errors=True)
                before = self.owner(window_seconds=600)
                before.ledger.window.opened -= 100
                self.take(before, rig.encode(rig.flights(5)))
                before.ledger.folder.close()
                then = ledgers.time.time() + later
                with mock.patch.object(ledgers.time, "time", lambda then=then: then):
                    after = self.owner(window_seconds=600)
                self.assertAlmostEqual(after.ledger.window.age_seconds, age, delta=20)
                after.ledger.folder.close()

    def test_damage_of_any_kind_is_noticed_and_set_aside(self) -> None:
        owner = self.filled()
        owner.ledger.folder.close()
        path = self.folder / "state" / "state.npz"
        whole, expected = path.read_bytes(), self.metrics(owner)
        random = np.random.default_rng(3)
        damages = [b"", b"rubbish", whole[:-1], whole[: len(whole) // 2], whole + whole[:100], bytes(len(whole))]
        for place in random.integers(0, len(whole), 150):
            damages.append(whole[:place] + bytes([whole[place] ^ (1 << random.integers(8))]) + whole[place + 1 :])
        unharmed = 0
        for damage in damages:
            path.write_bytes(damage)
            with self.assertLogs("detectors") as log:
                ledgers.LOG.info("so that there is something")
                again = self.owner(window_seconds=1e-9)
            again.ledger.folder.close()
            now = self.metrics(again)
            if again.ledger.restored:  # a bit that means nothing, such as one of a date
                unharmed += 1
                for name in ("detectors_records_total", "detectors_windows_total", "detectors_drift_ratio"):
                    self.assertEqual(now[name], expected[name])
            else:
                self.assertIn("damaged", log.output[-1])
                self.assertEqual(now["detectors_records_total"], 0)
        aside = list(path.parent.glob("state.npz.damaged-*"))
        self.assertEqual(len(aside), len(damages) - unharmed)
        self.assertGreater(len(aside), len(damages) * 0.8)
        self.assertEqual(now["detectors_state_set_aside_total"], len(aside) if not again.ledger.restored else 0)

    def test_a_write_that_breaks_off_leaves_the_former_file(self) -> None:
        owner = self.filled()
        before = {path.name: path.read_bytes() for path in (self.folder / "state").iterdir()}

        def half(file: Any, **arrays: Any) -> None:
            file.write(b"PK half")
            raise OSError(28, "No space left on device")

        with mock.patch("numpy.savez", half), self.assertLogs("detectors", "ERROR"):
            self.take(owner, rig.encode(rig.flights(3)))
        self.assertEqual({path.name: path.read_bytes() for path in (self.folder / "state").iterdir()}, before)

    def test_another_calibration_begins_the_window_anew_and_keeps_the_counters(self) -> None:
        self.filled().ledger.folder.close()

        def other_basis(folder: StateFolder, measured: Measurement, periods: Periods, basis: str) -> Ledger:
            return ledgers.Ledger(folder, measured, periods, f"other {basis}")

        with self.assertLogs("detectors", "WARNING"), mock.patch("test_counting.Ledger", other_basis):
            now = self.metrics(self.owner(window_seconds=1e-9))
        self.assertEqual((now["detectors_records_total"], now["detectors_window_rows"]), (170, 0))
        self.assertEqual((now["detectors_drift_ratio"], now["detectors_prediction_count"]), (0, 0))
        self.assertEqual(now["detectors_state_restored"], 1)

    def test_a_folder_has_one_owner(self) -> None:
        owner = self.owner()
        with self.assertRaisesRegex(Exception, r"state: in use by another process, expected a state folder for each\."):
            StateFolder(owner.ledger.folder.folder)

    def test_a_disk_that_is_full_stops_no_counting(self) -> None:
        owner = self.owner()
        with (
            mock.patch.object(owner.ledger.folder, "save", mock.Mock(side_effect=OSError(28, "No space left"))),
            self.assertLogs("detectors", "ERROR") as log,
        ):
            self.take(owner, rig.encode(rig.flights(3)))
            now = self.take(owner, rig.encode(rig.flights(4)))
        self.assertEqual((now["detectors_records_total"], now["detectors_state_write_failures_total"]), (7, 2))
        self.assertEqual(len(log.output), 1)


if __name__ == "__main__":
    unittest.main()
