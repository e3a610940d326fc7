"""Reads reviews: what words say is learned from the texts that came with a rating.

Comes in: texts, ratings. Goes out: the sentiment of each review, from -1 to 1; `features` folds it. Read
`words` for what of a text is looked at, `wording` for how it is learned, `judge` for the order in which that
happens. A text is never kept.
"""
