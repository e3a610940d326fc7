"""Sends triggers to endpoints: when, to whom, how often. Nothing is sent from here itself.

`declare` what an endpoint is, `rules` for all of them, `schedule` when to try again, `queue` what waits,
`letters` about what was given up, `bodies` as receivers understand them.
"""
