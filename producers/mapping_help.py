"""What a mapping looks like, for whoever has to write one.

Goes out: the help of `segstream replay`, with examples that the tests read.
"""

from __future__ import annotations

EXAMPLE_PURCHASES = """\
user = "customer"
time = "date"              # any ISO date or time, or a number since 1970
event = "Order Completed"
amount = "amount"

[[rules]]                  # negative amounts are refunds
column = "amount"
less_than = 0
event = "Order Refunded"
"""

EXAMPLE_VIEWS = """\
user = "visitor"
time = { column = "seen_at", format = "%d.%m.%Y %H:%M", zone = "Europe/Berlin" }
event = { column = "action", values = { look = "Product Viewed", basket = "Product Added" } }
category = "department"    # may be left out
"""


def _indented(text: str) -> str:
    return "".join(f"    {line}" if line.strip() else line for line in text.splitlines(True))


HELP_EXAMPLE = f"""\
A mapping says which column means what. For a file with the columns customer, date and amount
(ships as `--mapping simple`), orders.toml:

{_indented(EXAMPLE_PURCHASES)}
For a file without purchases, only views and baskets, views.toml:

{_indented(EXAMPLE_VIEWS)}
    segstream replay views.csv.gz --mapping views.toml

Further keys: order (its rows become one order), order_rows ("lines", "total" or "repeats"),
price, quantity, session, message_id, currency, decimal ("." or ","), rating, review (text) and
review_id of reviews (as `--mapping reviews` has them), optional (columns a file may lack),
encoding, delimiter, header (names, where a file has none), each (a list in every object of
JSON), minor_units (amounts are in cents), refund_numbers. time.format is auto, iso, seconds,
milliseconds, microseconds, nanoseconds, excel (serial dates), or a strptime format as above; what
does not fit is refused with the one that does. time.zones says what names of zones behind times
mean. A rule tests one column with equals, not_equals,
one_of, starts_with, ends_with, matches, less_than, more_than or empty, and says event = "..." or
reject = "a_reason"; the first that holds decides.
refund = {{ column = "Status", equals = "refunded" }} tells of orders that were given back
afterwards, with an amount and a time of its own if there are columns for them. A key that takes a
column takes a list as well: the first one filled counts. In JSON, "a.b" reaches into objects.

Amounts are read as people write them: 1,250.00 and 1.250,00, 1 250, 1'250, $20, 20 EUR, (20.00).
"""
