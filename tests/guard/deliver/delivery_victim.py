"""A deliverer that ends itself by SIGKILL at one point of a transfer.

    python delivery_victim.py HOME POINT

POINT is `before send`, `before mark` (the peer has it, the outbox does not say so) or `after mark`.
"""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import titer.guard.deliver.component as component
from titer.guard.context import opened
from titer.guard.deliver.component import Deliverer
from titer.guard.deliver.worker import Worker
from titer.guard.home import Home
from titer.guard.settings import load

POINTS = ("before send", "before mark", "after mark")


def dying(fault: Callable[[str], None]) -> type[Worker]:
    """Return workers that call `fault` at each point that they come to."""

    class Dies(Worker):
        def _sent(self, item, packed):
            fault("before send")
            mark = super()._sent(item, packed)
            fault("before mark")
            return mark

        def _round(self):
            busy = super()._round()
            if busy:
                fault("after mark")
            return busy

    return Dies


def main() -> None:
    # A path, as this file is run by its own: the fault is the receiver's victim's.
    sys.path.insert(0, str(Path(__file__).parents[1] / "receive"))
    from dicom_victim import Fault

    home = Home(Path(sys.argv[1]))
    component.Worker = dying(Fault(sys.argv[2], 1))
    deliverer = Deliverer(opened(home, load(home)))
    deliverer.start()
    signal.pause()


if __name__ == "__main__":
    main()
