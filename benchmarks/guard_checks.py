"""What the guard's checks catch: every tamper of files on real series and files, and how many clean ones they flag.

    python benchmarks/guard_checks.py                         (seeds 0 to 9, all of it)
    python benchmarks/guard_checks.py --seeds 3 --only rescale

Data: `TITER_DATA` (../shared/data). Thresholds of T2 were tuned with seeds from 1000 on and on clean series only; the
bundled files were looked at while rules were written, so their rows say how rules fit, not how they carry over.
A device's baseline is learned from other series of it: of the MR volume from its lower half, while the upper half is
judged; of each brain series from the other one. A tamper counts as caught where a finding (FLAG or BLOCK) is there that
the clean files do not have.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom.data
import torch
from pydicom import FileDataset, dcmread
from pydicom.uid import generate_uid

from titer.core.errors import Incompatible
from titer.core.plugins import make_tamper
from titer.guard.checks import mixed, order
from titer.guard.checks.instance import check_loaded
from titer.guard.checks.loaded import Loaded, load
from titer.guard.checks.matrices import check_table, contract_of
from titer.guard.checks.past import DatabasePast, NoPast, Past
from titer.guard.checks.rule import Rule
from titer.guard.checks.series import RULES as SERIES_RULES
from titer.guard.checks.series import check_series, learning
from titer.guard.checks.vcf import check_vcf, panel_of
from titer.guard.checks.volume import Series
from titer.guard.home import Home
from titer.guard.records import Finding, Outcome
from titer.guard.store.database import WRITES, connect
from titer.guard.store.tables import metadata
from titer.modalities._nrrd import read_nrrd

Files = dict[str, bytes]
KEY = b"benchmark"
SLAB = 20
HEADER = (
    "patient-id-swap",
    "modality-swap",
    "laterality-flip",
    "pixel-spacing",
    "rescale",
    "photometric-flip",
    "duplicate-uid",
    "preamble-executable",
    "instance-order",
    "instance-order shuffle",
    "series-order",
)
SINGLE = ("modality-swap", "laterality-flip", "pixel-spacing", "rescale", "photometric-flip", "preamble-executable")
HEADER_RULES = (*order.RULES, *mixed.RULES)
"""What can see a tampered header in a series: rules of pixels find nothing new there, and are slow."""
PIXELS = ("pixel-patch", "slice-lesion-add", "slice-lesion-remove")
SETTINGS: dict[str, dict[str, object]] = {"instance-order shuffle": {"order": "shuffle"}}


@dataclass(frozen=True)
class Subject:
    """Clean files of two series of one study, of which `first` are of the first one, and what its device had sent."""

    name: str
    files: Files
    first: int
    learned: Callable[[], Sequence[Files]]


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[*HEADER, *PIXELS])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    started = time.process_time()
    seeds = range(options.first, options.first + options.seeds)
    print(f"{time.strftime('%Y-%m-%d')}, seeds {seeds.start} to {seeds.stop - 1}")
    data = Path(os.environ.get("TITER_DATA", "../shared/data"))
    print(dicom_table(data, seeds, options.only))
    if set(options.only) >= {*HEADER, *PIXELS}:
        print(clean_series(data))
        print(cold_table())
        print(vcf_table(data, seeds))
        print(matrix_table(data, seeds))
    print(f"{time.process_time() - started:.0f} CPU seconds of one thread")


def dicom_table(data: Path, seeds: Sequence[int], only: Sequence[str]) -> str:
    """Return the tables of series: tampers caught, and clean ones flagged."""
    caught: dict[tuple[str, str], list[bool]] = defaultdict(list)
    rules: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    clean: dict[str, list[tuple[int, int, bool]]] = defaultdict(list)
    for seed in seeds:
        for subject in subjects(data, seed):
            with guard(subject) as past:
                before, flagged = judged(subject.files, past)
                clean[subject.name].append((len(subject.files), flagged, any(key[1] == "series" for key in before)))
                for name in only:
                    found = tried(name, subject, past, seed, before)
                    if found is not None:
                        caught[name, subject.name].append(bool(found))
                        rules[name, subject.name].update(found)
        print(f"so far, seed {seed}:\n{_caught(caught, rules)}\n{_clean(clean)}", file=sys.stderr, flush=True)
    return "\n\n".join([_caught(caught, rules), _clean(clean)])


def tried(
    name: str, subject: Subject, past: DatabasePast, seed: int, before: set[tuple[str, str, str]]
) -> set[str] | None:
    """Return the rules that find a tamper and find nothing in the clean files; None where it does not fit them."""
    settings = SETTINGS.get(name, {})
    if name == "patient-id-swap":
        settings = {"patient_id": "02468"}
    tamper = make_tamper({"name": name.split()[0], **settings})
    files = dict(list(subject.files.items())[: subject.first]) if name.startswith("slice-lesion") else subject.files
    try:
        made = tamper(files, rng=torch.Generator().manual_seed(seed)).files
    except Incompatible:
        return None
    known = Arrived(past, subject.files if name in ("patient-id-swap", "duplicate-uid") else {})
    after, _ = judged(made, known, HEADER_RULES if name in HEADER else SERIES_RULES)
    return {rule for rule, kind, reason in after if (rule, kind, reason) not in before}


def judged(
    files: Files, past: Past, rules: tuple[Rule[Series], ...] = SERIES_RULES
) -> tuple[set[tuple[str, str, str]], int]:
    """Return (rule, object or series, reason) of what is flagged or blocked, and how many objects are."""
    found: set[tuple[str, str, str]] = set()
    flagged = 0
    with tempfile.TemporaryDirectory() as folder:
        series: dict[str, list[Path]] = defaultdict(list)
        for name, content in files.items():
            path = Path(folder) / name
            path.write_bytes(content)
            one = load(path)
            series[one.text("SeriesInstanceUID")].append(path)
            own = held(check_loaded(one, past))
            flagged += bool(own)
            found |= {(finding.rule, "object", finding.reason) for finding in own}
        for paths in series.values():
            found |= {(finding.rule, "series", finding.reason) for finding in held(check_series(paths, past, rules))}
    return found, flagged


def held(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that hold something back."""
    return [finding for finding in findings if finding.outcome is not Outcome.PASS]


