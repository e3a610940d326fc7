"""From a segment change to a trigger, and whether it helped. No store and no broker is asked here.

`declare` what a campaign is, `changes` as columns, `match` them with conditions, `arms` by hash,
`quiet` hours, `state` of users, `decide` in a declared order, `keep` it from start to start, `triggers`
as records, and `oracle`, the slow twin. `windows` that follow who was decided for and `effect` of having
decided are called by no role yet.
"""
