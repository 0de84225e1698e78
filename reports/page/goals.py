"""What each goal of an attack means, in one sentence for readers who never attacked anything."""

from __future__ import annotations

from collections.abc import Iterable

from ..text import Fact

#: By the goal's word in specs.
_MEANINGS = {
    "untargeted": "A classifier is made of the gallery, and its answer for the query is made wrong.",
    "shift": "The query's embedding is pushed as far away from its clean place as possible, wherever that leads.",
    "margin": "An item of another class is brought nearer to the query than every item of its own class, "
    "which is what makes the first result wrong.",
    "item_margin": "As margin, but by one item of another class at a time: the nearest, the second nearest, and so on.",
    "class_margin": "As margin, but by the items of one other class at a time.",
    "nearest_negative": "The query is brought nearer to whatever item of another class is nearest.",
    "stax": "Single target: the query is brought near one chosen item of another class.",
    "mtax": "Multiple targets: the query is brought near several chosen items of other classes at once.",
    "ca_plus": "An item of the gallery is changed so that it comes to the front for chosen queries.",
    "ca_minus": "An item of the gallery is changed so that it falls to the back for chosen queries.",
    "hub": "An item of the gallery is changed so that it comes first for queries that it has nothing to do with.",
    "qa_plus": "The query is changed so that chosen items of the gallery come to the front.",
    "qa_minus": "The query is changed so that chosen items of the gallery fall to the back.",
    "spqa_plus": "As qa_plus, while the other results near the query keep their places.",
    "spqa_minus": "As qa_minus, while the other results near the query keep their places.",
    "tma": "The query is made as similar as possible to an item drawn from the gallery.",
    "es": "The query's embedding is pushed as far away from its clean place as possible.",
    "ltm": "All items of other classes are brought before all items of the own class.",
    "gtm": "The query is brought to the item of another class that was nearest to it when clean.",
    "gtt": "The first result of the clean query is pushed out of the top of the list.",
    "foa": "The order of some results is rearranged as the attacker wants it.",
}


def explain(goals: Iterable[str]) -> tuple[Fact, ...]:
    """Each of the goals once, with its meaning; one that is not known here is left to its citation."""
    return tuple(
        Fact(goal, _MEANINGS.get(goal, "A goal of the attack's own: see its citation or its documentation."))
        for goal in dict.fromkeys(goals)
    )
