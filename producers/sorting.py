"""Brings mapped events into the order of their times, those of one order as one.

Comes in: events in any order. Goes out: the events sorted, orders added up, outliers left out, and notes on
what looks wrong; `replay` sends them. DuckDB sorts, so that there may be more than memory holds.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

from producers.mapped import BAD_CURRENCY, OUTLIER_TIME, Event
from producers.messages import PURCHASES
from producers.tables.database import database_of, quoted
from producers.tables.table import BATCH_ROWS
from stream.units import DAY_MS, iso

if TYPE_CHECKING:
    from collections.abc import Iterator

_Columns: TypeAlias = tuple[tuple[str, str, Any], ...]
"""Columns of a table: name, type there, and type of a batch's array."""

_STAGED: _Columns = (
    ("time_ms", "BIGINT", np.int64),
    ("row", "BIGINT", np.int64),
    ("user", "VARCHAR", object),
    ("event", "VARCHAR", object),
    ("order", "VARCHAR", object),
    ("id", "VARCHAR", object),
    ("category", "VARCHAR", object),
    ("session", "VARCHAR", object),
    ("quantity", "DOUBLE", np.float64),
    ("price", "DOUBLE", np.float64),
    ("amount", "DOUBLE", np.float64),
    ("worth", "DOUBLE", np.float64),
    ("currency", "VARCHAR", object),
    ("refunded", "BOOLEAN", np.bool_),
    ("refund_amount", "DOUBLE", np.float64),
    ("refund_ms", "BIGINT", np.int64),
    ("names_order", "BOOLEAN", np.bool_),
    ("part", "BIGINT", np.int64),
    ("file", "BIGINT", np.int64),
    ("raw", "VARCHAR", object),
)
_REVIEWED: _Columns = (
    ("rating", "DOUBLE", np.float64),
    ("review", "VARCHAR", object),
    ("review_id", "VARCHAR", object),
)
"""Columns of reviews, the last of an event: few files have any, and those have no such columns."""

# Sums in row order: floating point addition depends on order, and a replay must not.
_WHOLE = """
CREATE TABLE whole AS
SELECT {names}, 1 AS currencies, order_rows, 1 AS amounts, false AS alike
FROM staged WHERE "order" IS NULL
UNION ALL
SELECT min(time_ms), min("row"), "user", event, "order", arg_min(id, "row"),
  arg_min(category, "row"), arg_min(session, "row"),
  CASE order_rows WHEN 'repeats' THEN arg_min(quantity, "row") ELSE sum(quantity ORDER BY "row") END,
  min(price),
  CASE order_rows WHEN 'lines' THEN sum(amount ORDER BY "row") ELSE arg_min(amount, "row") END,
  CASE order_rows WHEN 'repeats' THEN arg_min(worth, "row") ELSE sum(worth ORDER BY "row") END,
  arg_min(currency, "row"), bool_or(refunded), arg_min(refund_amount, "row"),
  arg_min(refund_ms, "row"), bool_and(names_order), 0, file, NULL,
  {first_review}
  count(DISTINCT currency), order_rows, count(amount),
  count(amount) = count(*) AND min(amount) = max(amount)
FROM staged WHERE "order" IS NOT NULL GROUP BY file, order_rows, "user", "order", event
"""

_MONEY = "coalesce(amount, worth)"

