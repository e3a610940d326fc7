"""Levels: where each shopper stands by steps of a feature or score, such as a churn risk that is low, medium or high.

Which levels there are is declared: read `declare`. `limits` finds where their steps begin in this shop, `steps` says
on which step each user is, and `book` how a row keeps that. All of it is pure: time is an argument.
"""
