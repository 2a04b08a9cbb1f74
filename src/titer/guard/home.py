"""The folder of one guard: where its settings, keys, spool and database stand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from titer.core.errors import SpecError


@dataclass(frozen=True, slots=True)
class Home:
    """Paths of a guard's folder, as `titer guard init` lays it out."""

    root: Path

    @property
    def settings(self) -> Path:
        """The settings that an administrator edits."""
        return self.root / "guard.toml"

    @property
    def keys(self) -> Path:
        """Folder of keys, mode 0700; nothing in it ever reaches the database, a log or a backup without being asked."""
        return self.root / "keys"

    @property
    def spool(self) -> Path:
        """Objects as they came in, by the first letters of their digest."""
        return self.root / "spool"

    @property
    def quarantine(self) -> Path:
        """Objects that were blocked."""
        return self.root / "quarantine"

    @property
    def models(self) -> Path:
        """Bundles: a model with its detectors, one folder each."""
        return self.root / "models"

    @property
    def checkpoints(self) -> Path:
        """Signed checkpoints of the audit chain, outside the database: best on another disk, by a link."""
        return self.root / "checkpoints.jsonl"

    @property
    def lock(self) -> Path:
        """Held by the process that runs this guard."""
        return self.root / ".lock"

    def checked(self) -> Home:
        """Return itself where the folder holds a guard.

        Raises:
            SpecError: it does not.
        """
        if not self.settings.is_file():
            raise SpecError(f"{self.root} holds no guard.toml: make a guard with `titer guard init {self.root}`")
        return self
