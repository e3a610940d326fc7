"""Sentiment of reviews, learned in one pass: how well does it rank bad ones below good ones?

``python -m ops.bench.reviews`` gives the texts of a file (``--file``, ``--text``, ``--rating``) to what a
worker reads them with. What the numbers mean:

- *progressive*: each text is judged by those before it, and learned from then, if its rating is shown.
- *AUC*: of the second half of the texts, how well sentiment ranks ratings below the middle and above it.
- *every tenth rating shown*: the others come as texts without a rating.
- *partitions*: each learns alone, from the users that lie in it.
- *no blanks*: the same texts in letters of a script that has none, so that groups of letters are learned.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import roc_auc_score

from ops.bench import command
from ops.bench.report import measured_on
from ops.bench.shops import DATA
from stream.config import ConfigError
from stream.events import Floats, Ints
from stream.hashing import partition_of
from stream.reviews.wording import Wording
from stream.reviews.words import words_of

RESULTS = Path(__file__).parent / "results" / "reviews.md"
HEADER = """# Sentiment of reviews

Each section is one run of `python -m ops.bench.reviews` (`make bench-reviews`), which says what the numbers mean.
"""
FILE = DATA / "womens_clothing_reviews.csv.gz"
PARTITIONS = (4, 12)
SEEN = (100, 300, 1_000, 3_000)
AT_ONCE = 100
"""Texts that scikit-learn learns from together: one by one it takes a quarter of an hour."""
IDEOGRAPHS = 0x4E00


def read(file: Path, texts: Sequence[str], rating: str) -> tuple[list[str], Floats]:
    """Texts and ratings of a file, of the rows that have both.

    Raises:
        ConfigError: it has not the columns.
    """
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines)
        missing = {*texts, rating} - set(rows.fieldnames or ())
        if missing:
            raise ConfigError(f"{file} has no column {min(missing)!r}")
        told = [(" ".join(row[one] for one in texts).strip(), row[rating]) for row in rows]
    told = [(text, rated) for text, rated in told if text and rated]
    return [text for text, _ in told], np.array([float(rated) for _, rated in told])


def progressive(words: Sequence[Ints], good: Ints, shown: int = 1, partitions: int = 1) -> Floats:
    """What each text was judged to be, before it was learned from.

    Args:
        good: 1, -1, or 0 for neither.
        shown: every so many texts come with their rating.
        partitions: that the texts are divided among, each by a user of its own.
    """
    learned = [Wording() for _ in range(partitions)]
    found = np.empty(len(words))
    for place, (these, label) in enumerate(zip(words, good.tolist(), strict=True)):
        wording = learned[partition_of(b"user %d" % place, partitions)]
        found[place] = wording.likely_good(these)
        if label and place % shown == 0:
            wording.learn(these, good=label > 0)
    return found


def rival(texts: Sequence[str], good: Ints) -> Floats:
    """The same of scikit-learn's hashed words and pairs, and logistic regression by stochastic gradients."""
    hashed = HashingVectorizer(ngram_range=(1, 2), n_features=1 << 18, alternate_sign=False)
    model = SGDClassifier(loss="log_loss", alpha=1e-5, random_state=0)
    found = np.zeros(len(texts))
    for start in range(0, len(texts), AT_ONCE):
        some = hashed.transform(texts[start : start + AT_ONCE])
        labels = good[start : start + AT_ONCE]
        if start:
            found[start : start + AT_ONCE] = model.decision_function(some)
        taught = labels != 0
        model.partial_fit(some[taught], labels[taught], classes=[-1, 1])
    return found


def _auc(found: Floats, good: Ints, start: int, end: int | None = None) -> float:
    here = np.flatnonzero(good[start:end]) + start
    return float(roc_auc_score(good[here] > 0, found[here]))


def measure(file: Path, columns: Sequence[str], rating: str) -> dict[str, Any]:
    texts, ratings = read(file, columns, rating)
    good = np.sign(ratings - (ratings.min() + ratings.max()) / 2).astype(np.int64)
    half = len(texts) // 2
    begun = time.process_time()
    words = [np.array(words_of(text), np.int64) for text in texts]
    read_by = time.process_time()
    whole = progressive(words, good)
    learned_by = time.process_time()
    other = [text.replace(" ", "").translate(_Ideographs()) for text in texts]
    no_blanks = [np.array(words_of(text), np.int64) for text in other]
    return {
        "file": file.name,
        "texts": len(texts),
        "us_words": (read_by - begun) / len(texts) * 1e6,
        "us_learned": (learned_by - read_by) / len(texts) * 1e6,
        "auc": _auc(whole, good, half),
        "auc_tenth": _auc(progressive(words, good, shown=10), good, half),
        "auc_no_blanks": _auc(progressive(no_blanks, good), good, half),
        "auc_partitions": {
            count: _auc(progressive(words, good, partitions=count), good, half)
            for count in PARTITIONS
        },
        "auc_after": {
            seen: _auc(whole, good, seen, 2 * seen) for seen in SEEN if 2 * seen <= len(texts)
        },
        "auc_rival": _auc(rival(texts, good), good, half),
    }


class _Ideographs(dict[int, int]):
    """Letters as those of a script without blanks."""

    def __missing__(self, letter: int) -> int:
        return IDEOGRAPHS + letter % 0x4000


def section(report: dict[str, Any], at: datetime) -> str:
    rows = [
        ("every rating shown", report["auc"]),
        ("every tenth rating shown", report["auc_tenth"]),
        ("no blanks", report["auc_no_blanks"]),
        *((f"{count} partitions", auc) for count, auc in report["auc_partitions"].items()),
        (f"scikit-learn, {AT_ONCE} texts at once", report["auc_rival"]),
        *((f"the {n:,} texts behind the first {n:,}", a) for n, a in report["auc_after"].items()),
    ]
    lines = [
        f"## {at:%Y-%m-%d %H:%M} UTC",
        "",
        (
            f"{measured_on()}. {report['file']}, {report['texts']:,} texts; a text takes "
            f"{report['us_words']:.0f} us to be read and {report['us_learned']:.0f} to be judged and "
            "learned from."
        ),
        "",
        "| | AUC |",
        "|---|---|",
        *(f"| {what} | {auc:.3f} |" for what, auc in rows),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.options(__doc__ or "", RESULTS)
    parser.add_argument("--file", type=Path, default=FILE, help="a CSV file of reviews")
    parser.add_argument(
        "--text", action="append", help="a column of the text; several are joined", metavar="COLUMN"
    )
    parser.add_argument("--rating", default="Rating", help="the column of the rating")
    wanted: argparse.Namespace = parser.parse_args(arguments)
    columns = wanted.text or ["Title", "Review Text"]
    return command.run(
        "bench-reviews",
        lambda: measure(wanted.file, columns, wanted.rating),
        section,
        wanted=wanted,
        results=RESULTS,
        header=HEADER,
        expected=(ConfigError,),
    )


if __name__ == "__main__":
    sys.exit(main())