class Arrived:
    """The past with half of a study that came before: every second of its objects, as the database would know them."""

    def __init__(self, past: Past, files: Mapping[str, bytes]) -> None:
        """Note UIDs, digests and patients of every second file."""
        self._past = past
        self._uids: dict[str, list[tuple[str, str | None]]] = defaultdict(list)
        self._patients: dict[str, set[str]] = defaultdict(set)
        with tempfile.TemporaryDirectory() as folder:
            for content in list(files.values())[::2]:
                one = loaded(content, Path(folder))
                self._uids[one.text("SOPInstanceUID")].append((one.digest, one.pixel_digest))
                patient = past.keyed(one.text("PatientID"), one.text("IssuerOfPatientID"))
                self._patients[one.text("StudyInstanceUID")].add(patient)

    def keyed(self, *parts: str) -> str:
        """As the past does."""
        return self._past.keyed(*parts)

    def same_uid(self, sop_uid: str) -> list[tuple[str, str | None]]:
        """Return what came under this UID."""
        return self._uids.get(sop_uid, [])

    def patients(self, study_uid: str) -> set[str]:
        """Return whose objects came in this study."""
        return self._patients.get(study_uid, set())

    def baseline(self, device: str, attribute: str) -> Mapping[str, int]:
        """As the past does."""
        return self._past.baseline(device, attribute)


def loaded(content: bytes, folder: Path) -> Loaded:
    """Return an object of bytes."""
    path = folder / "one.dcm"
    path.write_bytes(content)
    return load(path)


_LEARNED: dict[str, tuple[tempfile.TemporaryDirectory[str], Home]] = {}


@contextmanager
def guard(subject: Subject) -> Iterator[DatabasePast]:
    """Give the past of a guard whose baselines learned what the subject's device had sent before."""
    if subject.name not in _LEARNED:
        folder = tempfile.TemporaryDirectory()
        home = Home(Path(folder.name))
        engine = connect(home, "sqlite:///guard.db")
        metadata.create_all(engine)
        for number, files in enumerate(subject.learned()):
            place = home.root / str(number)
            place.mkdir()
            for name, content in files.items():
                (place / name).write_bytes(content)
            step = learning(KEY, sorted(place.iterdir()))
            with engine.connect().execution_options(**WRITES) as connection, connection.begin():
                step(connection)
        engine.dispose()
        _LEARNED[subject.name] = (folder, home)
    engine = connect(_LEARNED[subject.name][1], "sqlite:///guard.db")
    with engine.connect() as connection:
        yield DatabasePast(connection, KEY)
    engine.dispose()


