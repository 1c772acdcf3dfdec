from watkins_ml.wording import plural


def test_one_and_many_and_none():
    assert [plural(count, "file") for count in (0, 1, 2, 15_248)] == ["0 files", "1 file", "2 files", "15,248 files"]
    assert [plural(count, "entry", "entries") for count in (1, 3)] == ["1 entry", "3 entries"]
