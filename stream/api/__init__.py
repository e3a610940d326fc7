"""Facts of `stream.insight` over HTTP; it knows no topic and no command, `stream.wiring.api` wires it."""
