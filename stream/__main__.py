"""Lets ``python -m stream`` reach the command."""

from stream.cli.main import main

main()
