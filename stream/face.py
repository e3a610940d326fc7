"""What ``from segstream import ...`` gives: the library, without Kafka and without Redis.

It is installed as the package ``segstream``; the folders of the pipeline keep their own names.
"""

from stream.config import Learning, Publish
from stream.kinds import KindRule
from stream.populations import Population
from stream.scorer import Scorer
from stream.scores.declare import Score
from stream.segmenter import Changes, Segmenter, Step

__all__ = [
    "Changes",
    "KindRule",
    "Learning",
    "Population",
    "Publish",
    "Score",
    "Scorer",
    "Segmenter",
    "Step",
]
