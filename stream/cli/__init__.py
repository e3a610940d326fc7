"""The command: wires real parts together; the only place that knows them all."""
