"""Data sets as people have them: nnU-Net raw, BIDS, UCSF-BMSR, BraTS of every year."""

import json

import pytest

from bmjax.data.cases import find_cases, sort_cases
from bmjax.data.description import RawData, describe
from bmjax.data.layout import patient_and_visit
from bmjax.planning import BRATS_METS

BRATS = {
    "channel_names": {"0": "T1Gd", "1": "FLAIR"},
    "labels": {"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": 3},
    "regions_class_order": [2, 1, 3],
    "file_ending": ".nii.gz",
    "numTraining": 1,
}


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def nnunet(root, *cases, dataset=BRATS):
    for case in cases:
        touch(root, *(f"imagesTr/{case}_000{i}.nii.gz" for i in range(2)))
        touch(root, f"labelsTr/{case}.nii.gz")
    (root / "dataset.json").write_text(json.dumps(dataset))
    return root


def names(case):
    return {channel: path.name for channel, path in case.images.items()}


def test_nnunet_raw_data_are_read_in_place_by_channel_name(tmp_path):
    root = nnunet(tmp_path, "BraTS-MET-00001-000", "b_1")
    first, second = find_cases(root, need_labels=True)
    assert names(first) == {
        "t1c": "BraTS-MET-00001-000_0000.nii.gz",
        "t2f": "BraTS-MET-00001-000_0001.nii.gz",
    }
    assert first.patient == "BraTS-MET-00001" and second.id == "b_1"
    assert second.labels == root / "labelsTr" / "b_1.nii.gz"
    found = describe(root)
    assert found.channels == ("t1c", "t2f") and found.scheme == BRATS_METS


def test_nnunet_test_images_are_described_by_the_file_above_them(tmp_path):
    root = nnunet(tmp_path, "a")
    touch(root, "imagesTs/z_0000.nii.gz", "imagesTs/z_0001.nii.gz")
    (case,) = find_cases(root / "imagesTs", channels=("t2f",))
    assert case.id == "z" and names(case) == {"t2f": "z_0001.nii.gz"}
    assert case.labels is None


