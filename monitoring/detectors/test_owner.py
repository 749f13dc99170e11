"""What the owner makes of copies, and what of it outlives the process; nothing here needs alibi-detect."""

# ruff: noqa: PT009, PT027 (pytest is not there)
from __future__ import annotations

import shutil
import unittest
from types import SimpleNamespace
from typing import Any
from unittest import mock

import exposition
import ledger as ledgers
import numpy as np
import rig
from intake import Intake
from ledger import Ledger, Periods
from measurement import Measurement
from owner import Owner
from prometheus_client import CollectorRegistry, generate_latest
from state import StateFolder


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
        return Owner(
            CLIENT, measured, rig.judge, lambda rows, usual: rig.probabilities(rows), intake or Intake(), ledger
        )

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

        with self.assertLogs("detectors", "WARNING"), mock.patch("test_owner.Ledger", other_basis):
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
