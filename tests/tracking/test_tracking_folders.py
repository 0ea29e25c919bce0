"""From label files to tables: what phantoms were made to do is what is found."""

import csv
import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import bmjax
from bmjax import cli, report
from bmjax.data import nifti
from bmjax.data.phantom_followup import COURSES, FollowUps, events, write_followups
from bmjax.tracking import find_timepoints
from bmjax.tracking.course import follow, progression
from bmjax.tracking.observation import observe

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def names(result, folder):
    """The phantom's own name of each lesion, by patient, visit and number."""
    found = {}
    for row in result.lesions:
        if not row["is_present"]:
            continue
        near = [
            place["lesion"]
            for place in rows_of(folder / "truth_lesions.csv")
            if (place["patient"], place["visit"]) == (row["patient"], row["visit"])
            and all(
                abs(float(place[f"{a}_mm"]) - row[f"centre_{a}_mm"]) < 0.01
                for a in "xyz"
            )
        ]
        assert len(near) == 1, row
        found[row["patient"], row["visit"], row["lesion"]] = near[0]
    return found


def matching_table(result, folder):
    by_place = names(result, folder)
    return {
        (
            row["patient"],
            row["from_visit"],
            row["to_visit"],
            row["kind"],
            by_place.get((row["patient"], row["from_visit"], row["from_lesion"]), ""),
            by_place.get((row["patient"], row["to_visit"], row["to_lesion"]), ""),
        )
        for row in result.matches
    }


def truth(folder):
    return {tuple(row.values()) for row in rows_of(folder / "truth.csv")}


@pytest.fixture(scope="module")
def followups(tmp_path_factory):
    folder = tmp_path_factory.mktemp("followups")
    write_followups(FollowUps(), folder)
    return folder


@pytest.mark.parametrize("seed", range(4))
def test_the_matching_table_is_the_truth_of_the_phantom(tmp_path, seed):
    write_followups(FollowUps(seed=seed, num_patients=1), tmp_path)
    assert matching_table(bmjax.track(tmp_path), tmp_path) == truth(tmp_path)


def test_the_phantom_holds_every_kind_of_event(followups):
    kinds = {kind for _, _, kind, _, _ in events()}
    assert kinds == {"matched", "resolved", "new", "merged", "split"}
    assert len(truth(followups)) == 2 * len(events())


def test_another_grid_at_every_second_scan_changes_nothing(tmp_path):
    write_followups(FollowUps(num_patients=1, regridded=True), tmp_path)
    result = bmjax.track(tmp_path)
    assert matching_table(result, tmp_path) == truth(tmp_path)
    assert {f.check for f in result.findings} == {"size", "spacing"}