# Lines without an amount, of an order whose total is in another file.
_SAME_ORDER = (
    'total."user" = further."user" AND total."order" = further."order" AND '
    "total.event = further.event AND total.order_rows = 'total' AND total.amounts > 0"
)
_FURTHER_LINES = f"""
CREATE TABLE further AS SELECT * FROM whole AS further
WHERE order_rows = 'total' AND amounts = 0 AND EXISTS (SELECT 1 FROM whole AS total WHERE {_SAME_ORDER})
"""  # noqa: S608 - names of our own
_ADD_FURTHER_LINES = f"""
UPDATE whole AS total SET quantity = coalesce(total.quantity, 0) + further.pieces
FROM (
  SELECT "user", "order", event, sum(quantity) AS pieces FROM further GROUP BY ALL
) AS further WHERE {_SAME_ORDER}
"""  # noqa: S608 - names of our own
_TOLD_DIFFERENTLY = f"""
SELECT count(*) FROM (
  SELECT 1 FROM whole WHERE "order" IS NOT NULL AND event = 'Order Completed'
  GROUP BY "user", "order" HAVING count(DISTINCT file) > 1 AND count(DISTINCT {_MONEY}) > 1
)
"""  # noqa: S608 - names of our own
_SORTED = f"""
CREATE TABLE sorted AS
SELECT * FROM (
  SELECT time_ms, "row", "user", event, "order", id, category, session, quantity, price,
    {_MONEY} AS amount, NULL::DOUBLE AS worth, currency, refunded, refund_amount, refund_ms,
    names_order, part, file, raw {{reviews}}
  FROM whole WHERE currencies <= 1
  UNION ALL
  SELECT coalesce(refund_ms, time_ms), "row", "user", 'Order Refunded', "order", id, category,
    session, CASE WHEN refund_amount IS NULL THEN quantity END, NULL,
    coalesce(refund_amount, {_MONEY}), NULL, currency, false, NULL, NULL, true, 1, file, NULL
    {{no_reviews}}
  FROM whole WHERE currencies <= 1 AND refunded
) ORDER BY time_ms, file, "row", part
"""  # noqa: S608 - names of our own

_PURCHASES = ", ".join(f"'{name}'" for name in PURCHASES)
_SAME_IDS = f"""
SELECT sum(times - 1), min(id) FROM (
  SELECT id, count(*) AS times FROM sorted WHERE id IS NOT NULL AND part = 0
  GROUP BY id, "user", event IN ({_PURCHASES}) HAVING count(*) > 1
)
"""  # noqa: S608 - names of our own

_FEWEST_BESIDE_OUTLIERS = 20
"""Of fewer events nobody can say which of them stand apart."""
_OUTLIER_SHARE = 1_000
"""One in so many may be an outlier, at either end, and one in any case."""
_OUTLIER_GAP_MS = 180 * DAY_MS
"""Outliers are further than this from all others, and further than these from each other."""


