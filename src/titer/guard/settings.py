"""The settings of a guard: `guard.toml`, checked whole before anything starts."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from titer.core.errors import SpecError
from titer.guard.home import Home

AETitle = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[\x20-\x5b\x5d-\x7e]+$")]
"""An application entity title: up to 16 printable characters, no backslash (PS3.5, section 6.2)."""
Port = Annotated[int, Field(ge=1, le=65535)]
Layer = Literal["checks", "detectors", "model", "explanations"]
LAYERS: tuple[Layer, ...] = ("checks", "detectors", "model", "explanations")
ThreatLevel = Literal["normal", "raised", "high"]
THREAT_LEVELS: tuple[ThreatLevel, ...] = ("normal", "raised", "high")
ExplainerName = Literal["gradcam", "shap"]
EXPLAINERS: tuple[ExplainerName, ...] = ("gradcam", "shap")
MiB = 1 << 20


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TLSSettings(_Table):
    """Transport security of a port (BCP 195: TLS 1.2 or later); peers need a certificate of one of `authorities`."""

    certificate: Path
    key: Path
    authorities: Path


class PeerSettings(_Table):
    """An application entity that may send; with TLS its certificate's SHA-256 fingerprint may be pinned."""

    ae_title: AETitle
    address: str | None = None
    certificate: str | None = None
    objects_per_second: float = Field(default=500.0, gt=0)


class DICOMSettings(_Table):
    """The storage service: where it listens and what a peer may claim."""

    ae_title: AETitle = "TITER"
    host: str = "127.0.0.1"
    port: Port = 11112
    max_pdu: int = Field(default=131072, ge=4096, le=MiB)
    max_object_mib: int = Field(default=512, ge=1)
    associations: int = Field(default=32, ge=1)
    associations_per_peer: int = Field(default=10, ge=1)
    request_seconds: float = Field(default=10.0, gt=0)
    idle_seconds: float = Field(default=30.0, gt=0)
    peers: tuple[PeerSettings, ...] = ()
    tls: TLSSettings | None = None


class OIDCSettings(_Table):
    """A login by OpenID Connect (code and PKCE); `roles` maps a value of `role_claim` to a role, others are refused."""

    issuer: str
    client_id: str
    client_secret_file: Path | None = None
    scopes: tuple[str, ...] = ("openid",)
    name_claim: str = "sub"
    role_claim: str = "roles"
    roles: dict[str, Literal["admin", "radiologist", "reviewer", "auditor"]]


class WebSettings(_Table):
    """The pages and interfaces over HTTP."""

    host: str = "127.0.0.1"
    port: Port = 8080
    tls: TLSSettings | None = None
    session_minutes: int = Field(default=30, ge=1)
    max_upload_mib: int = Field(default=512, ge=1)
    requests_per_minute: int = Field(default=3000, ge=1)
    logins_per_minute: int = Field(default=10, ge=1)
    oidc: OIDCSettings | None = None


class DestinationSettings(_Table):
    """Where objects or results go on to; `address` is host:port of an application entity, else a URL.

    `secret_file` holds a bearer token, of a webhook the key that signs its events. A transfer that fails is tried again
    after a random part of `retry_seconds`, doubled each time up to `longest_pause_seconds`; it is given up after
    `attempts` tries and `give_up_hours`. `failures_to_open` in a row close the way for a pause (circuit breaker).
    """

    name: str
    kind: Literal["dicom", "dicomweb", "fhir", "webhook"]
    address: str
    ae_title: AETitle | None = None
    timeout_seconds: float = Field(default=30.0, gt=0)
    secret_file: Path | None = None
    tls: TLSSettings | None = None
    attempts: int = Field(default=12, ge=1)
    give_up_hours: float = Field(default=24.0, ge=0)
    retry_seconds: float = Field(default=1.0, gt=0)
    longest_pause_seconds: float = Field(default=300.0, gt=0)
    failures_to_open: int = Field(default=5, ge=1)

    @model_validator(mode="after")
    def _named(self) -> DestinationSettings:
        if self.kind == "dicom" and self.ae_title is None:
            raise ValueError(f"{self.name}: a destination of kind dicom needs ae_title")
        if self.kind == "webhook" and self.secret_file is None:
            raise ValueError(f"{self.name}: a destination of kind webhook needs secret_file, the key that signs events")
        return self