def test_a_patient_who_moved_is_tracked_once_movement_is_allowed_for(tmp_path):
    moved = FollowUps(num_patients=1, moved_mm=(9.0, -5.0, 6.0))
    write_followups(moved, tmp_path)
    result = bmjax.track(tmp_path, motion_mm=20)
    assert matching_table(result, tmp_path) == truth(tmp_path)
    notes = [f.message for f in result.findings if f.check == "movement"]
    assert len(notes) == 3 and all("was allowed for" in note for note in notes)
    assert matching_table(bmjax.track(tmp_path), tmp_path) != truth(tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_a_patient_who_turned_is_tracked_once_rotation_is_allowed_for(tmp_path, seed):
    turned = FollowUps(
        num_patients=1,
        seed=seed,
        moved_mm=(6.0, -4.0, 5.0),
        turned_deg=(8.0, -6.0, 11.0),
    )
    write_followups(turned, tmp_path)
    result = bmjax.track(tmp_path, motion_mm=30, motion_deg=25)
    assert matching_table(result, tmp_path) == truth(tmp_path)
    notes = [f.message for f in result.findings if f.check == "movement"]
    angle_deg = Rotation.from_euler("xyz", turned.turned_deg, degrees=True).magnitude()
    said = [float(note.split("turned by ")[1].split()[0]) for note in notes]
    # lesions that grow, merge and split are not where a rigid movement takes them
    assert said == pytest.approx([np.degrees(angle_deg)] * 3, abs=2)
    # the shift alone does not do
    found = matching_table(bmjax.track(tmp_path, motion_mm=30), tmp_path)
    assert found != truth(tmp_path)


def test_a_gap_is_bridged_although_the_patient_turned(tmp_path):
    turned = FollowUps(
        num_patients=1, moved_mm=(6.0, -4.0, 5.0), turned_deg=(8.0, -6.0, 11.0)
    )
    write_followups(turned, tmp_path)
    result = bmjax.track(tmp_path, motion_mm=30, motion_deg=25, max_gap=1)
    by_place = names(result, tmp_path)
    (back,) = [row for row in result.matches if row["kind"] == "reappeared"]
    assert (back["from_visit"], back["to_visit"]) == ("001", "003")
    assert by_place[back["patient"], "003", back["to_lesion"]] == "hidden"


def test_lesions_that_moved_together_are_warned_of(tmp_path):
    write_followups(FollowUps(num_patients=1, moved_mm=(4.5, 0.0, 0.0)), tmp_path)
    found = [f for f in bmjax.track(tmp_path).findings if f.check == "movement"]
    assert [f.severity for f in found] == ["warning"] * 3
    assert "are the scans registered?" in found[0].message


def test_a_gap_is_bridged_where_that_is_asked_for(followups):
    plain = bmjax.track(followups)
    bridged = bmjax.track(followups, max_gap=1)
    assert len(bridged.tracks) == len(plain.tracks) - 2
    by_place = names(bridged, followups)
    back = [row for row in bridged.matches if row["kind"] == "reappeared"]
    assert [(r["from_visit"], r["to_visit"]) for r in back] == [("001", "003")] * 2
    for row in back:
        lesion = row["patient"], row["to_visit"], row["to_lesion"]
        assert by_place[lesion] == "hidden"
        (track,) = [t for t in bridged.tracks if t["track"] == row["track"]]
        assert (track["smallest_mm3"], track["fate"]) == (0, "present")
        assert track["progressions"] == "003"


def test_fates_and_progressions_are_those_of_the_courses(followups):
    result = bmjax.track(followups)
    by_place = names(result, followups)
    by_name = {}
    for track in result.tracks:
        (number,) = {
            row["lesion"]
            for row in result.lesions
            if row["track"] == track["track"] and row["visit"] == track["first_visit"]
        }
        lesion = track["patient"], track["first_visit"], number
        by_name.setdefault(by_place[lesion], []).append(track)
    for name, fate in (("vanished", "resolved"), ("grown", "present")):
        assert [t["fate"] for t in by_name[name]] == [fate] * 2
    # radii 4, 5 ... mm: 1.95 times the volume at once; 8, 6.5 ... mm only shrinks
    assert [t["progressions"] for t in by_name["grown"]] == ["001"] * 2
    for name in ("shrunk", "stable", "vanished", "parting"):
        assert [t["progressions"] for t in by_name[name]] == [""] * 2
    for joining, joined in zip(by_name["joining"], by_name["joined"], strict=True):
        assert (joining["fate"], joining["merged_into"]) == ("merged", joined["track"])
    for parted, parting in zip(by_name["parted"], by_name["parting"], strict=True):
        assert (parted["origin"], parted["parent"]) == ("split", parting["track"])
    assert len(by_name["hidden"]) == 4  # not bridged: two tracks in each patient


def test_tables_are_written_and_agree(followups, tmp_path):
    result = bmjax.track(followups, out=tmp_path, with_maps=True)
    lesions = rows_of(tmp_path / "lesions.csv")
    assert len(lesions) == len(result.lesions)
    by_visit = {}
    for row in lesions:
        key = row["patient"], row["visit"]
        by_visit[key] = by_visit.get(key, 0) + float(row["volume_mm3"])
    for row in rows_of(tmp_path / "visits.csv"):
        total = by_visit[row["patient"], row["visit"]]
        assert total == pytest.approx(float(row["volume_mm3"]))
        path = tmp_path / "maps" / f"{row['patient']}-{row['visit']}.nii.gz"
        assert np.count_nonzero(nifti.read_labels(path).array) * 1.5**3 == (
            pytest.approx(total)
        )
    days = [r["days_since_first"] for r in rows_of(tmp_path / "visits.csv")]
    assert days == ["0", "84", "168", "252"] * 2
    assert json.loads((tmp_path / "tracking.json").read_text())["ratio"] == 1.4


def test_single_lesions_can_be_left_out(followups):
    result = bmjax.track(followups, drop_single=True)
    assert min(track["track_length"] for track in result.tracks) == 2
    assert len(result.tracks) < len(bmjax.track(followups).tracks)


def test_progression_is_counted_from_the_nadir_and_once_per_episode():
    course = progression([100, 50, 60, 70, 80, 40, 60])
    assert course.nadirs_mm3[1:] == (100, 50, 50, 50, 50, 40)
    assert course.is_above == (False, False, False, True, True, False, True)
    assert course.is_onset == (False, False, False, True, False, False, True)
    assert not any(progression([100, 130, 139]).is_above)
    assert progression([100, 140]).is_onset == (False, True)
    assert progression([5, 0, 1]).is_onset == (False, False, True)
    assert not any(progression([5, 8], min_increase_mm3=4).is_above)


def test_the_course_of_no_scan_and_of_one_scan():
    assert follow([]).tracks == ()
    mask = np.zeros((4, 4, 4), bool)
    mask[1, 1, 1] = True
    (only,) = follow([observe(mask, AFFINE)]).tracks
    assert (only.origin, only.volumes_mm3(1)) == ("baseline", [8.0])


def label_file(path, *, fill=3):
    labels = np.zeros((6, 7, 8), np.uint8)
    labels[2:5, 2:5, 2:5] = fill
    nifti.write(path, labels, affine=AFFINE)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            ("BraTS-MET-00002-000.nii.gz", "BraTS-MET-00001-001.nii.gz"),
            {"BraTS-MET-00001": ["001"], "BraTS-MET-00002": ["000"]},
        ),
        (
            ("p1_2020-11.nii.gz", "p1_2019_03.nii.gz", "p1_2020-11_entropy.nii.gz"),
            {"p1": ["2019_03", "2020-11"]},
        ),
        (("pat/2021-05-30.nii.gz", "pat/2021-05-02.nii"), {"pat": ["02", "30"]}),
        (("pat/10.nii.gz", "pat/9.nii.gz"), {"pat": ["9", "10"]}),
    ],
)
def test_scans_are_found_by_their_names(tmp_path, files, expected):
    for name in files:
        label_file(tmp_path / name)
    found = find_timepoints(tmp_path)
    got = {p: [point.visit for point in points] for p, points in found.items()}
    if "pat" in got and "2021-05-02" in got["pat"]:
        got = {"pat": [visit[-2:] for visit in got["pat"]]}
    assert got == expected


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("strange.nii.gz",), "says no visit"),
        (("2020-11.nii.gz",), "says no patient"),
        (("p_2020-13.nii.gz",), "month"),
        (("p_2020-11.nii.gz", "p_2020-11-01.nii.gz"), "more than once"),
        ((), "no label file found"),
    ],
)
def test_names_that_say_too_little_are_refused(tmp_path, files, message):
    for name in files:
        label_file(tmp_path / name)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        find_timepoints(tmp_path)