def test_nnunet_files_named_in_the_description_are_read(tmp_path):
    listed = {"a": {"images": ["x/1.nii.gz", "x/2.nii.gz"], "label": "x/3.nii.gz"}}
    touch(tmp_path, "x/1.nii.gz", "x/2.nii.gz", "x/3.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps(BRATS | {"dataset": listed}))
    (case,) = find_cases(tmp_path, need_labels=True)
    assert names(case) == {"t1c": "1.nii.gz", "t2f": "2.nii.gz"}
    listed["a"]["images"][0] = "../x.nii.gz"
    listed["a"]["label"] = "none.nii.gz"
    (tmp_path / "dataset.json").write_text(json.dumps(BRATS | {"dataset": listed}))
    text = "\n".join(map(str, sort_cases(tmp_path)[1]))
    assert "lies outside of the data folder" in text and "no such file" in text


def test_a_missing_channel_file_and_a_spare_one_are_named(tmp_path):
    root = nnunet(tmp_path, "a", "b")
    (root / "imagesTr" / "a_0001.nii.gz").unlink()
    touch(root, "imagesTr/b_0007.nii.gz", "imagesTr/odd.nii.gz", "labelsTr/c.nii.gz")
    cases, problems, notes = sort_cases(root)
    assert [case.id for case in cases] == ["b"]
    assert "a: t2f missing" in str(problems[0])
    text = "\n".join(map(str, notes))
    for part in ("no channel 7", "no channel number", "no images c_0000"):
        assert part in text


def test_fault_3_channel_names_are_checked_against_those_wanted(tmp_path):
    root = nnunet(tmp_path, "a")
    with pytest.raises(ValueError, match="its channels are t1c, t2f; t1n, t2w wanted"):
        find_cases(root, channels=("t1c", "t1n", "t2f", "t2w"))
    swapped = BRATS | {"channel_names": {"0": "FLAIR", "1": "T1Gd"}}
    (case,) = find_cases(nnunet(tmp_path, "a", dataset=swapped), channels=("t1c",))
    assert names(case) == {"t1c": "a_0001.nii.gz"}


def test_numbered_files_without_a_description_are_refused(tmp_path):
    root = nnunet(tmp_path, "a")
    (root / "dataset.json").unlink()
    with pytest.raises(ValueError, match="no dataset.json says which channel"):
        find_cases(root)


@pytest.mark.parametrize(
    "content", ["{", "{}", '{"channel_names": {"1": "T1"}, "labels": {"x": 1}}']
)
def test_a_damaged_description_is_refused(tmp_path, content):
    nnunet(tmp_path, "a")
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(ValueError, match="not nnU-Net's description of a data set"):
        find_cases(tmp_path)


def test_a_description_beside_other_layouts_names_channels_and_labels(tmp_path):
    touch(tmp_path, "a/a_CT.nii.gz", "a/a_PET.nii.gz", "a/a_seg.nii.gz")
    dataset = {"channel_names": {"0": "CT", "1": "PET"}, "labels": {"lesion": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    (case,) = find_cases(tmp_path, need_labels=True)
    assert list(case.images) == ["ct", "pet"]
    found = describe(tmp_path)
    assert found.normalization == ("ct", "zscore")
    assert found.scheme.regions == (("lesion", (1,)),)


def test_a_normaliser_can_be_said_for_each_channel(tmp_path):
    data = RawData(channels=("T1Gd", "PET"), normalization=("pet=rescale_to_0_1",))
    found = describe(tmp_path, data)
    assert found.channels == ("t1c", "pet")
    assert found.normalization == ("zscore", "rescale_to_0_1")
    with pytest.raises(ValueError, match="'ct=zscore': expected CHANNEL=SCHEME with"):
        describe(tmp_path, RawData(normalization=("ct=zscore",)))


def test_bids_names_are_read_by_their_entities(tmp_path):
    for session in ("1", "2"):
        stem = f"sub-07/ses-{session}/anat/sub-07_ses-{session}"
        touch(
            tmp_path,
            f"{stem}_ce-gad_T1w.nii.gz",
            f"{stem}_ce-none_T1w.nii.gz",
            f"{stem}_space-T1w_FLAIR.nii.gz",
            f"{stem}_T2w.nii.gz",
            f"{stem}_desc-brain_mask.nii.gz",
        )
    touch(tmp_path, "derivatives/sub-07/sub-07_ses-1_space-T1w_dseg.nii.gz")
    touch(tmp_path, "derivatives/sub-07/sub-07_ses-2_label-lesion_mask.nii.gz")
    cases, problems, notes = sort_cases(tmp_path, need_labels=True)
    assert not problems
    assert [(case.id, case.patient, case.visit) for case in cases] == [
        ("sub-07_ses-1", "sub-07", "1"),
        ("sub-07_ses-2", "sub-07", "2"),
    ]
    assert names(cases[0])["t1c"] == "sub-07_ses-1_ce-gad_T1w.nii.gz"
    assert names(cases[0])["t1n"] == "sub-07_ses-1_ce-none_T1w.nii.gz"
    assert cases[1].labels is not None and "mask" in cases[1].labels.name
    assert len(notes) == 2  # the brain masks


def test_two_bids_runs_of_one_channel_are_named(tmp_path):
    touch(tmp_path, "sub-1/sub-1_run-1_T1w.nii.gz", "sub-1/sub-1_run-2_T1w.nii.gz")
    with pytest.raises(ValueError, match="t1n is there twice: .*run-1.* and .*run-2"):
        find_cases(tmp_path, channels=("t1n",))


@pytest.mark.parametrize(
    ("case", "patient", "visit", "label_map"),
    [
        ("Brats18_2013_10_1", "Brats18_2013_10", "1", ((4, 3),)),
        ("BraTS19_CBICA_AAB_1", "BraTS19_CBICA_AAB", "1", ((4, 3),)),
        ("BraTS20_Training_001", "BraTS20_Training_001", "", ((4, 3),)),
        ("BraTS2021_00000", "BraTS2021_00000", "", ((4, 3),)),
        ("BraTS-GLI-00000-001", "BraTS-GLI-00000", "001", ()),
        ("BraTS-MET-00110-000", "BraTS-MET-00110", "000", ()),
    ],
)
def test_each_year_of_brats_has_its_names_and_labels(
    tmp_path, case, patient, visit, label_map
):
    touch(tmp_path, *(f"{case}/{case}_{n}.nii" for n in ("t1ce", "t1", "flair", "t2")))
    touch(tmp_path, f"{case}/{case}_seg.nii")
    (found,) = find_cases(tmp_path, need_labels=True)
    assert (found.patient, found.visit) == (patient, visit)
    assert patient_and_visit(case) == (patient, visit)
    assert found.reading.label_map == label_map


def test_two_conventions_of_ucsf_labels_are_never_mixed(tmp_path):
    images = ("T1pre", "T1post", "FLAIR", "T2Synth", "subtraction")
    touch(
        tmp_path, *(f"{c}/{c}_{n}.nii" for c in ("100101A", "100102A") for n in images)
    )
    touch(tmp_path, "100101A/100101A_seg.nii", "100101A/100101A_BraTS-seg.nii")
    touch(tmp_path, "100102A/100102A_seg.nii")
    cases, problems, notes = sort_cases(tmp_path, need_labels=True)
    assert [case.id for case in cases] == ["100101A"]
    assert "100102A: labels missing" in str(problems[0])
    assert "--label-name seg --labels lesion" in "\n".join(map(str, notes))
    both = find_cases(
        tmp_path,
        channels=("t1c", "subtraction"),
        label_name="seg",
        need_labels=True,
    )
    kept = [case.labels.name for case in both if case.labels is not None]
    assert kept == ["100101A_seg.nii", "100102A_seg.nii"]
    assert names(both[0])["subtraction"] == "100101A_subtraction.nii"


def test_equal_channel_names_are_told_apart(tmp_path):
    dataset = BRATS | {"channel_names": {"0": "MRI", "1": "MRI"}}
    (case,) = find_cases(nnunet(tmp_path, "a", dataset=dataset))
    assert list(case.images) == ["mri_0000", "mri_0001"]
