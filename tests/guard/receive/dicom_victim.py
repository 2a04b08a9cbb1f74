"""A receiver in a process of its own that ends itself by SIGKILL at one point of an object's way.

    python dicom_victim.py HOME POINT NUMBER

It prints its port, and dies when the NUMBERth object comes to POINT; POINT `none`: never.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from titer.guard.context import opened
from titer.guard.home import Home
from titer.guard.receive.component import Receiver
from titer.guard.settings import load


class Fault:
    """Counts how often a point was come to."""

    def __init__(self, point: str, number: int) -> None:
        self._point, self._left = point, number
        self._lock = threading.Lock()

    def __call__(self, point: str) -> None:
        if point == self._point:
            with self._lock:
                self._left -= 1
                if self._left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    home = Home(Path(sys.argv[1]))
    receiver = Receiver(opened(home, load(home)), port=0, faults=Fault(sys.argv[2], int(sys.argv[3])))
    receiver.start()
    print(receiver.port, flush=True)
    signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    main()
