"""Facts as typed values for whoever shows them: a command, a page, an API.

Comes in: models, rows and a reader of the store. Goes out: facts. Nothing here prints, reads
arguments, or knows a topic.
"""
