"""What a plan asks of its defended models besides attacks: certificates, detection, explanation and poisoning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from titer.core.errors import SpecError, unknown
from titer.core.plugins import Share, make, make_detector, make_poison, make_stream_detector
from titer.core.registry import Spec, parse

if TYPE_CHECKING:
    from titer.assess.plan import Plan

Specs = Annotated[tuple[str | dict[str, Any], ...], Field(min_length=1)]
Rows = Annotated[int, Field(ge=1)]
Labels = Annotated[tuple[str, ...], Field(min_length=1)]

DEFAULT_DETECTORS: tuple[str | dict[str, Any], ...] = ("low-confidence",)
"""What guards a model for at most 1.4 times its time, also a network of 0.15 ms: anything more than its own doubt does
not (see docs/reference/detectors.md, "In a plan").
"""


DEFAULT_CLEANERS: tuple[str | dict[str, Any], ...] = ("spectral-signatures", "activation-clustering", "loss-filter")
"""What needs no further package and no signed manifest."""

TOGETHER = "all together"
"""What tables call all detectors of a plan at once."""


class StudyPlan(BaseModel):
    """What the tables of all studies share.

    `defenses` are labels of the plan's defended models; every one where it is not given. `rows` is how many rows of
    the test part are studied, the same ones in every study of a trial.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    defenses: Labels | None = None
    rows: Rows

    def studies(self, defense: str) -> bool:
        """Whether the defended model of this label is studied."""
        return self.defenses is None or defense in self.defenses


class CertificationPlan(StudyPlan):
    """The `[certification]` table: what is proven of each row, under every threat whose norm a certifier bounds."""

    certifiers: Specs
    rows: Rows = 500


class DetectionPlan(StudyPlan):
    """The `[detection]` table: detectors, each alone and all together, against attackers who know of them or not.

    `attacks` are labels of the plan's attacks; all of them where it is not given. Thresholds are set on the validation
    part at `false_positive_rate`. Together, an input is held back where `any` detector raises its alarm, or where the
    `weighted` mean of the scores is too high; `together` are labels of the detectors that are asked then, all where it
    is not given. `stream` are detectors that look at batches instead of single inputs.
    """

    detectors: Specs = DEFAULT_DETECTORS
    stream: tuple[str | dict[str, Any], ...] = ()
    attacks: Labels | None = None
    false_positive_rate: Annotated[float, Field(gt=0, lt=1)] = 0.05
    combination: Literal["any", "weighted"] = "weighted"
    together: Labels | None = None
    defenses: Labels | None = ("none",)
    rows: Rows = 200


class ExplanationPlan(StudyPlan):
    """The `[explanation]` table: what explainers say before and after one attack of the plan, its first by default."""

    explainers: Specs
    attack: str | None = None
    defenses: Labels | None = ("none",)
    rows: Rows = 100


class TransferPlan(StudyPlan):
    """The `[transfer]` table: whose adversarial inputs fool whom, between sites, data sets and architectures.

    Members are the plan's models, each trained on all of the training part; with `sites`, a subgroup column, each also
    on the rows of each of its values; with `data`, each also on other data sets of such rows and classes. `shown_to` is
    what the text `transfer = "..."` says: which defended models of one model see one another's inputs.
    """

    shown_to: Literal["undefended", "all", "none"] = "undefended"
    attack: str | None = None
    sites: str | None = None
    data: tuple[dict[str, Any], ...] = ()
    defenses: Labels | None = ("none",)
    rows: Rows = 200


class PoisoningPlan(StudyPlan):
    """The `[poisoning]` table: models trained on a poisoned training part, and searches for its poisoned rows.

    Each of `poisons` is tried at each of `shares` of the training part. Each of `cleaners` searches the poisoned part;
    the share `remove` of it that is most suspicious is left out, and the model trained again: for the cleaners that
    `retrain` has the labels of, or for all. `rows` are test rows.
    """

    poisons: Specs
    shares: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.005, 0.01, 0.05)
    cleaners: tuple[str | dict[str, Any], ...] = DEFAULT_CLEANERS
    remove: Share = 0.05
    retrain: tuple[str, ...] | None = None
    defenses: Labels | None = ("none",)
    rows: Rows = 1000


KEYS = {
    "transfer": tuple(TransferPlan.model_fields),
    "certification": tuple(CertificationPlan.model_fields),
    "detection": tuple(DetectionPlan.model_fields),
    "explanation": tuple(ExplanationPlan.model_fields),
    "poisoning": tuple(PoisoningPlan.model_fields),
}
"""The keys of each study's table."""


