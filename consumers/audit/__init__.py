"""Proves or refutes what the pipeline promises.

Comes in: the input topics, their dead letters, the topic of changes and the store. Goes out: an
`AuditReport`, one `Check` a promise, with the first offenders by name. `run` has the order; each other module
here judges one thing.

A pipeline at work is judged as of the moment at which the audit began to read a partition:

1. its position, which one commit wrote: messages up to there are the log, later ones a backlog;
2. its rows: none is older than the position; some may be newer;
3. its outbox: whatever a row has seen is there, or was delivered before;
4. its position again: users with messages between the two are *moving*, their rows not judged;
5. the topics, to their ends: whatever was delivered by then is read.

So a row of version v has a record of v. Whatever does not fit into this order is newer than what was read:
it is counted as *unjudged*, never accused. A partition whose state was begun
anew, or put back, between 1 and 4 is not judged at all. `stream.oracle` folds the log, slowly and
obviously.
"""
