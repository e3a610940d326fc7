"""The commands, by what they are for; `stream.cli.main` puts them together."""
