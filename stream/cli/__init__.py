"""The command: arguments in, facts shown. `main` puts it together from `commands`."""
