"""The genotypes modality: the real data, the user's own files, its rules, and what it refuses."""

import numpy as np
import pytest
import torch

from titer.assess.trial import split_by_patient
from titer.core.errors import SpecError
from titer.core.plugins import load_data
from titer.core.threat import Estimated, Threat
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.threats.linkage import linkage_plausible


@pytest.fixture(scope="module")
def kidd(titer_data):
    del titer_data
    return load_data("genotypes")


def test_the_default_data_are_2504_people_at_55_sites(kidd):
    assert kidd.pool is not None
    assert tuple(kidd.pool.x.shape) == (2504, 55)
    assert kidd.classes == ("AFR", "AMR", "EAS", "EUR", "SAS")
    assert torch.bincount(kidd.pool.y).tolist() == [661, 347, 504, 503, 489]
    assert set(kidd.pool.groups["sex"]) == {"female", "male"}
    assert set(kidd.pool.x.unique().tolist()) == {0.0, 1.0, 2.0}
    assert kidd.feature_names is not None
    known = dict(zip(kidd.feature_names, kidd.drawing["frequencies"]["all"], strict=True))
    assert known["rs3827760"] == pytest.approx(0.235623, abs=1e-4), "AF as the file's INFO has it"


def test_dosages_and_alleles_of_the_two_files_agree(kidd, titer_data):
    import pandas as pd

    table = pd.read_csv(titer_data / "genotypes" / "kidd.1kG.csv.gz", index_col="sample").loc[list(kidd.pool.ids)]
    for i, (_, _, name, _, alternate) in enumerate(kidd.drawing["sites"]):
        assert (table[name].str.count(alternate).to_numpy() == kidd.pool.x[:, i].numpy()).all()


def test_rows_are_written_as_genotypes(kidd):
    row = torch.zeros(55)
    row[:3] = torch.tensor([0.0, 1.0, 2.0])
    assert kidd.written(row)[:3] == ["0/0", "0/1", "1/1"]


def test_a_changed_genotype_must_occur_alone_and_with_what_it_is_linked_to(kidd):
    rule = kidd.rules["linkage-plausible"]
    assert isinstance(rule, Estimated)
    train = split_by_patient(kidd, 0).train.x
    fitted = rule.fitted(train)
    names = {frozenset(kidd.feature_names[int(i)] for i in pair) for pair in fitted.pairs}
    assert frozenset(("rs3916235", "rs4891825")) in names, "289 kb apart on chromosome 18, r2 0.87"
    x = kidd.pool.x[:300]
    assert bool(fitted.contains(x, x).all()), "what nobody changed is never judged"
    first, second = (kidd.feature_names.index(name) for name in ("rs3916235", "rs4891825"))
    both = x[(x[:, first] == 2) & (x[:, second] == 2)][:1]
    torn = both.clone()
    torn[:, second] = 0
    assert not bool(fitted.contains(torn, both).any())
    assert torch.equal(fitted.project(torn, both), both)
    moved = both.clone()
    moved[:, [first, second]] = 0
    assert bool(fitted.contains(moved, both).all())


def test_the_rule_counts_shares_of_the_people_it_is_fitted_on():
    people = torch.tensor([[0.0, 0.0, 0.0]] * 60 + [[2.0, 2.0, 1.0]] * 38 + [[1.0, 0.0, 2.0]] * 2)
    rule = linkage_plausible(people, ((0, 1), (1, 2)), states=3, least_r2=0.9, frequency=0.05)
    assert rule.pairs.tolist() == [[0, 1]]
    x = torch.zeros(5, 3)
    changed = torch.tensor([[1.0, 0, 0], [2.0, 0, 0], [2.0, 2.0, 0], [0, 0, 1.0], [0, 0, 2.0]])
    assert rule.contains(changed, x).tolist() == [False, False, True, True, False]
    # A site that breaks the rule alone is put back, and so is its partner if that leaves the pair torn.
    assert rule.project(torch.tensor([[2.0, 2.0, 2.0], [2.0, 1.0, 1.0]]), x[:2]).tolist() == [[2, 2, 0], [0, 0, 1]]


def test_projection_ends_inside_every_rule(kidd):
    rule = kidd.rules["linkage-plausible"]
    budget = ball("l0", 8, torch.tensor(1.0), "values")
    threat = Threat(family="l0", budget=budget, domain=(*kidd.domain, rule), goal=AnyError())
    x = kidd.pool.x[:200]
    wild = x + 2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    inside = threat.project(wild, x)
    assert bool(threat.contains(inside, x).all())
    assert float((inside != x).sum(1).float().mean()) > 1


