"""The command, on a machine whose wall clock is set an hour ahead when the process gets SIGUSR2."""

from __future__ import annotations

import signal
import time

from stream.cli.main import main

HOUR_NS = 3_600 * 10**9

if __name__ == "__main__":
    true, ahead = time.time_ns, [0]
    signal.signal(signal.SIGUSR2, lambda *_: ahead.append(HOUR_NS))
    time.time_ns = lambda: true() + ahead[-1]
    main()