def test_a_date_of_a_manifest_that_is_none_is_refused(tmp_path):
    label_file(tmp_path / "a.nii.gz")
    (tmp_path / "manifest.csv").write_text("case,date,labels\nx-000,May,a.nii.gz\n")
    with pytest.raises(ValueError, match="expected YYYY-MM"):
        find_timepoints(tmp_path)


def test_a_damaged_scan_is_left_out_and_told(tmp_path, capsys):
    for visit in ("000", "001", "002"):
        label_file(tmp_path / "in" / f"P-00001-{visit}.nii.gz")
    (tmp_path / "in" / "P-00001-001.nii.gz").write_bytes(b"damaged")
    with pytest.raises(SystemExit) as ended:
        cli.main(["track", str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    assert ended.value.code == 1
    assert "P-00001, visit 001: left out" in capsys.readouterr().err
    visits = [row["visit"] for row in rows_of(tmp_path / "out" / "visits.csv")]
    assert visits == ["000", "002"]
    checks = [row["check"] for row in rows_of(tmp_path / "out" / "quality.csv")]
    assert checks == ["readable", "duplicate"]


def test_odd_scans_and_pairs_are_told(tmp_path):
    lines = ["case,patient,visit,date,labels"]
    for visit, day, fill in (
        ("000", "2021-06", 3),
        ("001", "2019-01", 3),
        ("002", "2021-08", 0),
        ("003", "2021-09", 2),
    ):
        label_file(tmp_path / f"{visit}.nii.gz", fill=fill)
        lines.append(f"c-{visit},c,{visit},{day},{visit}.nii.gz")
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    result = bmjax.track(tmp_path)
    assert result.ok
    found = [(f.earlier, f.visit, f.check, f.severity) for f in result.findings]
    assert sorted(found) == [
        ("", "002", "empty", "warning"),
        ("", "003", "no lesion", "note"),
        ("001", "000", "duplicate", "warning"),
        ("001", "000", "gap", "warning"),
        ("001", "000", "order", "warning"),
    ]


def test_wrong_settings_are_refused(followups):
    with pytest.raises(ValueError, match="WT, TC, ET"):
        bmjax.track(followups, region="oedema")
    with pytest.raises(ValueError, match="motion_deg 5 needs a motion_mm"):
        bmjax.track(followups, motion_deg=5)
    with pytest.raises(ValueError, match="greater than 1"):
        bmjax.track(followups, ratio=1.0)


def test_the_page_shows_every_patient_and_lesion(tmp_path):
    write_followups(FollowUps(num_patients=1), tmp_path / "in")
    result = bmjax.track(tmp_path / "in", out=tmp_path)
    page = report.write_tracking_report(
        tmp_path, tmp_path / "page.html", figures=tmp_path / "figures"
    )
    text = page.read_text()
    for track in result.tracks:
        for suffix in ("png", "pdf"):
            assert (tmp_path / "figures" / f"{track['track']}.{suffix}").is_file()
        assert f"Volume of lesion {track['track']} by time" in text
    assert text.count('class="chart"') == 1 + len(result.tracks)
    assert "<dt>new lesions</dt><dd>2" in text


def test_the_page_needs_a_tracking(tmp_path):
    with pytest.raises(FileNotFoundError, match="bmjax track"):
        report.write_tracking_report(tmp_path, tmp_path / "page.html")


def test_courses_have_four_visits():
    assert {len(radii) for radii in COURSES.values()} == {4}