HEADER = "##fileformat=VCFv4.2\n##contig=<ID=1>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t"


def _own(tmp_path, people=12, changes=None, columns="sample,label,patient_id,sex"):
    rng = np.random.default_rng(0)
    names = [f"s{i}" for i in range(people)]
    table = rng.integers(0, 3, (people, 6))
    cells = {0: "0/0", 1: "0/1", 2: "1/1"}
    rows = [[cells[int(table[i, j])] for i in range(people)] for j in range(6)]
    for (i, j), text in (changes or {}).items():
        rows[j][i] = text
    lines = [f"1\t{10 * (j + 1)}\trs{j}\tA\tG\t.\t.\t.\tGT\t" + "\t".join(rows[j]) for j in range(6)]
    vcf, labels = tmp_path / "own.vcf", tmp_path / "own.csv"
    vcf.write_text(HEADER + "\t".join(names) + "\n" + "\n".join(lines) + "\n")
    kept = columns.split(",")
    values = {"sample": names, "label": ["ill" if i % 2 else "well" for i in range(people)]}
    values |= {"patient_id": [f"p{i // 2}" for i in range(people)], "sex": ["F", "M"] * (people // 2)}
    values |= {"split": ["train", "train", "validation", "validation", "test", "test"] * (people // 6)}
    text = [",".join(kept), *(",".join(values[name][i] for name in kept) for i in range(people))]
    labels.write_text("\n".join(text) + "\n")
    return {"name": "genotypes", "file": str(vcf), "labels": str(labels)}


def test_the_users_own_files_are_read(tmp_path):
    data = load_data(_own(tmp_path))
    assert data.classes == ("ill", "well")
    assert tuple(data.pool.x.shape) == (12, 6)
    assert data.pool.patients[:4] == ("p0", "p0", "p1", "p1")
    assert data.feature_names == tuple(f"rs{j}" for j in range(6))


def test_missing_genotypes_are_refused_or_filled_as_asked(tmp_path):
    spec = _own(tmp_path, changes={(3, 2): "./.", (5, 2): "."})
    with pytest.raises(SpecError, match=r"2 missing genotypes, the first of sample s3 at rs2"):
        load_data(spec)
    assert load_data({**spec, "missing": "reference"}).pool.x[3, 2] == 0
    filled = load_data({**spec, "missing": "common"}).pool.x[:, 2]
    known = [float(filled[i]) for i in range(12) if i not in (3, 5)]
    assert filled[3] == filled[5] == max((0.0, 1.0, 2.0), key=known.count)


def test_people_of_the_same_genotypes_stand_in_one_part(tmp_path):
    cells = {0: "0/0", 1: "0/1", 2: "1/1"}
    table = np.random.default_rng(0).integers(0, 3, (12, 6))
    twins = {(7, j): cells[int(table[0, j])] for j in range(6)}
    data = load_data(_own(tmp_path, changes=twins))
    assert data.pool.patients[0] == data.pool.patients[7] == data.pool.patients[6]
    same = {(4, j): cells[int(table[0, j])] for j in range(6)}
    with pytest.raises(SpecError, match=r"sample s0 \(train\), sample s4 \(test\) have the same genotypes"):
        load_data(_own(tmp_path, changes=same, columns="sample,label,split"))


def test_a_patient_in_two_parts_is_named(tmp_path):
    spec = _own(tmp_path, columns="sample,label,patient_id,split")
    path = tmp_path / "own.csv"
    path.write_text(path.read_text().replace("s2,well,p1", "s2,well,p0"))
    with pytest.raises(SpecError, match="p0 stand in both train and validation"):
        load_data(spec)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("s3,", "s99,", "has no row of samples of the VCF file: s3"),
        ("s3,", "s2,", "names samples twice: s2"),
        ("label", "diagnosis", "data.label_column = 'label' is not a column"),
        ("s4,well", "s4,", "label is empty in sample s4"),
    ],
)
def test_labels_that_do_not_fit_are_named(old, new, reason, tmp_path):
    spec = _own(tmp_path)
    path = tmp_path / "own.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(SpecError) as error:
        load_data(spec)
    assert reason in str(error.value)


def test_one_of_the_two_files_alone_is_refused(tmp_path):
    spec = _own(tmp_path)
    with pytest.raises(SpecError, match="go together"):
        load_data({"name": "genotypes", "file": spec["file"]})
