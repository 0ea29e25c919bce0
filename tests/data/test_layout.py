"""Tests of bmjax.data.layout, manifest and cases: who is who among the files."""

import os

import pytest

from bmjax.data.cases import find_cases, sort_cases
from bmjax.data.layout import patient_and_visit


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def ids(cases):
    return [case.id for case in cases]


def files(case):
    return {channel: path.name for channel, path in case.images.items()}


FOUR = ("t1c", "t1n", "t2f", "t2w")


def brats(case):
    return [f"{case}/{case}-{name}.nii.gz" for name in (*FOUR, "seg")]


def test_brats_folders_are_found_in_order(tmp_path):
    touch(tmp_path, *brats("BraTS-MET-00002-001"), *brats("BraTS-MET-00001-000"))
    first, second = find_cases(tmp_path, need_labels=True)
    assert first.id == "BraTS-MET-00001-000"
    assert (second.patient, second.visit) == ("BraTS-MET-00002", "001")
    assert list(first.images) == list(FOUR)
    assert first.labels is not None and first.labels.name.endswith("-seg.nii.gz")


@pytest.mark.parametrize(
    "names",
    [
        ("t1ce", "t1", "flair", "t2"),
        ("T1post", "T1pre", "FLAIR", "T2Synth"),
        ("t1_post", "t1-pre", "fla", "t2"),
        ("T1Gd", "T1", "Flair", "T2"),
        ("ce_t1"[3:] + "ce", "t1n", "t2_flair", "T2W"),
    ],
)
def test_every_alias_is_understood(tmp_path, names):
    touch(tmp_path, *(f"case_7/case_7_{name}.nii" for name in names))
    (case,) = find_cases(tmp_path)
    assert case.id == "case_7" and case.labels is None
    assert files(case) == dict(
        zip(FOUR, (f"case_7_{name}.nii" for name in names), strict=True)
    )


def test_ucsf_folders_prefer_the_brats_labels(tmp_path):
    names = ("T1pre", "T1post", "FLAIR", "T2Synth", "subtraction", "seg", "BraTS-seg")
    touch(tmp_path, *(f"100101A/100101A_{name}.nii.gz" for name in names))
    cases, problems, notes = sort_cases(tmp_path)
    assert not problems
    assert (cases[0].patient, cases[0].visit) == ("100101", "A")
    assert cases[0].labels is not None
    assert cases[0].labels.name == "100101A_BraTS-seg.nii.gz"
    assert [note.file.name for note in notes if note.file] == [
        "100101A_seg.nii.gz",
        "100101A_subtraction.nii.gz",
    ]


def test_one_flat_folder_and_separate_label_folders_are_read(tmp_path):
    touch(tmp_path, *(f"images/a-{name}.nii.gz" for name in FOUR), "labels/a-seg.nii")
    touch(tmp_path, *(f"images/b_{name}.nii.gz" for name in FOUR), "labels/b-seg.nii")
    cases = find_cases(tmp_path, need_labels=True)
    assert ids(cases) == ["a", "b"]
    assert cases[1].labels == tmp_path / "labels" / "b-seg.nii"


def test_a_single_exam_is_named_after_its_folder(tmp_path):
    touch(tmp_path / "exam", *(f"{name}.nii.gz" for name in FOUR))
    (case,) = find_cases(tmp_path / "exam")
    assert case.id == "exam"


def test_any_named_channel_can_be_asked_for(tmp_path):
    touch(tmp_path, "p1/p1_CT.nii.gz", "p1/p1_subtraction.nii.gz")
    (case,) = find_cases(tmp_path, channels=("ct", "subtraction"))
    assert files(case) == {
        "ct": "p1_CT.nii.gz",
        "subtraction": "p1_subtraction.nii.gz",
    }


def test_names_with_spaces_and_umlauts_work(tmp_path):
    touch(tmp_path, *(f"Fall Größe/Fall Größe {name.upper()}.NII.GZ" for name in FOUR))
    (case,) = find_cases(tmp_path)
    assert case.id == "Fall Größe"


def test_hidden_files_are_passed_over(tmp_path):
    touch(tmp_path, *brats("a"), "a/._a-t1c.nii.gz", ".tmp/a-t1c.nii.gz")
    assert ids(find_cases(tmp_path)) == ["a"]


def test_patients_and_visits_are_read_from_names():
    assert patient_and_visit("BraTS-GLI-00123-002") == ("BraTS-GLI-00123", "002")
    assert patient_and_visit("100101A") == ("100101", "A")
    assert patient_and_visit("sub-07_ses-2") == ("sub-07", "2")
    assert patient_and_visit("anything") == ("anything", "")


def test_fault_1_a_missing_modality_names_case_and_suffix(tmp_path):
    touch(tmp_path, *brats("a"), *brats("b"))
    (tmp_path / "a" / "a-t2f.nii.gz").unlink()
    (tmp_path / "b" / "b-seg.nii.gz").unlink()
    with pytest.raises(ValueError) as error:
        find_cases(tmp_path, need_labels=True)
    assert "a: t2f missing" in str(error.value) and "a-t2f.nii.gz" in str(error.value)
    assert "b: labels missing" in str(error.value)
    assert ids(find_cases(tmp_path, ids=["b"])) == ["b"]


def test_fault_2_an_unknown_file_is_noted_and_ignored(tmp_path):
    touch(tmp_path, *brats("a"), "a/prediction.nii.gz")
    cases, problems, notes = sort_cases(tmp_path)
    assert ids(cases) == ["a"] and not problems
    assert "prediction.nii.gz: not used" in str(notes[0])


