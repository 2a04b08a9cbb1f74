"""Every tamper on damaged files: it tampers, or refuses in one line, and never fails in another way."""

import random
import warnings

import pytest
import torch

from titer.core.errors import Incompatible, SpecError
from titer.core.plugins import make_tamper
from titer.core.protocols import Tampered
from titer.core.registry import SHELVES

TAMPERS = SHELVES["tampers"].all()
SETTINGS = {"slice-lesion-add": {"radius": 3}, "slice-lesion-remove": {"radius": 3}}
TIMES = 42
"""Mutations of each tamper: 24 of them make a thousand."""


def _files(name, request):
    """Valid files for a tamper, small ones: what it takes stands in its traits."""
    (kind,) = TAMPERS[name].traits
    if name in ("patient-id-swap", "series-order"):
        return request.getfixturevalue("two_patients")
    if name == "laterality-flip":
        return request.getfixturevalue("sided")
    if kind == "dicom":
        return request.getfixturevalue("ct")
    if kind == "dicom-series":
        return request.getfixturevalue("small_volume")
    return request.getfixturevalue(kind)


def _mutated(content, rng):
    broken = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        # Headers stand at the beginning of most formats: half of the changes fall there.
        at = rng.randrange(min(len(broken), 2000) if rng.random() < 0.5 else len(broken)) if broken else 0
        kind = rng.randrange(4)
        if kind == 0:
            broken[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del broken[at : at + rng.randint(1, 30)]
        elif kind == 2:
            broken[at:at] = broken[at : at + rng.randint(1, 60)]
        else:
            broken[at:at] = rng.choice([b"\t", b"\n", b",", b'"', b"\x00", b"\xff\xff\xff\xff", b"-1", b"DICM", b"@"])
    if rng.random() < 0.1:
        del broken[rng.randrange(len(broken) + 1) :]
    return bytes(broken)


@pytest.fixture(scope="session")
def sided(volume):
    """One MR slice that says where left and right are."""
    return dict([next(iter(volume.items()))])


@pytest.fixture(scope="session")
def small_volume(ct):
    """Three slices of 128 x 128 made of one real CT slice, three millimetres apart."""
    import io

    import pydicom

    files = {}
    for i in range(3):
        dataset = pydicom.dcmread(io.BytesIO(ct["CT_small.dcm"]))
        dataset.InstanceNumber = i + 1
        dataset.ImagePositionPatient = [0.0, 0.0, 3.0 * i]
        dataset.SOPInstanceUID = f"1.2.3.{i}"
        stream = io.BytesIO()
        dataset.save_as(stream)
        files[f"{i}.dcm"] = stream.getvalue()
    return files


@pytest.mark.parametrize("name", TAMPERS)
def test_a_damaged_file_is_tampered_with_or_refused_in_one_line(name, request):
    files = _files(name, request)
    tamper = make_tamper({"name": name, **SETTINGS.get(name, {})})
    if name != "series-order":
        assert tamper(files, rng=torch.Generator()).changed, "the files are valid before they are damaged"
    rng, done, refused = random.Random(name), 0, []
    for _ in range(TIMES):
        chosen = rng.choice(list(files))
        damaged = {**files, chosen: _mutated(files[chosen], rng)}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                result = tamper(damaged, rng=torch.Generator().manual_seed(0))
            except (Incompatible, SpecError) as error:
                refused.append(str(error))
                continue
        assert isinstance(result, Tampered)
        assert result.changed
        assert all(isinstance(content, bytes) for content in result.files.values())
        done += 1
    assert done + len(refused) == TIMES
    assert not any("\n" in told for told in refused)


@pytest.mark.parametrize("name", TAMPERS)
def test_no_files_at_all_and_empty_files_are_refused(name):
    for files in ({}, {"empty": b""}):
        try:
            done = make_tamper(name)(files, rng=torch.Generator())
        except Incompatible:
            continue
        assert done.files == {}, name
