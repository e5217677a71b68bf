"""The explorer on a real PostgreSQL: what a trial restores, what it refuses, and what it finds."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from harness.errors import UsageError
from harness.explore import explore
from harness.explore.postgres import PostgresResource
from harness.explore.resources import Table
from tests.explore import psycopg_jobs
from tests.explore.test_planted import lines_named, mistakes
from tests.planted import cursors, effects, shop, totals

SCHEMA = """
CREATE TABLE customers (id integer PRIMARY KEY, name text NOT NULL UNIQUE, parent integer REFERENCES customers);
CREATE TABLE bills (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer integer NOT NULL REFERENCES customers ON DELETE CASCADE,
    cents numeric(12, 2) NOT NULL, doubled numeric GENERATED ALWAYS AS (cents * 2) STORED, notes jsonb, tags text[],
    at timestamptz NOT NULL DEFAULT now(), raw bytea
);
CREATE TABLE log (line text, ratio double precision);
CREATE SEQUENCE tickets;
CREATE SCHEMA "Odd ""one";
CREATE TABLE "Odd ""one"."Two words" ("the key" uuid PRIMARY KEY, "select" integer);
INSERT INTO customers VALUES (1, 'a', NULL), (2, 'b', 1);
INSERT INTO bills (customer, cents, notes, tags, raw)
    VALUES (1, 1.10, '{"a": [1, null, "x, (y)"]}', '{one,"two, (three)",NULL}', '\\x00ff'), (2, 2, NULL, '{}', NULL);
