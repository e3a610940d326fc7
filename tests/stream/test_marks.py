"""Nobody moves the shop's clock without the namespace's secret."""

from __future__ import annotations

from itertools import product

import msgspec

from stream.events import Mark
from stream.marks import MarkSigner

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
TIME_MS, SENT_MS = 1_764_547_200_000, 1_764_633_600_123


def test_a_mark_is_genuine_in_its_own_place_only() -> None:
    signer = MarkSigner(KEY)
    places = list(product(["clicks", "clicks\n1", "clicks1"], [0, 1, 10]))
    marks = {place: signer.mark(*place, TIME_MS, SENT_MS) for place in places}
    for (place, mark), other in product(marks.items(), places):
        assert signer.is_genuine(mark, *other) == (place == other)


def test_nothing_of_a_mark_can_be_changed() -> None:
    signer = MarkSigner(KEY)
    mark = signer.mark("clicks", 0, TIME_MS, SENT_MS)
    for name in Mark.__struct_fields__:
        for changed in ("", getattr(mark, name)[:-1], getattr(mark, name) + " "):
            other = msgspec.structs.replace(mark, **{name: changed})
            assert not signer.is_genuine(other, "clicks", 0)
    assert not MarkSigner(OTHER_KEY).is_genuine(mark, "clicks", 0)


def test_marks_on_topics_stay_genuine() -> None:
    """What is on a topic must be read by every later version."""
    mark = MarkSigner(KEY).mark("clicks", 3, TIME_MS, SENT_MS)
    assert mark == Mark("2025-12-01T00:00:00.000Z", "2025-12-02T00:00:00.123Z", KNOWN)


KNOWN = "2f5e0f25e06553401baff3872b807ee0bd030b046b3f08a6814b470506ee0492"
