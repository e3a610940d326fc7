"""From a segment change to a trigger, and whether it helped. No store and no broker is asked here.

`declare` what a campaign is, `changes` as columns, `match` them with conditions, `arms` by hash,
`quiet` hours, `state` of users, `decide` in a declared order, `control` by people, `purchases` within
`windows` that follow who was decided for, `keep` it all from start to start, `triggers` as records, `effect` of having
decided, and `oracle`, the slow twin.
"""
