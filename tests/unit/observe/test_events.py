from __future__ import annotations

import re
from pathlib import Path

import replicad
from replicad.observe import events
from tests.support.mentions import known_events, logged_events

NAMES = {name: value for name, value in vars(events).items() if name.isupper() and isinstance(value, str)}
LITERAL = re.compile(r"""log(?:ger)?\.(?:debug|info|warning|error|exception|critical)\(\s*f?["']""")


def test_an_event_is_its_constant() -> None:
    """Every event is its constant's name in lower case, so that one can be found from the other."""
    assert len(NAMES) > 30
    for name, value in NAMES.items():
        assert value == name.lower()
        assert re.fullmatch(r"[a-z][a-z_]+", value)


def test_events_are_logged_by_their_constants() -> None:
    """No line of the package logs a name that is not in the list.

    Seen to fail with a literal in place of `events.READY`.
    """
    sources = list(Path(replicad.__file__).parent.rglob("*.py"))
    assert len(sources) > 30
    assert [str(source) for source in sources if LITERAL.search(source.read_text(encoding="utf-8"))] == []


def test_every_event_is_logged_somewhere() -> None:
    """An event that no module logs is an alert that can never fire: there is none in the list.

    Seen to fail: seven were listed and documented that nothing logged. A word in a text or a comment does not count.
    """
    assert known_events() - logged_events() == set()
