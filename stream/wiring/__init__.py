"""Where the edges meet outside the command: what needs `consumers` and `producers` at once.

Comes in: settings and files. Goes out: what `stream.insight` asks for by type, made of real parts.
Whoever offers the same as the command, such as an API, takes it from here.
"""