def study_problems(plan: Plan) -> Iterator[str]:
    """Yield what is wrong with the tables of the plan's studies."""
    defenses, attacks = [one.name for one in plan.defenses], [one.label for one in plan.attacks]
    for name, table in (
        ("certification", plan.certification),
        ("detection", plan.detection),
        ("explanation", plan.explanation),
        ("transfer", plan.between),
        ("poisoning", plan.poisoning),
    ):
        if table is not None:
            yield from _unknown(f"{name}.defenses", table.defenses or (), defenses)
    if plan.certification is not None:
        yield from _plugins("certifiers", plan.certification.certifiers, "certification.certifiers")
    if plan.detection is not None:
        yield from _detection_problems(plan.detection, attacks)
    if plan.explanation is not None:
        yield from _plugins("explainers", plan.explanation.explainers, "explanation.explainers")
        yield from _unknown("explanation.attack", [plan.explanation.attack or attacks[0]], attacks)
    if plan.between is not None:
        yield from _transfer_problems(plan.between, attacks)
    if plan.poisoning is not None:
        yield from _poisoning_problems(plan.poisoning)


def _detection_problems(table: DetectionPlan, attacks: list[str]) -> Iterator[str]:
    yield from _plugins("detectors", table.detectors, "detection.detectors", make_detector)
    if TOGETHER in _labelled(table.detectors):
        yield f"detection.detectors: the label {TOGETHER!r} is not allowed: tables use that name themselves"
    yield from _unknown("detection.together", table.together or (), labels(table.detectors))
    yield from _plugins("detectors", table.stream, "detection.stream", make_stream_detector)
    yield from _unknown("detection.attacks", table.attacks or (), attacks)


def _transfer_problems(table: TransferPlan, attacks: list[str]) -> Iterator[str]:
    if table.defenses != ("none",):
        given = list(table.defenses or ())
        yield f"transfer.defenses = {given} is not allowed: undefended models are compared, ['none']"
    yield from _unknown("transfer.attack", [table.attack or attacks[0]], attacks)
    yield from _plugins("modalities", table.data, "transfer.data")


def _poisoning_problems(table: PoisoningPlan) -> Iterator[str]:
    yield from _plugins("poisons", table.poisons, "poisoning.poisons", _try_poison)
    yield from _plugins("cleaners", table.cleaners, "poisoning.cleaners")
    yield from _unknown("poisoning.retrain", table.retrain or (), labels(table.cleaners))
    if len(set(table.shares)) < len(table.shares):
        yield f"poisoning.shares = {list(table.shares)} names a share twice"


def posed(spec: Spec, share: float, classes: Sequence[str] | None, where: str) -> dict[str, Any]:
    """Return a poison's spec at one share, classes that it calls by name as their numbers; any where none are known.

    Raises:
        SpecError: it has a share of its own, or names a class that the data do not have.
    """
    name, settings = parse(spec, where)
    if "share" in settings:
        raise SpecError(f"{where}.share = {settings['share']!r} is not allowed: poisoning.shares says it for all")
    for place, key in enumerate(("target", "source")):
        given = settings.get(key)
        if isinstance(given, str) and classes is not None and given not in classes:
            raise unknown(f"{where}.{key}", given, classes)
        if isinstance(given, int) and classes is not None and not 0 <= given < len(classes):
            raise SpecError(f"{where}.{key} = {given} is not allowed: classes are 0 to {len(classes) - 1}")
        if isinstance(given, str):
            settings[key] = place if classes is None else list(classes).index(given)
    return {"name": name, **settings, "share": share}


def _try_poison(spec: Spec, where: str) -> object:
    return make_poison(posed(spec, 0.01, None, where), where)


def unlabelled(spec: Spec, where: str = "") -> Spec:
    """Return a spec without its `label`, which is a text; raise SpecError for another one."""
    if isinstance(spec, str) or "label" not in spec:
        return spec
    if not isinstance(spec["label"], str) or not spec["label"].strip():
        raise SpecError(f"{where}.label = {spec['label']!r} is not allowed: a label is a text")
    return {key: value for key, value in spec.items() if key != "label"}


def labels(specs: Sequence[Spec]) -> tuple[str, ...]:
    """Return what each is called in tables: its `label`, or its plugin, with the settings where several are of one."""
    parsed = [parse(spec, "") for spec in specs]
    names = [name for name, settings in parsed if "label" not in settings]
    return tuple(_label(name, settings, alone=names.count(name) == 1) for name, settings in parsed)


def _label(name: str, settings: dict[str, Any], *, alone: bool) -> str:
    if "label" in settings or alone or not settings:
        return str(settings.get("label", name))
    return f"{name} ({', '.join(f'{key} = {value}' for key, value in settings.items())})"


def _labelled(specs: Sequence[Spec]) -> list[Any]:
    return [spec.get("label") for spec in specs if not isinstance(spec, str)]


def _unknown(where: str, given: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    yield from (str(unknown(where, label, known)) for label in given if label not in known)


def _plugins(
    shelf: str, specs: Sequence[Spec], where: str, make_one: Callable[[Spec, str], object] | None = None
) -> Iterator[str]:
    broken = False
    for index, spec in enumerate(specs):
        place = f"{where}[{index}]"
        try:
            bare = unlabelled(spec, place)
            make_one(bare, place) if make_one is not None else make(shelf, bare, place)
        except SpecError as error:
            broken = True
            yield str(error)
    names = () if broken else labels(specs)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        yield f"{where} = {twice[0]!r} stands twice"
