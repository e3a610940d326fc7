"""The learning benchmark: how well segments are learned, named and published on drifting streams.

Decides nothing itself. `generator` makes streams with a known truth, `rivals` and `ours` learn from
them, `scores` says how well, `report` tells it.
"""