def subjects(data: Path, seed: int) -> Iterator[Subject]:
    """Yield the subjects of one seed: two series each, drawn from the half or the volume that is judged."""
    rng = np.random.default_rng(seed)
    volume = mr_volume(data)
    half = len(volume) // 2
    drawn = [int(rng.integers(half, len(volume) - SLAB + 1)) for _ in range(2)]
    files = {**slab(volume, drawn[0], 0, seed), **slab(volume, drawn[1], 1, seed)}
    starts = np.linspace(0, half - SLAB, 6).astype(int)
    yield Subject("MR volume, 130 slices", files, SLAB, lambda: [slab(volume, int(at), 0, 900) for at in starts])
    own, other = (1, 2) if seed % 2 else (2, 1)
    brain, rest = brain_series(data, own), brain_series(data, other)
    files = {**as_series(brain, 0, seed), **as_series(brain, 1, seed)}
    learned = [rest[at : at + 12] for at in (0, 2, 4, 6, 8, 10)]
    yield Subject(f"brain series {own}", files, len(brain), lambda: [as_series(one, 0, 900) for one in learned])


@lru_cache(maxsize=1)
def mr_volume(data: Path) -> tuple[bytes, ...]:
    """Return the MR volume's files in the order in which they lie."""
    with zipfile.ZipFile(data / "dicom_volume/t1w_mr_130slices_dicom.zip") as archive:
        files = [archive.read(name) for name in archive.namelist() if name.endswith(".dcm")]
    return tuple(sorted(files, key=lambda content: float(dcmread(io.BytesIO(content)).ImagePositionPatient[2])))


def slab(volume: Sequence[bytes], start: int, number: int, seed: int) -> Files:
    """Return neighbouring slices as a series of their own, `number` tens of minutes after the first of its study."""
    out = {}
    uid = generate_uid(entropy_srcs=[f"slab {start} {number} {seed}"])
    for place, content in enumerate(volume[start : start + SLAB]):
        dataset = dcmread(io.BytesIO(content))
        dataset.SeriesInstanceUID = uid
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[f"slab {start} {number} {seed} {place}"])
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.SeriesNumber = 401 + number
        dataset.SeriesTime = dataset.ContentTime = f"14{20 + 10 * number:02d}35.93"
        out[f"{number}-{place:03d}.dcm"] = written(dataset)
    return out


@lru_cache(maxsize=2)
def brain_series(data: Path, number: int) -> tuple[np.ndarray, ...]:
    """Return the slices of one of the brain volumes, int16[H, W]."""
    return tuple(read_nrrd(data / f"brain_mri/brain{number}_image.nrrd").astype(np.int16))


def as_series(slices: Sequence[np.ndarray], number: int, seed: int) -> Files:
    """Return slices as a DICOM series with the header that an MR scanner writes, acquired one after the other."""
    template = dcmread(pydicom.data.get_testdata_file("MR_small.dcm"))
    for key in ("DataSetTrailingPadding", "SmallestImagePixelValue", "LargestImagePixelValue"):
        if key in template:
            del template[key]
    series = generate_uid(entropy_srcs=[f"brain {number} {seed} {len(slices)} {int(slices[0].sum())}"])
    study = generate_uid(entropy_srcs=[f"study {seed}"])
    frame = generate_uid(entropy_srcs=[f"frame {seed}"])
    out = {}
    for place, values in enumerate(slices):
        one = template.copy()
        one.file_meta = template.file_meta.copy()
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        one.SOPInstanceUID = generate_uid(entropy_srcs=[f"{series} {place}"])
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        one.ImageType = ["ORIGINAL", "PRIMARY", "M", "SE"]
        one.PatientID, one.ProtocolName, one.StationName = "BRAIN", "brain tumour", "MR1"
        one.SeriesNumber, one.InstanceNumber = 3 + number, place + 1
        one.StudyDate = one.SeriesDate = one.AcquisitionDate = one.ContentDate = "20200202"
        one.StudyTime, one.SeriesTime = "095900", f"10{10 * number:02d}00"
        one.AcquisitionTime = one.ContentTime = f"10{10 * number + 2 + place // 30:02d}{place % 30 * 2:02d}"
        one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        one.ImagePositionPatient = [-120, -120, round(-70 + 6.5 * place, 3)]
        one.SliceLocation, one.SliceThickness, one.SpacingBetweenSlices = round(-70 + 6.5 * place, 3), 5, 6.5
        one.PixelSpacing = [0.9375, 0.9375]
        one.Rows, one.Columns = values.shape
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
        one.PixelData = values.astype("<i2").tobytes()
        out[f"{number}-{place:03d}.dcm"] = written(one)
    return out