class EventSorter:
    """Takes events in any order, gives them back by time; ties keep the order of the file.

    Rows of one user, one order and one event come out as one event: time, row, id, category and
    session of the first row, quantity and amount as `Mapping.order_rows` says. An order that was
    given back afterwards is followed by its refund. Lives in a temporary file.

    Attributes:
        notes: what to tell of the events, after `sort`.
    """

    def __enter__(self) -> Self:
        self.notes: list[str] = []
        with ExitStack() as opened:
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="segstream-"))
            self._database = opened.enter_context(database_of(folder))
            self._columns: _Columns = _STAGED
            columns = ", ".join(f"{quoted(name)} {kind}" for name, kind, _ in _STAGED)
            self._database.execute(f"CREATE TABLE staged ({columns}, order_rows VARCHAR)")
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def add(
        self, events: Sequence[Event], order_rows: str = "lines", *, reviews: bool = False
    ) -> None:
        """Take events in.

        Args:
            events: in any order.
            order_rows: see `Mapping.order_rows`.
            reviews: whether they may say what reviews say; else that is left out.
        """
        if not events:
            return
        if reviews and not self._has_reviews:
            for name, kind, _ in _REVIEWED:
                self._database.execute(f"ALTER TABLE staged ADD COLUMN {quoted(name)} {kind}")
            self._columns = _STAGED + _REVIEWED
        # Whatever stands behind the last column is left where it is.
        columns = zip(self._columns, zip(*events, strict=True), strict=False)
        batch = {name: _column(values, kind) for (name, _, kind), values in columns}
        self._database.register("batch", batch)
        self._database.execute(
            f"INSERT INTO staged ({self._names}, order_rows) "  # noqa: S608
            f"SELECT {self._names}, $rows FROM batch",
            {"rows": order_rows},
        )
        self._database.unregister("batch")

    @property
    def _has_reviews(self) -> bool:
        return len(self._columns) > len(_STAGED)

    @property
    def _names(self) -> str:
        """The columns that events have here."""
        return ", ".join(quoted(name) for name, _, _ in self._columns)

    def sort(
        self, refuse: Callable[[Event, str, str], None] | None = None, *, keep_outliers: bool = True
    ) -> int:
        """Bring everything into order; returns how many events there are.

        Args:
            refuse: is told of events that are left out, with a reason and why: orders in two
                currencies, and outliers in time.
            keep_outliers: whether the latter stay in.
        """
        run = self._database.execute
        reviews = [quoted(name) for name, _, _ in self._columns[len(_STAGED) :]]
        first_review = "".join(f'arg_min({name}, "row"), ' for name in reviews)
        run(_WHOLE.format(names=self._names, first_review=first_review))
        run("DROP TABLE staged")
        for row in run(f"SELECT {self._names} FROM whole WHERE currencies > 1").fetchall():  # noqa: S608
            if refuse is not None:
                refuse(Event(*row), BAD_CURRENCY, "the rows of the order are in two currencies")
        self._join_what_files_split()
        self._look_for_totals()
        self._look_for_lost_orders()
        self._look_for_letter_cases()
        run(
            _SORTED.format(
                reviews="".join(f", {name}" for name in reviews),
                no_reviews=", NULL" * len(reviews),
            )
        )
        self._look_for_repeated_ids()
        run("DROP TABLE whole")
        if refuse is not None and not keep_outliers:
            self._leave_out_outliers(refuse)
        return self.count

    @property
    def count(self) -> int:
        """How many events there are, after `sort`."""
        return int(self._database.execute("SELECT count(*) FROM sorted").fetchone()[0])

    def names(self) -> Counter[str]:
        """How many events of each name there are, after `sort`."""
        return Counter(
            dict(self._database.execute("SELECT event, count(*) FROM sorted GROUP BY 1").fetchall())
        )

    def currencies(self) -> Counter[str]:
        """How many amounts are in each currency that is said, after `sort`."""
        query = (
            "SELECT currency, count(*) FROM sorted WHERE currency IS NOT NULL "
            "AND (amount IS NOT NULL OR raw IS NOT NULL) GROUP BY 1"
        )
        return Counter(dict(self._database.execute(query).fetchall()))

    def ratings_beyond(self, worst: float, best: float) -> tuple[int, float]:
        """How many ratings are not within two of them, and one of these, after `sort`."""
        if not self._has_reviews:
            return 0, 0.0
        query = (
            "SELECT count(*), coalesce(max(rating), 0) FROM sorted "
            "WHERE rating NOT BETWEEN $worst AND $best"
        )
        found: tuple[int, float] = self._database.execute(
            query, {"worst": worst, "best": best}
        ).fetchone()
        return found

    def before(self, time_ms: int) -> int:
        """How many events there are before a time, after `sort`."""
        query = "SELECT count(*) FROM sorted WHERE time_ms < $time_ms"
        return int(self._database.execute(query, {"time_ms": time_ms}).fetchone()[0])

    def batches(self, from_ms: int = 0) -> Iterator[list[Event]]:
        """The events in order, after `sort`, from a time on."""
        answer = self._database.cursor().execute(
            "SELECT * FROM sorted WHERE time_ms >= $from_ms", {"from_ms": from_ms}
        )
        while rows := answer.fetchmany(BATCH_ROWS):
            yield [Event(*row) for row in rows]

    def _join_what_files_split(self) -> None:
        """Tell of orders in several files, of which the last counts as a correction.

        Further lines of an order whose total stands in the file before are no correction: an export
        was cut in two there.
        """
        run = self._database.execute
        if not run("SELECT max(file) FROM whole").fetchone()[0]:
            return
        run(_FURTHER_LINES)
        run(_ADD_FURTHER_LINES)
        run(
            "DELETE FROM whole USING further "
            'WHERE whole.file = further.file AND whole."row" = further."row"'
        )
        run("DROP TABLE further")
        (several,) = run(_TOLD_DIFFERENTLY).fetchone()
        if several:
            self.notes.append(
                f"{several:,} orders are in several files with different amounts, and the last one "
                "counts; if their rows were divided among the files, make one file of them"
            )

    def _look_for_totals(self) -> None:
        """Tell of orders whose rows all say one amount: it may have been the whole order's."""
        several, alike = self._database.execute(
            "SELECT count(*), count(*) FILTER (WHERE alike) FROM whole "
            "WHERE order_rows = 'lines' AND amounts > 1"
        ).fetchone()
        if alike >= 3 and alike > 0.9 * several:
            self.notes.append(
                f"{alike:,} of {several:,} orders of several rows say the same amount in each, and it "
                'was added up; if it is the whole order\'s, the mapping can say order_rows = "total"'
            )

    def _look_for_lost_orders(self) -> None:
        """Tell of refunds whose order is not in the files: their rows may be orders themselves."""
        (lost,) = self._database.execute(
            "SELECT count(*) FROM whole WHERE event = 'Order Refunded' AND \"order\" IS NOT NULL "
            "AND names_order AND NOT EXISTS (SELECT 1 FROM whole AS other WHERE "
            'other.event = \'Order Completed\' AND other."order" = whole."order")'
        ).fetchone()
        if lost:
            self.notes.append(
                f"{lost:,} refunds are of orders that are not in the files; if those rows are orders "
                "that were given back later, tell them by the mapping's key refund instead of a rule; "
                'if the refund has a number of its own, by refund_numbers = "own"'
            )

    def _look_for_repeated_ids(self) -> None:
        """Tell of events that say another's message id: a worker takes them for the same one."""
        again, example = self._database.execute(_SAME_IDS).fetchone()
        if again:
            self.notes.append(
                f"{again:,} events say the message id of another event of their user, such as "
                f"{example!r}: while ids are remembered they are one event, and count once"
            )

    def _look_for_letter_cases(self) -> None:
        """Tell of addresses that are one person's, most likely, and two users."""
        found = self._database.execute(
            'SELECT count(*), min(first), min(last) FROM (SELECT min("user") AS first, '
            'max("user") AS last FROM whole WHERE contains("user", \'@\') '
            'GROUP BY lower("user") HAVING first <> last)'
        ).fetchone()
        if found[0]:
            self.notes.append(
                f"{found[0]:,} addresses are written in several ways, such as {found[1]!r} and "
                f"{found[2]!r}: these are different users here; write them alike in the file"
            )

    def _leave_out_outliers(self, refuse: Callable[[Event, str, str], None]) -> None:
        run = self._database.execute
        count = self.count
        most = max(1, count // _OUTLIER_SHARE)
        if count < 2 * most + _FEWEST_BESIDE_OUTLIERS:
            return

        def ends(direction: str) -> list[int]:
            query = f"SELECT time_ms FROM sorted ORDER BY time_ms {direction} LIMIT {most + 1}"  # noqa: S608
            return [row[0] for row in run(query).fetchall()]

        first, last = ends("ASC"), ends("DESC")
        gap_ms = max(_OUTLIER_GAP_MS, last[most] - first[most])
        apart = range(most, 0, -1)
        low = next((first[n] for n in apart if first[n] - first[n - 1] > gap_ms), first[0])
        high = next((last[n] for n in apart if last[n - 1] - last[n] > gap_ms), last[0])
        values = {"low": low, "high": high}
        outside = "WHERE time_ms < $low OR time_ms > $high"
        why = (
            f"is over {gap_ms // DAY_MS:,} days away from all others, which are from {iso(low)[:10]} "
            f"to {iso(high)[:10]}; --keep-outliers keeps it"
        )
        for row in run(f"SELECT * FROM sorted {outside}", values).fetchall():  # noqa: S608
            event = Event(*row)
            refuse(event, OUTLIER_TIME, f"{iso(event.time_ms)} {why}")
        run(f"DELETE FROM sorted {outside}", values)  # noqa: S608


def _column(values: Sequence[Any], kind: Any) -> Any:
    """An array for DuckDB; what is absent is masked, because NaN would be a value."""
    if kind is object:
        return np.array(values, dtype=kind)
    if kind is np.float64:
        numbers = np.array(values, dtype=kind)  # with NaN for None; no mapping lets another pass
        return np.ma.masked_array(numbers, mask=np.isnan(numbers))
    if None not in values:
        return np.array(values, dtype=kind)
    absent = [value is None for value in values]
    filled = [0 if value is None else value for value in values]
    return np.ma.masked_array(np.array(filled, dtype=kind), mask=absent)
