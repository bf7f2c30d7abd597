"""Measurements are on disk at once; a file that was cut short is read to its last whole line."""

from __future__ import annotations

import json

import pytest

from engineworks.search.journal import Journal


@pytest.fixture
def path(tmp_path):
    return tmp_path / "searches" / "one.jsonl"


def test_a_new_one_is_empty(path):
    journal = Journal(path)
    assert len(journal) == 0
    assert journal.get("score a") is None


def test_what_was_put_is_there_after_a_restart(path):
    journal = Journal(path)
    journal.put("score a", {"metric": 0.5, "size_bytes": 7})
    journal.put("time a", {"ratio": 0.75, "ci95": [0.7, 0.8]})
    again = Journal(path)  # nothing was closed
    assert len(again) == 2
    assert again.get("score a") == {"metric": 0.5, "size_bytes": 7}
    assert again.get("time a") == {"ratio": 0.75, "ci95": [0.7, 0.8]}


def test_the_last_value_of_a_key_counts(path):
    journal = Journal(path)
    journal.put("time a", {"ratio": 0.9})
    journal.put("time a", {"ratio": 0.8})
    assert len(journal) == len(Journal(path)) == 1
    assert Journal(path).get("time a") == {"ratio": 0.8}


def test_a_line_cut_anywhere_is_forgotten_and_the_file_goes_on_behind_it(path):
    journal = Journal(path)
    journal.put("score a", {"metric": 0.5})
    whole = path.read_bytes()
    journal.put("score b", {"metric": 0.75})
    both = path.read_bytes()
    for end in range(len(whole) + 1, len(both)):
        path.write_bytes(both[:end])
        again = Journal(path)
        assert again.get("score a") == {"metric": 0.5}
        assert again.get("score b") is None
        again.put("score b", {"metric": 0.25})
        lines = path.read_text().splitlines()
        assert [json.loads(line)["key"] for line in lines] == ["score a", "score b"]
        assert Journal(path).get("score b") == {"metric": 0.25}