def written(dataset: FileDataset) -> bytes:
    """Return the bytes of a data set."""
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def bundled() -> Iterator[tuple[str, bytes]]:
    """Yield the images that pydicom brings along, those left out that are damaged or no image objects by design."""
    root = Path(pydicom.data.__file__).parent / "test_files"
    for path in sorted(root.rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if content[128:132] != b"DICM" or any(
            word in path.name for word in ("truncated", "mismatch", "badVR", "padded")
        ):
            continue
        dataset = dcmread(io.BytesIO(content))
        if "PixelData" in dataset and "SOPClassUID" in dataset and dataset.get("Modality"):
            yield str(path.relative_to(root)), content


def cold_table() -> str:
    """Return what is caught, and flagged, of single files of devices that the guard sees for the first time."""
    caught: dict[str, list[bool]] = defaultdict(list)
    rules: dict[str, Counter[str]] = defaultdict(Counter)
    flagged, files = [], dict(bundled())
    for name, content in files.items():
        before, _ = judged({"one.dcm": content}, NoPast())
        if before:
            flagged.append(f"{name} ({', '.join(sorted({rule for rule, _, _ in before}))})")
        for which in SINGLE:
            try:
                made = make_tamper({"name": which})({"one.dcm": content}, rng=torch.Generator().manual_seed(0)).files
            except Incompatible:
                continue
            found = {one for one in judged(made, NoPast())[0] if one not in before}
            caught[which].append(bool(found))
            rules[which].update({rule for rule, _, _ in found})
    rows = [
        {"tamper": name, "files": len(runs), "caught": f"{np.mean(runs):.0%}", "rules": listed(rules[name], len(runs))}
        for name, runs in caught.items()
    ]
    table = markdown(rows)
    told = "\n".join(f"- {one}" for one in flagged)
    return (
        f"Single files that pydicom brings along, no baseline, T1 and T2 of one file each:\n\n{table}\n\n"
        f"Clean ones flagged: {len(flagged)} of {len(files)}\n{told}\n"
    )


def _caught(caught: Mapping[tuple[str, str], list[bool]], rules: Mapping[tuple[str, str], Counter[str]]) -> str:
    rows = [
        {"tamper": name, "of": subject, "runs": len(runs), "caught": f"{np.mean(runs):.0%}",
         "rules (share of runs)": listed(rules[name, subject], len(runs))}
        for (name, subject), runs in caught.items()
    ]  # fmt: skip
    every = {name: [one for (own, _), runs in caught.items() if own == name for one in runs] for name, _ in caught}
    sums = []
    for title, group in (("header and order", HEADER), ("pixels", PIXELS)):
        runs = [one for name in group for one in every.get(name, [])]
        if runs:
            sums.append(f"{title} tampers: {sum(runs)} of {len(runs)} caught ({np.mean(runs):.1%})")
    return "\n".join([markdown(rows), "", *sums])


def _clean(clean: Mapping[str, list[tuple[int, int, bool]]]) -> str:
    rows = [
        {"clean": name, "objects": sum(n for n, _, _ in runs), "objects flagged": sum(k for _, k, _ in runs),
         "studies": len(runs), "studies with a series flagged": sum(bad for _, _, bad in runs)}
        for name, runs in clean.items()
    ]  # fmt: skip
    return markdown(rows)


def markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as a table."""
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([str(row[head]) for head in heads] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def listed(counts: Mapping[str, int], runs: int) -> str:
    """Return rules with the share of runs in which they found something."""
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return ", ".join(f"{rule} {count / runs:.0%}" for rule, count in ordered) or "-"


def clean_series(data: Path) -> str:
    """Return what T2 says of whole clean series: the MR volume, its reformats, and the brain series."""
    slices = np.stack([dcmread(io.BytesIO(content)).pixel_array for content in mr_volume(data)]).astype(np.int16)
    made = {
        "MR volume as it is": {f"{i:03d}.dcm": content for i, content in enumerate(mr_volume(data))},
        "its coronal reformat": as_series(tuple(slices.transpose(1, 0, 2)[60:330]), 0, 900),
        "its sagittal reformat": as_series(tuple(slices.transpose(2, 0, 1)[40:240]), 0, 900),
        "brain series 1": as_series(brain_series(data, 1), 0, 900),
        "brain series 2": as_series(brain_series(data, 2), 0, 900),
    }
    rows = []
    for name, files in made.items():
        with tempfile.TemporaryDirectory() as folder:
            for number, content in enumerate(files.values()):
                (Path(folder) / f"{number}.dcm").write_bytes(content)
            found = check_series(sorted(Path(folder).iterdir()), NoPast())
        said = "; ".join(f"{one.outcome.value} {one.rule}: {one.reason}" for one in found) or "-"
        rows.append({"clean series": name, "slices": len(files), "T2 says": said})
    return markdown(rows) + "\n"


def vcf_table(data: Path, seeds: Sequence[int]) -> str:
    """Return what the strict checker finds of genotype files, with and without the panel of the model."""
    source = data / "genotypes/kidd.aisnp.1kg.vcf.gz"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / source.name
        path.write_bytes(in_order(source.read_bytes()))
        clean, panel = path.read_bytes(), panel_of(path)
        for name in ("clean", "vcf-allele", "vcf-genotype-range", "vcf-unsorted", "vcf-undeclared-contig"):
            alone, known = [], []
            for seed in seeds if name != "clean" else [0]:
                content = clean
                if name != "clean":
                    rng = torch.Generator().manual_seed(seed)
                    content = make_tamper({"name": name})({source.name: clean}, rng=rng).files[source.name]
                path.write_bytes(content)
                alone.append(bool(held(check_vcf(path))))
                known.append(bool(held(check_vcf(path, panel))))
            rows.append({"VCF": name, "runs": len(alone), "form alone": f"{np.mean(alone):.0%}",
                         "with the panel": f"{np.mean(known):.0%}"})  # fmt: skip
    return markdown(rows) + "\n"


def in_order(content: bytes) -> bytes:
    """Return a VCF file with its records in the order of contigs and positions, which two of the source's are not."""
    lines = gzip.decompress(content).decode().splitlines(keepends=True)
    contigs = [line.split("ID=")[1].split(",")[0] for line in lines if line.startswith("##contig")]
    records = sorted(
        (line for line in lines if not line.startswith("#")),
        key=lambda line: (contigs.index(line.split("\t")[0]), int(line.split("\t")[1])),
    )
    return gzip.compress("".join([*(line for line in lines if line.startswith("#")), *records]).encode(), mtime=0)


def matrix_table(data: Path, seeds: Sequence[int]) -> str:
    """Return what the checker of tables finds: the contract of 150 training rows, the 70 test rows tampered."""
    table = pd.read_csv(data / "expression/tcga_brca_pam50_mrna_mirna.csv.gz", index_col=0)
    others = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    train, test = table[table["split"] == "train"], table[table["split"] != "train"]
    names = [name for name in table.columns if name not in others]
    contract = contract_of(names, train[names].to_numpy())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.csv"
        clean = test.to_csv().encode()
        for name in ("clean", "gene-columns-swap", "counts-scale", "sample-swap"):
            caught = []
            for seed in seeds if name != "clean" else [0]:
                rng = torch.Generator().manual_seed(seed)
                made = (
                    clean
                    if name == "clean"
                    else make_tamper({"name": name})({"test.csv": clean}, rng=rng).files["test.csv"]
                )
                path.write_bytes(made)
                caught.append(bool(held(check_table(path, contract, others))))
            rows.append({"table": name, "runs": len(caught), "flagged": f"{np.mean(caught):.0%}"})
    return markdown(rows) + "\n"


if __name__ == "__main__":
    main()
