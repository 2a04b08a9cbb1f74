"""The part of a running guard that empties the outbox."""

from __future__ import annotations

from titer.core.errors import SpecError
from titer.guard.context import Context
from titer.guard.deliver.dicom import StoreSender
from titer.guard.deliver.dicomweb import StowSender
from titer.guard.deliver.fhir import FHIRSender
from titer.guard.deliver.http import Client
from titer.guard.deliver.sender import Sender
from titer.guard.deliver.webhook import WebhookSender
from titer.guard.deliver.worker import Worker
from titer.guard.settings import DestinationSettings

_TAKES_IMAGES = ("dicom", "dicomweb")


class Deliverer:
    """One worker per destination of the settings (G2)."""

    name = "deliver"

    def __init__(self, context: Context) -> None:
        """Keep the context; nothing is opened yet."""
        self._context = context
        self.workers: list[Worker] = []

    def start(self) -> None:
        """Start every worker; what waited before the last stop is sent now.

        Raises:
            SpecError: an address, a secret or a certificate that cannot work, or images for a FHIR server.
        """
        self._check_routes()
        settings = self._context.settings
        self.workers = [Worker(self._context, one, self.sender(one)) for one in settings.destinations]
        for worker in self.workers:
            worker.start()

    def stop(self) -> None:
        """Finish what is being sent; what is left waits in the outbox."""
        for worker in self.workers:
            worker.ask_to_stop()
        for worker in self.workers:
            worker.stop()
        self.workers = []

    def trouble(self) -> str | None:
        """Return what keeps it from working; a destination that is down does not, its items wait."""
        for worker in self.workers:
            if not worker.alive():
                return f"the worker of destination {worker.destination.name} has ended"
            if worker.trouble:
                return worker.trouble
        return None

    def breakers(self) -> dict[str, str]:
        """Return the state of each destination's breaker, for the dashboard: closed, open or half-open."""
        now = self._context.clock()
        return {worker.destination.name: worker.breaker.state(now).value for worker in self.workers}

    def sender(self, destination: DestinationSettings) -> Sender:
        """Return the way to a destination.

        Raises:
            SpecError: its settings cannot work.
        """
        home = self._context.home
        if destination.kind == "dicom":
            return StoreSender(home, destination, self._context.settings.dicom.ae_title)
        if destination.kind == "dicomweb":
            return StowSender(Client(home, destination))
        if destination.kind == "fhir":
            return FHIRSender(Client(home, destination))
        return WebhookSender(Client(home, destination, bearer=False), self._context.clock)

    def _check_routes(self) -> None:
        kinds = {one.name: one.kind for one in self._context.settings.destinations}
        for route in self._context.settings.routes:
            for name in route.images:
                if kinds[name] not in _TAKES_IMAGES:
                    raise SpecError(
                        f"routes.{route.name}.images: destination {name!r} is of kind {kinds[name]}: "
                        f"images go to {' or '.join(_TAKES_IMAGES)}"
                    )
