"""T1: who and what this object is, against what came before: another patient in the study, another image of the UID."""

from __future__ import annotations

from collections.abc import Iterator

from titer.guard.checks.loaded import Loaded
from titer.guard.checks.past import Past
from titer.guard.checks.rule import Hit, Rule
from titer.guard.records import Outcome


def patient(one: Loaded, past: Past) -> str | None:
    """Return the keyed digest of the patient's id and its issuer, None where the object names none."""
    told, issuer = ("\\".join(one.texts(key)) for key in ("PatientID", "IssuerOfPatientID"))
    return past.keyed(told, issuer) if told else None


def _patient(one: Loaded, past: Past) -> Iterator[Hit]:
    """A study is of one patient (PS3.3, A.1.2): a second one is an object filed under the wrong name."""
    own, known = patient(one, past), past.patients(one.text("StudyInstanceUID"))
    whose = known | ({own} if own else set())
    if len(whose) > 1:
        yield Hit(reason="other objects of this study are of another patient", evidence={"patients": len(whose)},
                  outcome=Outcome.BLOCK)  # fmt: skip


def _content(one: Loaded, past: Past) -> Iterator[Hit]:
    """A SOP instance UID names one object for ever (PS3.5, 9).

    Other pixels under it are an incident; another header may be a correction, and is looked at.
    """
    others = [(digest, pixels) for digest, pixels in past.same_uid(one.text("SOPInstanceUID")) if digest != one.digest]
    if not others:
        return
    stored = dict(past.same_uid(one.text("SOPInstanceUID")))
    own = stored.get(one.digest) or one.pixel_digest
    same = all(pixels == own for _, pixels in others)
    reason = "header" if same else "pixels"
    yield Hit(reason=f"an object of the same SOPInstanceUID with other {reason} came before",
              evidence={"digests": [digest for digest, _ in others][:5]},
              outcome=Outcome.FLAG if same else Outcome.BLOCK)  # fmt: skip


RULES: tuple[Rule[Loaded], ...] = (
    Rule(name="patient", catches="an object under another patient's name (patient-id-swap)", look=_patient),
    Rule(name="same-uid", catches="two objects under one UID (duplicate-uid)", look=_content),
)