class RouteSettings(_Table):
    """What happens to objects of one kind; the first route that takes an object has it.

    `images` and `results` name destinations; with `heatmaps` the heat maps of a result go with it. A layer that is
    switched off leaves its mark on every verdict. At a raised or high threat level `layers_raised` and `layers_high`
    say which layers are on; else those of the level below.
    """

    name: str
    modalities: tuple[str, ...] = ()
    calling_ae: tuple[str, ...] = ()
    model: str | None = None
    images: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    heatmaps: bool = False
    layers: tuple[Layer, ...] = LAYERS
    layers_raised: tuple[Layer, ...] | None = None
    layers_high: tuple[Layer, ...] | None = None
    budget_ms: int = Field(default=250, ge=1)
    quiet_seconds: float = Field(default=10.0, gt=0)
    deadline_seconds: float = Field(default=300.0, gt=0)

    def layers_at(self, level: ThreatLevel) -> tuple[Layer, ...]:
        """Return the layers that are on at a threat level."""
        raised = self.layers if self.layers_raised is None else self.layers_raised
        high = raised if self.layers_high is None else self.layers_high
        return {"normal": self.layers, "raised": raised, "high": high}[level]


class JudgeSettings(_Table):
    """The process that holds a model and its detectors, and what the inference API lets one account ask.

    `memory_mib` is what it may take beyond what it holds once the model is loaded. `frames` of one file are judged; a
    file of more is held. `explainer` draws the heat maps. `queries_per_day` are rows of one account to one model:
    whoever asks more may be copying the model (AML.T0024.002).
    """

    timeout_seconds: float = Field(default=30.0, gt=0)
    start_seconds: float = Field(default=120.0, gt=0)
    memory_mib: int = Field(default=2048, ge=64)
    batch: int = Field(default=32, ge=1)
    batch_ms: float = Field(default=0.0, ge=0)
    sampled: int = Field(default=8, ge=1)
    frames: int = Field(default=64, ge=1, le=4096)
    explainer: ExplainerName = "gradcam"
    requests_per_minute: int = Field(default=600, ge=1)
    queries_per_day: int = Field(default=20_000, ge=1)


class ChecksSettings(_Table):
    """Checks: whose digital signatures count (a folder of PEM certificates), and how long checks may take.

    A check that is not done after `object_seconds` of one object, or `series_seconds` of a series, is left, and the
    verdict is FLAG.
    """

    signature_authorities: Path | None = None
    object_seconds: float = Field(default=30.0, gt=0)
    series_seconds: float = Field(default=300.0, gt=0)


class SpoolSettings(_Table):
    """Disk: how much must stay free, what one sender may store in a day (0: all), and how long judged objects stay."""

    free_mib: int = Field(default=1024, ge=0)
    sender_mib_per_day: int = Field(default=0, ge=0)
    keep_days: int = Field(default=30, ge=1)


class AuditSettings(_Table):
    """The audit chain: how often it is signed, and where it is sent to as well (ATNA, RFC 5425)."""

    checkpoint_rows: int = Field(default=1000, ge=1)
    checkpoint_seconds: float = Field(default=60.0, gt=0)
    syslog: str | None = None
    syslog_authorities: Path | None = None


class GuardSettings(_Table):
    """All of `guard.toml`."""

    database: str = "sqlite:///guard.db"
    threat_level: ThreatLevel = "normal"
    dicom: DICOMSettings = DICOMSettings()
    web: WebSettings = WebSettings()
    judge: JudgeSettings = JudgeSettings()
    checks: ChecksSettings = ChecksSettings()
    spool: SpoolSettings = SpoolSettings()
    audit: AuditSettings = AuditSettings()
    routes: tuple[RouteSettings, ...] = ()
    destinations: tuple[DestinationSettings, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> GuardSettings:
        problems = [*_twice("routes", self.routes), *_twice("destinations", self.destinations)]
        known = [one.name for one in self.destinations]
        for route in self.routes:
            wrong = sorted({*route.images, *route.results} - set(known))
            problems += [
                f"routes.{route.name}: destination {name!r} is not known: allowed are {known}" for name in wrong
            ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def route(self, modality: str, calling_ae: str) -> RouteSettings | None:
        """Return the first route that takes an object, None where none does; an empty list of a route takes all."""
        for route in self.routes:
            if route.modalities and modality not in route.modalities:
                continue
            if route.calling_ae and calling_ae not in route.calling_ae:
                continue
            return route
        return None


def _twice(table: str, named: tuple[Any, ...]) -> list[str]:
    names = [one.name for one in named]
    return [
        f"{table}: the name {name!r} stands there twice" for name in sorted({n for n in names if names.count(n) > 1})
    ]


def load(home: Home) -> GuardSettings:
    """Read and check a guard's settings; paths in them are relative to its folder.

    Raises:
        SpecError: no settings, no TOML, or settings that are not allowed: all of them in one message.
    """
    path = home.checked().settings
    try:
        return GuardSettings.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is no TOML: {error}") from None
    except ValidationError as error:
        raise SpecError(f"{path}: " + "; ".join(_said(one) for one in error.errors())) from None


def _said(problem: Any) -> str:
    """Return one problem: setting, value, what is allowed."""
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{place} is no setting"
    given = "" if isinstance(problem["input"], dict) else f" = {problem['input']!r}"
    return f"{place}{given}: {problem['msg'].removeprefix('Value error, ')}".removeprefix(": ")
