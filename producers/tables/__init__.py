"""Tables in files: CSV, JSON Lines and Parquet, gzipped or not, as rows of text.

Nothing is guessed about types: every value is text until a mapping says more. `opening` tells what a file is,
and each format has a module of its own.
"""
