"""The one table of species, against the labels of the real release."""

from collections import Counter

import pandas as pd
import pytest

from watkins_ml.fetch.species import find, table

PHOCIDS = {"Erignathus", "Halichoerus", "Phoca", "Pagophilus", "Cystophora", "Hydrurga", "Histriophoca", "Pusa"}


def test_every_name_means_one_species_and_every_label_is_a_folder():
    for what in ("common_name", "scientific_name", "label"):
        assert max(Counter(getattr(one, what) for one in table()).values()) == 1
    for one in table():
        assert one.label.isascii() and one.label.isalpha()
        assert one.family.endswith("idae")
        for name in (*one.spellings, one.common_name, one.label):
            assert find(name) is one, name
        assert not {old for old in one.older_names} & {other.scientific_name for other in table()}


def test_a_genus_belongs_to_one_family():
    families = {}
    for one in table():
        families.setdefault(one.scientific_name.split()[0], set()).add(one.family)
    assert all(len(of) == 1 for of in families.values())
    assert all(families[genus] == {"Phocidae"} for genus in PHOCIDS)


@pytest.mark.parametrize(
    "spellings, label, scientific",
    [
        (("Fin_FinbackWhale", "Fin,_Finback_Whale"), "FinWhale", "Balaenoptera physalus"),
        (("Grampus_Risso'sDolphin", "Grampus,_Rissos_Dolphin"), "RissosDolphin", "Grampus griseus"),
        (
            ("Short_Finned(Pacific)PilotWhale", "Short-Finned_Pacific_Pilot_Whale"),
            "ShortFinnedPilotWhale",
            "Globicephala macrorhynchus",
        ),
        (("Boutu_AmazonRiverDolphin", "Boutu,_Amazon_River_Dolphin"), "AmazonRiverDolphin", "Inia geoffrensis"),
        (("HarbourSeal", "Harbor_Seal"), "HarborSeal", "Phoca vitulina"),
        (("Beluga_WhiteWhale", "Beluga,_White_Whale"), "Beluga", "Delphinapterus leucas"),
    ],
)
def test_spellings_of_releases_meet_in_one_species(spellings, label, scientific):
    for spelling in spellings:
        assert (find(spelling).label, find(spelling).scientific_name) == (label, scientific)


def test_what_no_table_knows_is_unknown():
    assert find("Whale") is None
    assert find("1961") is None
    assert find("") is None


@pytest.mark.real_data
def test_the_real_release_has_exactly_these_species(shared_folder):
    labels = set(pd.read_csv(shared_folder / "data" / "watkins_full_cuts.csv", usecols=["species"]).species)
    assert len(labels) == 54
    assert {label: find(label) for label in labels if find(label) is None} == {}
    assert {find(label) for label in labels} == set(table())
    assert all(label in find(label).spellings for label in labels)
