"""`watkins prepare --metadata`: sites joined to the recordings by id."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.folders import spectrograms, stamps, table
from watkins_ml.core.errors import UsageError
from watkins_ml.dataset.folds import FoldRule, make_folds
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.metadata import Metadata, read_metadata
from watkins_ml.evaluation.controls import controls


@pytest.fixture
def sites(ocean, tmp_path) -> pd.DataFrame:
    """A row for each recording of the ocean: two sites a species, and one recording of an unknown one."""
    paths = sorted(path.relative_to(ocean).as_posix() for path in ocean.rglob("*.wav"))
    rows = pd.DataFrame({"clip_id": [Path(path).stem for path in paths], "species": [p.split("/")[0] for p in paths]})
    rows["site"] = rows["species"] + [" Bay, Canada" if clip[4] in "01" else " Sund" for clip in rows["clip_id"]]
    rows.loc[0, "site"] = ""
    return rows.assign(note="x", latitude="48.0")


@pytest.fixture
def save(tmp_path):
    def save(rows: pd.DataFrame, **options) -> Path:
        rows.to_csv(tmp_path / "sites.csv", index=False, **options)
        return tmp_path / "sites.csv"

    return save


def test_the_site_of_every_recording_reaches_the_annotations_the_sides_and_the_controls(
    ocean, run, sites, save, tmp_path
):
    summary = run(ocean, metadata=save(sites.drop(index=5))).summary
    out = tmp_path / "out"
    annotations = table(out, "audio_annotations")
    known = sites.set_index("clip_id").site
    assert list(annotations.columns[-3:]) == ["site", "latitude", "note"]
    for row in annotations.itertuples():
        assert row.site == ("" if row.cut_id == sites.clip_id[5] else known[row.cut_id])
    given = summary["metadata"]
    assert given["table"].endswith("sites.csv") and given["columns"] == ["site", "latitude", "note"]
    assert (given["recordings"], given["with_site"]) == (23, 22)
    sides = read_prepared(out).sides
    for frame in sides.values():
        assert (frame.site == annotations.set_index("path").site[frame.path].to_numpy()).all()
    assert controls(sides["train"], sides["test"])["control_site_accuracy"] == 1


def test_the_table_changes_neither_split_nor_digest_and_a_change_of_it_only_tables(ocean, run, sites, save, tmp_path):
    out = tmp_path / "out"
    digest = run(ocean).summary["data_digest"]
    before = {cut: (path, path.stat().st_mtime_ns) for cut, path in spectrograms(out).items()}
    with_sites = run(ocean, metadata=save(sites))
    sealed = stamps(out)
    assert (run(ocean, metadata=save(sites)).computed, stamps(out)) == (0, sealed)
    sites.loc[3, "site"] = "moved"
    moved = run(ocean, metadata=save(sites))
    assert "moved" in table(out, "audio_annotations").site.tolist()
    without = run(ocean)
    assert "site" not in table(out, "audio_annotations") and "site" not in read_prepared(out).sides["train"]
    for again in (with_sites, moved, without):
        assert (again.computed, again.summary["data_digest"]) == (0, digest)
    assert {cut: (path, path.stat().st_mtime_ns) for cut, path in spectrograms(out).items()} == before


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("cut_id", lambda path: path.stem),
        ("id", lambda path: path.stem),
        ("path", lambda path: path.as_posix()),
        ("path", lambda path: f".\\{path.parent}\\{path.stem}"),
        ("file", lambda path: path.name),
        ("Filename", lambda path: f" {path.with_suffix('.WAV').name} "),
    ],
)
def test_whatever_names_a_recording_finds_it(ocean, run, sites, save, tmp_path, column, name):
    paths = [Path(species) / f"{clip}.wav" for species, clip in zip(sites.species, sites.clip_id, strict=True)]
    rows = pd.DataFrame({"place": "x", column: [name(path) for path in paths], " Site": sites.site})
    assert run(ocean, metadata=save(rows, encoding="utf-8-sig")).summary["metadata"]["recordings"] == 24
    found = table(tmp_path / "out", "audio_annotations").set_index("cut_id").site
    assert found.to_dict() == sites.set_index("clip_id").site.to_dict()


@settings(deadline=None, max_examples=60)
@given(
    names=st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(["1", "2", "rec.2020", "a"])), min_size=1, unique=True
    ),
    by_path=st.booleans(),
    data=st.data(),
)
def test_a_recording_gets_its_own_row_or_none(names, by_path, data):
    """Property: by path every listed recording gets its row; by name those whose name is theirs alone."""
    recordings = pd.DataFrame({"path": [f"{folder}/{name}.wav" for folder, name in names]})
    recordings["cut_id"] = [name for _, name in names]
    listed = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    ids = [f"{folder}/{name}" if by_path else name for folder, name in listed]
    rows = pd.DataFrame({"site": [f"at {each}" for each in ids]}, index=ids)
    shared = {name for _, name in names if [each for _, each in names].count(name) > 1}
    expected = {
        f"{folder}/{name}.wav": f"at {folder}/{name}" if by_path else f"at {name}"
        for folder, name in names
        if (by_path and (folder, name) in listed) or (not by_path and name in ids and name not in shared)
    }
    metadata = Metadata(Path("t.csv"), rows[~rows.index.duplicated()])
    if expected:
        assert metadata.of(recordings).site.to_dict() == expected
    else:
        with pytest.raises(UsageError, match="no row belongs to a recording"):
            metadata.of(recordings)


REFUSED = {
    "missing": (None, "sites.csv: cannot be read as a CSV table (No such file or directory)"),
    "empty": (b"", "empty; a table has a line of headings and a row for each recording"),
    "blank": (b"\n ,,\n\n", "has no rows below its headings"),
    "headings only": (b"id,site\n\n,,\n", "has no rows below its headings"),
    "binary": (b"\xff\xfe\x00\x01PK", "has no rows below its headings"),
    "zero bytes": (b"id,site\n" * 200 + b"\0\n", "damaged, or no CSV table (it holds zero bytes)"),
    "ragged": (b"id,site\n00000000,a,b,c\n", "line 2 has 4 cells where the heading has 2; a cell that holds the"),
    "a quotation mark": (b'id,site\n00000000,"a\n1,b\n', "line 3: a quotation mark that is not closed"),
    "a workbook": (b"PK\x03\x04\x14\0", "this is a workbook of a spreadsheet program (.xlsx, .ods) and no CSV table"),
    "an old workbook": (b"\xd0\xcf\x11\xe0\xa1", "this is an old workbook of Excel (.xls) and no CSV table"),
    "a web page": (b"<!DOCTYPE html><html>", "this is a web page or XML and no CSV table"),
    "no letters": (b"id,site\n00000000,\x81\x9d\n", "its encoding is unknown; open it in a spreadsheet program"),
    "no id": (
        b"name,site\nx,y\n",
        "has no column id (one of cut_id, clip_id, id, path, file, filename); its columns are",
    ),
    "no site": (b"id,place\n00000000,y\n", "has no column site (or fold); its columns are id, place"),
    "no rows": (b"id,site\n,y\n", "every id is empty"),
    "two sites": (
        b"id,site\n00000001,a\n00000000,Hudson\n00000000.wav,Churchill\n",
        "id 00000000 has two sites, 'Hudson' and 'Churchill'",
    ),
    "two folds": (b"id,fold\n00000000,1\n00000000,2\n", "id 00000000 has two folds, '1' and '2'"),
    "no match": (
        b"id,site\n999,a\n",
        "no row belongs to a recording; its ids are like '999', the recordings like 'Orca/00000000.wav'",
    ),
}


@pytest.mark.parametrize(("content", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_table_that_does_not_fit_is_one_sentence_before_anything_is_written(
    ocean, watkins, tmp_path, content, sentence
):
    if content is not None:
        (tmp_path / "sites.csv").write_bytes(content)
    said = watkins("prepare", ocean, "--metadata", "sites.csv", "--min-clips", 3, "--workers", 1)
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert said.err.startswith("watkins: --metadata sites.csv: ") and sentence in said.err
    assert not (tmp_path / "data").exists()


def test_the_same_site_twice_and_a_longer_table_are_no_error(tmp_path):
    (tmp_path / "t.csv").write_text("id,site,date\n1.wav,a,1961\n1,a,\n2,b\n")
    rows = read_metadata(tmp_path / "t.csv").rows
    assert rows.to_dict("index") == {"1": {"site": "a", "date": "1961"}, "2": {"site": "b", "date": ""}}


def test_the_command_says_how_many_have_no_row(ocean, watkins, sites, save, tmp_path):
    said = watkins("prepare", ocean, "--metadata", save(sites.head(20)), "--min-clips", 3, "--workers", 1)
    assert "20 recordings have a row in " in said.out
    assert "(19 with a site); recordings without one: 4" in said.out


def test_folds_that_a_table_gives_divide_a_cross_validation(ocean, run, save, tmp_path):
    paths = sorted(path.relative_to(ocean) for path in ocean.rglob("*.wav"))
    rows = pd.DataFrame({"file": [path.name for path in paths], "fold": [f"f{path.stem[4]}" for path in paths]})
    run(ocean, metadata=save(rows))
    folds = make_folds(read_prepared(tmp_path / "out"), FoldRule(column="fold"))
    assert folds.names == ["f0", "f1", "f2", "f3"]
    assert set(folds.data_of("f2").sides["test"]["tape"]) == {"00002", "01002"}


def test_decimal_commas_become_points(tmp_path):
    (tmp_path / "t.csv").write_text("file;site;latitude\n1.wav;Bay 3,5;-48,25\n2.wav;b;48.5\n")
    rows = read_metadata(tmp_path / "t.csv").rows
    assert rows["latitude"].tolist() == ["-48.25", "48.5"] and rows["site"].tolist() == ["Bay 3,5", "b"]


def test_what_a_spreadsheet_makes_of_ids_is_told(ocean, run, tmp_path, capsys):
    table = tmp_path / "t.csv"
    table.write_text("id;site\n0;a\n1000;b\n01000000;c\n6,1025E+07;d\n")
    run(ocean, metadata=table)
    said = capsys.readouterr().err
    assert "1 of its ids were made numbers by a spreadsheet program, as 6,1025E+07" in said
    assert "2 lack the zeros that a name begins with (0 for 00000000)" in said or "(1000 for 00001000)" in said
    table.write_text("id;site\n1000;b\n")
    with pytest.raises(UsageError, match=r"no row belongs.*lack the zeros .* \(1000 for 00001000\)"):
        run(ocean, metadata=table)


def test_a_table_in_the_other_form_of_unicode_is_joined(ocean, run, cut, tmp_path):
    cut(ocean / "Orca" / "00000e\u0301.wav", 990)
    (tmp_path / "t.csv").write_text("file;site\n00000\u00e9.wav;North\n")
    assert run(ocean, metadata=tmp_path / "t.csv").summary["metadata"]["with_site"] == 1
    (tmp_path / "t.csv").write_text("file;site\nOrca/00000e\u0301;North\n")
    assert run(ocean, metadata=tmp_path / "t.csv").summary["metadata"]["with_site"] == 1
