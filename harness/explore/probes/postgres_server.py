"""PostgreSQL statements with an effect outside of the tables: they are reported as not seen."""

from __future__ import annotations

import re

from harness.explore.crash import SimulatedProcess
from harness.explore.probes.callers import caller

NAME = "postgresql"
"""Name under which a user accepts them."""
_BEGIN = r"(?:^|;)\s*"
_DEFINITIONS = (
    r"(?:CREATE|ALTER|DROP)\s+(?:OR\s+REPLACE\s+)?(?:TRUSTED\s+)?(?:PROCEDURAL\s+)?(?:VIEW|FUNCTION|PROCEDURE|TRIGGER|"
    r"ROLE|USER|GROUP|DATABASE|EXTENSION|TYPE|DOMAIN|SERVER|SYSTEM|RULE|POLICY|PUBLICATION|SUBSCRIPTION|FOREIGN)\b"
)
_FORMS = {
    rf"{_BEGIN}NOTIFY\b|\bpg_notify\s*\(": "a notification",
    r"\b(?:lo_(?:creat|create|import|export|unlink|put|from_bytea|truncate\w*|open)|lowrite)\s*\(": "large objects",
    rf"{_BEGIN}(?:CREATE|REFRESH)\s+MATERIALIZED\s+VIEW\b": "a materialized view",
    rf"{_BEGIN}(?:PREPARE\s+TRANSACTION|(?:COMMIT|ROLLBACK)\s+PREPARED)\b": "a prepared transaction",
    rf"{_BEGIN}COPY\b.*\bTO\s+(?:PROGRAM\s+)?'": "a file of COPY",
    r"\bdblink\w*\s*\(": "another database, by dblink",
    r"\bpg_logical_emit_message\s*\(": "a message in the log",
    r"\bsetval\s*\(": "the number that setval gives a sequence",
    rf"{_BEGIN}(?:{_DEFINITIONS}|COMMENT\s+ON\b|GRANT\b|REVOKE\b)": "a definition other than that of a table",
}
_EFFECTS = {re.compile(form, re.IGNORECASE | re.DOTALL): words for form, words in _FORMS.items()}
_ANY = re.compile("|".join(f"(?:{form})" for form in _FORMS), re.IGNORECASE | re.DOTALL)


def beyond(simulated: SimulatedProcess, statement: str) -> None:
    """Report a statement whose effect no resource compares."""
    if not _ANY.search(statement):
        return
    found = caller(2)
    if found is not None:
        what = next(words for form, words in _EFFECTS.items() if form.search(statement))
        simulated.unseen(NAME, f"{what}, which is not compared", found.line)
