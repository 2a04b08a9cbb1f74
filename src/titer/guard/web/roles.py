"""Who may do what: the one table of roles and permissions (RBAC, ANSI INCITS 359)."""

from __future__ import annotations

from typing import Final

ADMIN, RADIOLOGIST, REVIEWER, SERVICE, AUDITOR = "admin", "radiologist", "reviewer", "service", "auditor"
ROLES: Final = (ADMIN, RADIOLOGIST, REVIEWER, SERVICE, AUDITOR)
PEOPLE: Final = frozenset({ADMIN, RADIOLOGIST, REVIEWER, AUDITOR})
PUBLIC: Final = "public"
"""The permission of what needs no login: the login itself, health, the files of the pages' design."""

OWN_PASSWORD: Final = "password"  # noqa: S105 - a permission
"""The permission of all that is open before a first password is changed: to change it, and to leave."""

PERMISSIONS: Final[dict[str, frozenset[str]]] = {
    PUBLIC: frozenset(ROLES),
    OWN_PASSWORD: PEOPLE,
    "self": PEOPLE,  # one's own account: second factor
    "case.read": frozenset({RADIOLOGIST, REVIEWER}),  # images of patients
    "case.decide": frozenset({RADIOLOGIST, REVIEWER}),  # judge.review says which verdicts need a radiologist
    "dashboard.read": PEOPLE,  # numbers, no images
    "alerts.read": frozenset({ADMIN, AUDITOR}),  # who did what was an alert
    "switches.write": frozenset({ADMIN}),
    "outbox.read": frozenset({ADMIN, AUDITOR}),  # UIDs and what a destination answered, no images
    "outbox.retry": frozenset({ADMIN}),
    "accounts.manage": frozenset({ADMIN}),
    "break-glass": frozenset({ADMIN, REVIEWER}),
    "audit.read": frozenset({AUDITOR}),
    "receipt.read": frozenset({RADIOLOGIST, REVIEWER, SERVICE, AUDITOR}),  # UIDs and digests, no patient
    "metrics.read": frozenset({ADMIN, SERVICE}),
    "api.describe": frozenset(ROLES),
    "infer": frozenset({ADMIN, SERVICE}),  # the inference API
    "store": frozenset({SERVICE}),  # DICOMweb STOW-RS
    "query": frozenset({RADIOLOGIST, REVIEWER, SERVICE}),  # DICOMweb QIDO-RS and WADO-RS
}
BROKEN_GLASS: Final = RADIOLOGIST
"""The role that an emergency gives for a short time, on top of the account's own."""


def allowed(permission: str, role: str, *, emergency: bool = False) -> bool:
    """Whether a role has a permission; KeyError where the table does not hold the permission: a bug."""
    having = PERMISSIONS[permission]
    return role in having or (emergency and BROKEN_GLASS in having)
