"""What the command offers, without loading it: each command's module and first sentence, in order.

Comes in: nothing. Goes out: what `segstream --help` lists. A command is imported when it is called, so that help and
completion do not wait for everything that commands need.
"""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A command.

    Attributes:
        module: of `stream.cli.commands`, that has it.
        meaning: the first paragraph of its help.
    """

    module: str
    meaning: str


CATALOGUE = {
    "demo": Entry(
        "running", "A simulated shop on a local broker and store, all roles as real processes."
    ),
    "dashboard": Entry(
        "running",
        "The page of the API, in a browser: what needs attention, segments, flows, one shopper's story.",
    ),
    "replay": Entry("running", "Send the history in files onto the topics, in event-time order."),
    "simulate": Entry(
        "running", "Send what shoppers of a simulated shop do onto the topics of any broker."
    ),
    "topics": Entry("running", "The topics: create or check them."),
    "run": Entry("running", "Run the roles, each as a process of its own."),
    "explore": Entry(
        "planning",
        "How many segments does the data suggest, and what are they? Pictures and a page.",
    ),
    "plan": Entry(
        "planning",
        "Who would enter and leave which segment under other settings? Nothing is changed.",
    ),
    "apply": Entry(
        "planning",
        "Change k, weights, words, kinds or publish rule of the running pipeline, all at once.",
    ),
    "campaigns": Entry(
        "campaigning",
        "Campaigns: what is declared, what would be sent, what was, and whether it helped.",
    ),
    "user": Entry(
        "looking", "A user: features now, segment, since when, distances, the last changes and why."
    ),
    "changes": Entry("looking", "The changes, oldest first, over all users and partitions."),
    "members": Entry(
        "looking", "The members of segments: id, since when, last seen, and what they are worth."
    ),
    "segments": Entry(
        "looking", "The segments: id, name, kind, size, what marks them, and how good the model is."
    ),
    "republish": Entry(
        "sending",
        "Send everybody's present segment to the output again, as records of their own type.",
    ),
    "rekey": Entry("sending", "Write messages into the partitions of their users."),
    "dlq": Entry("sending", "Dead letters: what was refused, why, and to send it again."),
    "webhooks": Entry(
        "sending", "Deliveries to endpoints that were given up, and to send them again."
    ),
    "audit": Entry(
        "checking",
        "Recompute everything from the log, slowly, and compare. Exit 1 if anything is off.",
    ),
    "doctor": Entry(
        "checking", "Can the broker and the store be reached, and are they set up safely?"
    ),
    "schemas": Entry(
        "checking",
        "Write the JSON Schemas of all records, and an AsyncAPI document of all topics.",
    ),
    "config": Entry("checking", "The settings in force."),
}
