"""The tables of a guard's database (SQLAlchemy Core); migrations stand in `migrations/`. Times are seconds UTC.

No table holds a patient's name or id: `patient` is a keyed digest (`guard.keys.pseudonym`).
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy import UniqueConstraint as Unique

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_Id = BigInteger().with_variant(Integer, "sqlite")
_UID = String(64)
_DIGEST = String(64)

objects = Table(
    "objects",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("sop_instance_uid", _UID, nullable=False),
    Column("sop_class_uid", _UID, nullable=False),
    Column("study_instance_uid", _UID, nullable=False, index=True),
    Column("series_instance_uid", _UID, nullable=False),
    Column("transfer_syntax_uid", _UID, nullable=False),
    Column("digest", _DIGEST, nullable=False),
    Column("pixel_digest", _DIGEST),
    Column("patient", _DIGEST),
    Column("modality", String(16), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("path", Text, nullable=False),
    Column("route", String(64), nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("peer", String(64), nullable=False),
    Column("received_at", Float, nullable=False),
    Column("state", String(16), nullable=False),  # one of OBJECT_STATES
    Unique("sop_instance_uid", "digest"),
    Index(None, "series_instance_uid", "state"),
    Index(None, "state", "received_at", "size"),
)
OBJECT_STATES = ("received", "checked", "judged", "quarantined", "deleted")


def received(start: float, end: float) -> ColumnElement[bool]:
    """Select the objects received from `start` to before `end`, seconds UTC; naming the states lets an index serve."""
    at = objects.c.received_at
    return objects.c.state.in_(OBJECT_STATES) & (at >= start) & (at < end)


series = Table(
    "series",
    metadata,
    Column("series_instance_uid", _UID, primary_key=True),
    Column("study_instance_uid", _UID, nullable=False, index=True),
    Column("route", String(64), nullable=False),
    Column("modality", String(16), nullable=False, index=True),
    Column("patient", _DIGEST),
    Column("objects", Integer, nullable=False),
    Column("first_at", Float, nullable=False),
    Column("last_at", Float, nullable=False),
    Column("state", String(16), nullable=False, index=True),  # open | judged
    Column("revision", Integer, nullable=False, default=0),  # verdicts so far: a late object opens the series again
)

findings = Table(
    "findings",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("object_id", ForeignKey("objects.id"), index=True),
    Column("series_instance_uid", _UID, index=True),
    Column("verdict_id", ForeignKey("verdicts.id"), index=True),
    Column("rule", String(64), nullable=False),
    Column("outcome", String(8), nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("threats", JSON, nullable=False),
    Column("at", Float, nullable=False),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("subject_kind", String(16), nullable=False),  # series | instance | request
    Column("subject", _UID, nullable=False),
    Column("revision", Integer, nullable=False, default=0),
    Column("route", String(64), nullable=False, index=True),
    Column("input_digest", _DIGEST, nullable=False),
    Column("model_digest", _DIGEST),
    Column("bundle_version", String(64)),
    Column("outcome", String(8), nullable=False),
    Column("scores", JSON, nullable=False),
    Column("result", JSON),
    Column("state", String(16), nullable=False),  # released held accepted overridden rejected superseded
    Column("urgency", Integer, nullable=False, default=0),
    Column("created_at", Float, nullable=False, index=True),
    Unique("subject", "revision", "subject_kind"),
    Index(None, "subject", "state"),
    Index(None, "state", "created_at"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("destination", String(64), nullable=False),
    Column(
        "kind", String(24), nullable=False
    ),  # object | structured-report | capture | diagnostic-report | task | event
    Column("subject", _UID, nullable=False),
    Column("digest", _DIGEST, nullable=False),
    Column("verdict_id", ForeignKey("verdicts.id")),
    Column("path", Text),
    Column("body", JSON),
    Column("state", String(16), nullable=False),  # waiting | delivered | dead | withheld
    Column("attempts", Integer, nullable=False, default=0),
    Column("due_at", Float, nullable=False),
    Column("last_error", Text),
    Column("created_at", Float, nullable=False),
    Unique("destination", "kind", "subject", "digest"),
    Index(None, "state", "due_at"),
    Index(None, "destination", "state", "due_at"),
)

reviews = Table(
    "reviews",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("verdict_id", ForeignKey("verdicts.id"), nullable=False, index=True),
    Column("account", String(64), nullable=False),
    Column("role", String(16)),  # in which the account decided
    Column("action", String(16), nullable=False),  # accept | override | reject | comment | label
    Column("comment", Text, nullable=False),
    Column("label", String(64)),
    Column("at", Float, nullable=False),
)

accounts = Table(
    "accounts",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("role", String(16), nullable=False),  # admin | radiologist | reviewer | service | auditor
    Column("password", Text),  # argon2id, encoded
    Column("must_change", Boolean, nullable=False, default=False),  # the password was chosen by another person
    Column("totp", Text),  # secret of RFC 6238, sealed by a key outside the database
    Column("totp_step", BigInteger),  # the last one used: a code serves once
    Column("failures", Integer, nullable=False, default=0),
    Column("locked_until", Float),
    Column("disabled", Boolean, nullable=False, default=False),
    Column("created_at", Float, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("token", _DIGEST, primary_key=True),  # SHA-256 of the cookie
    Column("account", ForeignKey("accounts.name"), nullable=False),
    Column("role", String(16), nullable=False),
    Column("csrf", _DIGEST, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("break_glass", Text),
)

tokens = Table(
    "tokens",
    metadata,
    Column("token", _DIGEST, primary_key=True),  # SHA-256 of the bearer token
    Column("account", ForeignKey("accounts.name"), nullable=False, index=True),
    Column("label", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
)

switches = Table(
    "switches",
    metadata,
    Column("route", String(64), primary_key=True),
    Column("layer", String(16), primary_key=True),
    Column("on", Boolean, nullable=False),
    Column("account", String(64), nullable=False),
    Column("at", Float, nullable=False),
)

threat_level = Table(
    "threat_level",
    metadata,
    Column("id", Integer, primary_key=True),  # one row, or none: then the settings say it
    Column("level", String(8), nullable=False),  # normal | raised | high
    Column("account", String(64), nullable=False),
    Column("at", Float, nullable=False),
)

baselines = Table(
    "baselines",
    metadata,
    Column("device", _DIGEST, primary_key=True),  # keyed digest of manufacturer, model, station and protocol
    Column("attribute", String(64), primary_key=True),
    Column("value", String(128), primary_key=True),
    Column("count", Integer, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False, index=True),
    Column("event", Text, nullable=False),  # FHIR R4 AuditEvent, canonical JSON
    Column("digest", _DIGEST, nullable=False),
)

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("digest", _DIGEST, nullable=False),
)

marks = Table(
    "marks",
    metadata,
    Column("name", String(64), primary_key=True),  # audit-exported: the last row of the chain that a repository has
    Column("value", BigInteger, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", _DIGEST, nullable=False),
    Column("at", Float, nullable=False),
    Column("signature", String(128), nullable=False),
)