INSERT INTO log VALUES ('twice', 0.1), ('twice', 0.1), (NULL, 'NaN'), ('', 1e300);
INSERT INTO "Odd ""one"."Two words" VALUES ('00000000-0000-0000-0000-000000000001', 1);
"""
MEDDLING = """
UPDATE customers SET name = 'c' WHERE id = 1;
UPDATE customers SET name = 'a' WHERE id = 2;
UPDATE bills SET cents = 7 WHERE customer = 1;
DELETE FROM log WHERE line = 'twice';
INSERT INTO log VALUES ('once', 2);
INSERT INTO customers VALUES (3, 'd', 2);
INSERT INTO bills (customer, cents) VALUES (3, 3);
DELETE FROM customers WHERE id = 2 AND false;
SELECT nextval('tickets'), nextval('tickets');
UPDATE "Odd ""one"."Two words" SET "select" = 2;
"""


@pytest.fixture
def url(postgresql_url: str) -> Iterator[str]:
    """Yield the URL of an empty database, which is dropped afterwards."""
    name = f"explored_{uuid.uuid4().hex}"
    server = sa.create_engine(postgresql_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield sa.make_url(postgresql_url).set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def on_postgresql(url: str, tmp_path: Path) -> Iterator[str]:
    """Have the planted shop in PostgreSQL, and yield its URL."""
    shop.open_shop(str(tmp_path / "shop.db"))
    with shop.session() as session:
        rows = {
            table: session.execute(sa.select(table)).mappings().all()
            for table in shop.Base.metadata.sorted_tables
        }
    shop.engine().dispose()
    engine = sa.create_engine(url)
    shop.Base.metadata.create_all(engine)
    with engine.begin() as connection:
        for table, found in rows.items():
            if found:
                connection.execute(sa.insert(table), [dict(row) for row in found])
    shop.use(engine)
    yield url
    shop.close_shop()


def script(engine: sa.Engine, text: str) -> None:
    """Run statements."""
    with engine.begin() as connection:
        for statement in filter(str.strip, text.split(";\n")):
            connection.exec_driver_sql(statement)


def rows(engine: sa.Engine) -> dict[str, list[str]]:
    """Return the rows of all tables as text, and the state of the sequences."""
    tables = dict.fromkeys(["customers", "bills", "log", '"Odd ""one"."Two words"'], "t::text")
    sequences = dict.fromkeys(["tickets", "bills_id_seq"], "ROW(last_value, is_called)::text")
    with engine.connect() as connection:
        return {
            name: sorted(connection.scalars(sa.text(f"SELECT {what} FROM {name} t")))  # noqa: S608
            for name, what in (tables | sequences).items()
        }


@pytest.mark.parametrize("superuser", [True, False])
def test_a_trial_restores_every_row_and_sequence(url: str, *, superuser: bool) -> None:
    """Whatever was changed, with references, identities, generated columns and no key, is as it was kept."""
    owner = f"owner_{uuid.uuid4().hex}"
    admin = sa.create_engine(url)
    script(admin, f'CREATE ROLE {owner} LOGIN;\nGRANT ALL ON DATABASE {admin.url.database} TO {owner};\n'
                  f"GRANT ALL ON SCHEMA public TO {owner};\n")  # fmt: skip
    engine = admin if superuser else sa.create_engine(sa.make_url(url).set(username=owner))
    try:
        script(engine, SCHEMA)
        place = PostgresResource(engine.url)
        try:
            assert not place.changed()
            before, kept = rows(engine), place.keep()
            script(engine, MEDDLING if superuser else MEDDLING.replace("SET name = 'a'", "SET name = 'x'"))
            assert place.changed()
            assert not place.changed()
            changed = place.keep()
            assert changed != kept
            place.restore(kept)
            assert not place.changed()
            assert rows(engine) == before
            place.restore(changed)
            assert place.keep() == changed
            place.restore(kept)
            assert place.keep() == kept
            assert str(place.contents(kept)["log"]) == str(place.contents()["log"])
        finally:
            place.close()
    finally:
        engine.dispose()
        with admin.begin() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {owner} CASCADE")
            connection.exec_driver_sql(f"DROP ROLE {owner}")
        admin.dispose()


def test_a_table_that_the_job_created_is_dropped_again(url: str) -> None:
    """What was not there at first is gone after the restore; what was dropped cannot be restored, and is named."""
    engine = sa.create_engine(url)
    script(engine, SCHEMA)
    place = PostgresResource(url)
    kept = place.keep()
    script(engine, "CREATE TABLE more (id integer);\nINSERT INTO more VALUES (1);\n")
    assert place.changed()
    assert "more" in place.keep().tables
    place.restore(kept)
    assert "more" not in place.keep().tables
    script(engine, "DROP TABLE log;\n")
    with pytest.raises(UsageError, match="dropped the table log"):
        place.restore(kept)
    place.close()
    engine.dispose()


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("job", "verdict"),
    [
        (effects.effect_before_commit, "duplicated"),
        (effects.effect_with_commit, "exactly once"),
        (totals.added_apart, "wrong total"),
        (cursors.CursorBeforeEffect, "lost"),
        (cursors.CursorAfterEffect, "exactly once"),
    ],
)
def test_the_verdict_is_that_of_sqlite(
    on_postgresql: str, job: Any, verdict: str, pytestconfig: pytest.Config
) -> None:
    """A mistake is found and a correct job is not accused on PostgreSQL too, and all is as before afterwards."""
    with shop.session() as session:
        before = session.scalars(sa.select(shop.Invoice.status).order_by(shop.Invoice.id)).all()
    found = explore(job, database=on_postgresql, sample=20 if pytestconfig.getoption("--full") else 4)
    assert found.verdict == verdict, found.text()
    assert found.trials["freeze"]
    with shop.session() as session:
        assert session.scalars(sa.select(shop.Invoice.status).order_by(shop.Invoice.id)).all() == before


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (psycopg_jobs.commits_twice, psycopg_jobs.commits_once),
        pytest.param(
            psycopg_jobs.without_transactions,
            psycopg_jobs.with_blocks_of_transactions,
            marks=pytest.mark.full,
        ),
        pytest.param(
            psycopg_jobs.copies_and_then_marks, psycopg_jobs.copies_and_marks, marks=pytest.mark.full
        ),
    ],
)
def test_psycopg_is_watched_without_sqlalchemy(on_postgresql: str, wrong: Any, right: Any) -> None:
    """A mistake between two commits is found at its line, and its correct twin is not accused."""
    options: dict[str, Any] = {
        "database": on_postgresql,
        "sample": 4,
        "actions": ["crash", "lost-reply", "freeze"],
    }
    found = explore(wrong, **options)
    assert found.verdict == "duplicated", found.text()
    assert lines_named(found) & mistakes(wrong), found.text(50)
    assert explore(right, **options).verdict == "exactly once"


@pytest.mark.parametrize(
    ("job", "what"),
    [
        (psycopg_jobs.in_a_pipeline, "in pipeline mode"),
        (psycopg_jobs.by_an_older_connection, "on a connection that no probe watches"),
    ],
)
def test_what_is_not_watched_of_psycopg_has_its_name(on_postgresql: str, job: Any, what: str) -> None:
    """The pipeline mode, and a connection that is older than the execution."""
    with psycopg_jobs.with_an_older_connection():
        found = explore(job, database=on_postgresql, sample=2, actions=["crash"], pairs=False)
    assert found.verdict == "exactly once, of what was seen", found.text()
    assert {each.name for each in found.not_seen} == {"psycopg"}
    assert what in found.text()


STATEMENTS = {
    "SELECT pg_notify('paid', '1')": "a notification",
    "NOTIFY paid": "a notification",
    "DO $$ BEGIN PERFORM pg_notify('paid', '1'); END $$": "a notification",
    "SELECT lo_create(0)": "large objects",
    "SELECT setval('payments_id_seq', nextval('payments_id_seq'))": "setval",
    "COMMENT ON TABLE payments IS 'all'": "a definition other than that of a table",
    "CREATE OR REPLACE VIEW paid AS SELECT 1 AS one": "a definition other than that of a table",
    "CREATE MATERIALIZED VIEW IF NOT EXISTS paid_m AS SELECT 1 AS one": "a materialized view",
    "INSERT INTO totals VALUES ('noted', 0) ON CONFLICT DO NOTHING": "trigger noted on totals",
}
"""Statements whose effect is in no table, with the words that report them."""
TRIGGER = """
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_notify('noted', NEW.name); RETURN NULL; END $$;
CREATE TRIGGER noted AFTER INSERT ON totals FOR EACH ROW EXECUTE FUNCTION noted();
"""


def pays_and_runs(statement: str) -> None:
    """Pay every invoice, and run one more statement."""
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            shop.pay_once(session, invoice_id)
        session.execute(sa.text(statement))
        session.commit()


@pytest.mark.sample(2)
@pytest.mark.parametrize("statement", STATEMENTS)
def test_an_effect_that_is_in_no_table_is_reported(on_postgresql: str, statement: str) -> None:
    """Notifications, large objects and definitions are listed as not seen; a job that has none passes."""
    options: dict[str, Any] = {"database": on_postgresql, "sample": 2, "actions": ["crash"], "pairs": False}
    script(shop.engine(), TRIGGER)
    assert explore(pays_and_runs, "SELECT count(*) FROM invoices", **options).verdict == "exactly once"
    found = explore(pays_and_runs, statement, **options)
    assert found.verdict == "exactly once, of what was seen", found.text()
    assert {each.name for each in found.not_seen} == {"postgresql"}
    assert STATEMENTS[statement] in found.text()


def test_postgresql_is_restored_only_where_that_is_asked_for(on_postgresql: str, url: str) -> None:
    """Without database=, or with the URL of another one, nothing is changed."""
    del url
    with pytest.raises(UsageError, match="give the URL of a test database with database="):
        explore(effects.effect_with_commit)
    other = sa.make_url(on_postgresql).set(database="postgres").render_as_string(hide_password=False)
    with pytest.raises(UsageError, match="another PostgreSQL database"):
        explore(effects.effect_with_commit, database=other)


def test_a_worker_is_frozen_only_where_it_has_no_lock(on_postgresql: str) -> None:
    """No other execution has to wait for a worker that stands still: after a write, none does until the commit."""
    engine = sa.create_engine(on_postgresql)
    place = PostgresResource(on_postgresql)
    with Session(engine) as session:
        pooled = [session.connection().connection]
        session.scalars(sa.select(shop.Invoice)).all()
        assert not place.holds(pooled)
        session.execute(
            sa.update(shop.Invoice).values(touched_at=datetime.now(UTC).replace(tzinfo=None) - timedelta(1))
        )
        assert place.holds(pooled)
        session.commit()
        pooled = [session.connection().connection]
        assert not place.holds(pooled)
        session.execute(sa.select(shop.Invoice).with_for_update()).all()
        assert place.holds(pooled)
        session.rollback()
    place.close()
    engine.dispose()


def test_columns_have_their_types_and_keys(url: str) -> None:
    """Moments are known by their type, and a key is numbered if the database numbers it."""
    engine = sa.create_engine(url)
    script(engine, SCHEMA)
    place = PostgresResource(url)
    found: dict[str, Table] = place.contents()
    assert found["bills"].numbered
    assert found["bills"].moments == {6}
    assert found["bills"].rows[0][4] == {"a": [1, None, "x, (y)"]}
    assert not found["customers"].numbered
    assert found["log"].key == ()
    assert found['Odd "one.Two words'].columns == ("the key", "select")
    place.close()
    engine.dispose()