def test_fault_4_a_modality_that_is_there_twice_names_both(tmp_path):
    touch(tmp_path, *brats("a"), "a/a-t1c.nii")
    with pytest.raises(ValueError, match=r"t1c is there twice: .*a-t1c.nii and .*gz"):
        find_cases(tmp_path)


def test_fault_4_the_same_case_in_two_folders_names_both(tmp_path):
    touch(tmp_path / "x", *brats("a"))
    touch(tmp_path / "y", *brats("a"))
    with pytest.raises(ValueError, match="x/a/a-t1c.nii.gz and .*y/a/a-t1c.nii.gz"):
        find_cases(tmp_path)


def test_fault_12_links_that_dangle_or_lead_outside_are_refused(tmp_path):
    touch(tmp_path / "else", *brats("a"))
    root = tmp_path / "root"
    touch(root, *brats("b"))
    os.symlink(tmp_path / "else" / "a", root / "a")
    with pytest.raises(ValueError, match="outside of the data folder"):
        find_cases(root)
    assert ids(find_cases(root, allow_outside=True)) == ["a", "b"]
    (root / "a").unlink()
    (root / "b" / "b-t1c.nii.gz").unlink()
    os.symlink("nowhere", root / "b" / "b-t1c.nii.gz")
    with pytest.raises(ValueError, match="a link to nowhere, which does not exist"):
        find_cases(root)


def test_links_inside_and_loops_are_harmless(tmp_path):
    touch(tmp_path, *brats("a"))
    os.symlink(tmp_path, tmp_path / "a" / "loop")
    assert ids(find_cases(tmp_path)) == ["a"]


def test_unknown_ids_and_empty_folders_are_errors(tmp_path):
    with pytest.raises(ValueError, match="no case found; expected files like CASE-t1c"):
        find_cases(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder or manifest"):
        find_cases(tmp_path / "nothing")
    touch(tmp_path, *brats("a"))
    with pytest.raises(ValueError, match="z: no such case under .* it holds a"):
        find_cases(tmp_path, ids=["z"])


def test_an_empty_real_case_is_incomplete(real_cases):
    cases, problems, notes = sort_cases(real_cases.parent / "brats_met")
    assert ids(cases) == ["BraTS-MET-00110-000"]
    assert "BraTS-MET-01352-000: t1c, t1n, t2f, t2w missing" in str(problems[0])
    assert len(notes) == 1


# Manifests


def manifest(root, text):
    touch(root, *(f"{case}-{name}.nii.gz" for case in "ab" for name in (*FOUR, "seg")))
    (root / "manifest.csv").write_text(text, encoding="utf-8-sig")
    return root / "manifest.csv"


def row(case, extra=""):
    return ",".join([case, *(f"{case}-{name}.nii.gz" for name in FOUR)]) + extra + "\n"


def test_a_manifest_names_files_and_facts(tmp_path):
    head = "case,T1CE,t1,flair,t2,seg,patient,visit,primary\n"
    rows = row("a", ",a-seg.nii.gz,P1,2,lung") + row("b", ",,P1,1,")
    path = manifest(tmp_path, head + rows)
    for root in (path, tmp_path):  # the table, or the folder it lies in
        first, second = find_cases(root)
        assert (first.patient, first.visit) == ("P1", "2")
        assert first.columns == {"primary": "lung"}
        assert first.labels == tmp_path / "a-seg.nii.gz" and second.labels is None
        assert files(first)["t2f"] == "a-t2f.nii.gz"


def test_fault_12_a_manifest_does_not_reach_outside(tmp_path):
    touch(tmp_path, "x.nii.gz")
    (tmp_path / "root").mkdir()
    head = "case,t1c\n"
    for cell in ("../x.nii.gz", str(tmp_path / "x.nii.gz")):
        path = manifest(tmp_path / "root", f"{head}a,{cell}\n")
        with pytest.raises(ValueError, match="line 2: .* lies outside"):
            find_cases(path, channels=("t1c",))
        assert ids(find_cases(path, channels=("t1c",), allow_outside=True)) == ["a"]


def test_all_faults_of_a_manifest_are_listed(tmp_path):
    path = manifest(tmp_path, "case,t1c\na,none.nii\na,a-t1c.nii.gz\n../b,x\nc,\n")
    _, problems, _ = sort_cases(path, channels=("t1c",))
    text = "\n".join(map(str, problems))
    assert "line 2: no such file, named in column t1c" in text
    assert "line 3: case a occurs twice" in text
    assert "line 4: '../b' cannot name a case" in text
    assert "c: t1c missing" in text


def test_a_manifest_without_its_key_columns_is_refused(tmp_path):
    path = manifest(tmp_path, "name,t1c\na,a-t1c.nii.gz\n")
    with pytest.raises(ValueError, match="no column 'case' among name, t1c"):
        find_cases(path)
    path = manifest(tmp_path, "case,t1c,t1ce\na,x,y\n")
    with pytest.raises(ValueError, match="'t1c' and 't1ce' both mean t1c"):
        find_cases(path)


def test_a_tab_separated_manifest_is_read(tmp_path):
    touch(tmp_path, "a-t1c.nii.gz")
    (tmp_path / "cases.tsv").write_text("case\tt1c\tnote\na\ta-t1c.nii.gz\tx, y\n")
    (case,) = find_cases(tmp_path / "cases.tsv", channels=("t1c",))
    assert case.columns == {"note": "x, y"}
