"""Registry: named things, each name once."""

from dataclasses import dataclass

import pytest

from flux.errors import DuplicateWorkflow, WorkflowNotFound
from flux.registry import Registry


@dataclass(frozen=True)
class Thing:
    name: str
    source: str = "flows.py:1"


def test_it_iterates_sorted_by_name():
    registry = Registry([Thing("ship"), Thing("approve"), Thing("charge")])
    assert [thing.name for thing in registry] == ["approve", "charge", "ship"]
    assert registry.names() == ["approve", "charge", "ship"]
    assert len(registry) == 3


def test_it_knows_names():
    registry = Registry([Thing("approve")])
    assert "approve" in registry
    assert "charge" not in registry


def test_the_same_object_twice_is_one():
    thing = Thing("approve")
    assert list(Registry([thing, thing])) == [thing]


def test_another_one_of_that_name_is_refused_and_both_places_are_named():
    registry = Registry([Thing("approve", "a.py:3")])
    with pytest.raises(DuplicateWorkflow, match=r"'approve': a\.py:3 and b\.py:9"):
        registry.add(Thing("approve", "b.py:9"))
    assert registry.get("approve").source == "a.py:3"


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(WorkflowNotFound, match="'refund' here; known: approve, charge"):
        Registry([Thing("charge"), Thing("approve")]).get("refund")
