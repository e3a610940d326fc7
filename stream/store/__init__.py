"""Where state lives between two moments of a role.

Read `state` for what is kept, `promises` for who may ask what, `memory` for the shortest way to keep
it, and `redis` for the one that lasts. What is kept alike for every role, by partition, is in
`memory_partitions` and `redis_partitions`.
"""
