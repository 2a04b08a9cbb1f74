"""`titer guard check`: what would keep a guard from working, found before it has to."""

from __future__ import annotations

import shutil
import socket
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from titer.core.errors import SpecError
from titer.guard.home import Home
from titer.guard.keys import IDENTITY, SIGNING, Signer
from titer.guard.settings import DestinationSettings, GuardSettings, TLSSettings, load
from titer.guard.store.database import connect
from titer.guard.store.migrate import current, newest

_SOON = timedelta(days=30)
_MIB = 1 << 20


def problems(home: Home) -> Iterator[str]:
    """Yield what is wrong, a line each; nothing where the guard can start and reach its peers.

    Raises:
        SpecError: the settings cannot be read; nothing else can be checked then.
    """
    settings = load(home)
    yield from _keys(home)
    for where, tls in _tls(settings):
        yield from _certificate(home, where, tls)
    yield from _disk(home, settings)
    yield from _database(home, settings)
    for where, host, port in (
        ("dicom", settings.dicom.host, settings.dicom.port),
        ("web", settings.web.host, settings.web.port),
    ):
        yield from _port(where, host, port)
    for destination in settings.destinations:
        yield from _destination(destination)
    if not settings.routes:
        yield "routes: there is none, so that every object is refused"


def _keys(home: Home) -> Iterator[str]:
    try:
        Signer(home.keys)
    except (SpecError, ValueError) as error:
        yield f"keys: {error}"
    for name in (SIGNING, IDENTITY):
        path = home.keys / name
        if not path.exists():
            yield f"keys: {name} is missing"
        elif path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            yield f"keys: {name} can be read by others than its owner: chmod 600"


def _tls(settings: GuardSettings) -> Iterator[tuple[str, TLSSettings]]:
    tables = [("dicom.tls", settings.dicom.tls), ("web.tls", settings.web.tls)]
    tables += [(f"destinations.{one.name}.tls", one.tls) for one in settings.destinations]
    yield from ((where, tls) for where, tls in tables if tls is not None)


def _certificate(home: Home, where: str, tls: TLSSettings) -> Iterator[str]:
    for name, path in (("certificate", tls.certificate), ("key", tls.key), ("authorities", tls.authorities)):
        try:
            content = (home.root / path).read_bytes()
        except OSError as error:
            yield f"{where}.{name} = {str(path)!r} cannot be read: {error.strerror}"
            continue
        if name != "key":
            yield from _validity(f"{where}.{name}", content)


def _validity(where: str, content: bytes) -> Iterator[str]:
    try:
        certificates = x509.load_pem_x509_certificates(content)
    except ValueError:
        yield f"{where} holds no certificate in PEM"
        return
    now = datetime.now(UTC)
    for one in certificates:
        if one.not_valid_before_utc > now:
            yield f"{where} is not valid before {one.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        if one.not_valid_after_utc < now:
            yield f"{where} expired on {one.not_valid_after_utc:%Y-%m-%d}"
        elif one.not_valid_after_utc < now + _SOON:
            yield f"{where} expires on {one.not_valid_after_utc:%Y-%m-%d}, within {_SOON.days} days"


def _disk(home: Home, settings: GuardSettings) -> Iterator[str]:
    free = shutil.disk_usage(home.root).free // _MIB
    if free < settings.spool.free_mib:
        yield f"spool.free_mib = {settings.spool.free_mib}: only {free} MiB are free, every object would be refused"
    probe = home.root / ".probe"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        yield f"{home.root} cannot be written: {error.strerror}"


def _database(home: Home, settings: GuardSettings) -> Iterator[str]:
    engine: Engine = connect(home, settings.database)
    try:
        with engine.connect() as connection:
            revision = current(connection)
    except (SQLAlchemyError, OSError) as error:
        yield f"database: cannot be opened: {type(getattr(error, 'orig', None) or error).__name__}"
        return
    finally:
        engine.dispose()
    if revision not in {None, newest()}:
        yield f"database: revision {revision}, this Titer needs {newest()}: `titer guard run` brings it up to date"


def _port(where: str, host: str, port: int) -> Iterator[str]:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            yield f"{where}: {host}:{port} cannot be listened on: {error.strerror} (is this guard running?)"


def _destination(destination: DestinationSettings) -> Iterator[str]:
    where = f"destinations.{destination.name}"
    if destination.secret_file is not None and not Path(destination.secret_file).is_file():
        yield f"{where}.secret_file = {str(destination.secret_file)!r} is no file"
    if destination.kind == "dicom":
        host, _, port = destination.address.rpartition(":")
        if not host or not port.isdigit():
            yield f"{where}.address = {destination.address!r} is not host:port"
            return
    else:
        host, port = _of_url(destination.address)
        if not host:
            yield f"{where}.address = {destination.address!r} is no http or https URL"
            return
    try:
        socket.create_connection((host, int(port)), timeout=min(5.0, destination.timeout_seconds)).close()
    except OSError as error:
        yield f"{where}: {host}:{port} does not answer: {error.strerror or type(error).__name__}"


def _of_url(address: str) -> tuple[str, str]:
    from urllib.parse import urlsplit

    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return "", ""
    return parts.hostname, str(parts.port or {"http": 80, "https": 443}[parts.scheme])
