"""A witness within the database: it sees each write that is committed, and whose it was.

Every machine has an address of its own, so the address of a connection says which one writes. Each
host is remembered with the address from which it joined; a step or an attempt of a run may be
written from there alone, as long as that host has the run. None of the engine's checks is used.
"""

from __future__ import annotations

from tests.recovery.kills.journal import query

LOCAL = "here"
"""Whoever comes by the Unix socket: commands, which may write to others' runs, such as answers."""

_TABLES = """
CREATE TABLE witness_hosts (id text PRIMARY KEY, address text NOT NULL);
CREATE TABLE witness_claims (run_id text, epoch bigint, address text, had bigint);
CREATE TABLE witness_breaches (what text, run_id text, told text);

CREATE FUNCTION witness_address() RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(host(inet_client_addr()), 'here') $$;

CREATE FUNCTION witness_host() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO witness_hosts VALUES (NEW.id, witness_address()) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER witness AFTER INSERT ON fleet_hosts FOR EACH ROW EXECUTE FUNCTION witness_host();

CREATE FUNCTION witness_run() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.epoch <> OLD.epoch THEN
        INSERT INTO witness_claims VALUES (NEW.id, NEW.epoch, witness_address(), OLD.epoch);
    END IF;
    IF OLD.status IN ('succeeded', 'failed', 'cancelled') AND NEW.status <> OLD.status THEN
        INSERT INTO witness_breaches VALUES
            ('an ended run went on', NEW.id, OLD.status || ' ' || NEW.status);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER witness AFTER UPDATE ON workflow_runs FOR EACH ROW EXECUTE FUNCTION witness_run();

CREATE FUNCTION witness_owner() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE owners text; writers text := witness_address(); BEGIN
    SELECT host.address INTO owners FROM workflow_runs AS run
        JOIN witness_hosts AS host ON host.id = run.owner WHERE run.id = NEW.run_id;
    IF writers <> 'here' AND owners <> writers THEN
        INSERT INTO witness_breaches VALUES
            ('another than its host wrote a run', NEW.run_id, writers || ' not ' || owners);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER witness AFTER INSERT OR UPDATE ON step_executions
    FOR EACH ROW EXECUTE FUNCTION witness_owner();
CREATE TRIGGER witness AFTER INSERT OR UPDATE ON invocations
    FOR EACH ROW EXECUTE FUNCTION witness_owner();

CREATE FUNCTION witness_step() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF OLD.status IN ('succeeded', 'failed', 'skipped')
        AND (NEW.status, NEW.outputs) IS DISTINCT FROM (OLD.status, OLD.outputs) THEN
        INSERT INTO witness_breaches VALUES
            ('a finished step was changed', NEW.run_id, NEW.step_id || ' ' || NEW.status);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER witness_step AFTER UPDATE ON step_executions
    FOR EACH ROW EXECUTE FUNCTION witness_step();
"""


def statements() -> str:
    """SQL that calls the witness to a database that has Swarm's tables and the fleet's."""
    return _TABLES


def check_witness(url: str) -> str:
    """Nobody wrote what was not theirs; gives how often runs changed hands."""
    assert query(url, "SELECT * FROM witness_breaches") == []
    assert query(url, "SELECT * FROM witness_claims WHERE epoch <> had + 1") == []
    claims = query(url, "SELECT * FROM witness_claims")
    taken_over = sum(claim["epoch"] > 1 for claim in claims)
    machines = {claim["address"] for claim in claims}
    assert len(machines - {LOCAL}) > 1, "only one machine took part"
    return f"{len(claims)} claims, {taken_over} of them not a run's first"
