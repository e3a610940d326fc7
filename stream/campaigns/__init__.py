"""From a segment change to a trigger, and whether it helped. No topic and no store is known here.

`declare` what a campaign is, `changes` as columns, `match` them with conditions, `arms` by hash,
`quiet` hours, `state` of users, `decide` in the order of the page, `windows` that follow who was decided
for, `effect` of having decided.
"""
