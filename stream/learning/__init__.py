"""Learns segments from what owners tell of their users; knows no user, no store and no topic.

Read downwards: `statistics` come in from the owners, `rounds` move the centroids and decide when to
`refit`, and the `state` that comes of it has the model for readers, and for owners an `owner_view`.
"""
