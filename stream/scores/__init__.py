"""Scores: what is likely of each shopper, learned on the stream from what the stream later proves.

Which scores there are is declared: read `declare`. `model` says what a score is once it is learned, and
what carries it; `looks` keeps what was seen until it is known what came of it; `learner` learns from that;
`step` puts these together for the trainer. All of it is pure: time is an argument.
"""
