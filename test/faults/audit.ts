import type { Findings } from "./findings.js";
import type { Transition } from "./history.js";

/**
 * Postgres' own record of who did what to a claimed job: a trigger notes each change with the application name of its
 * connection, which is the name of the node. So the checker does not rest on what nodes say of themselves.
 */
export const AUDIT_SQL = `
  CREATE TABLE job_audit (
    job BIGINT, change TEXT, by TEXT, holder TEXT, successor TEXT, kept BOOLEAN, expired BOOLEAN, at TIMESTAMPTZ DEFAULT clock_timestamp());
  CREATE FUNCTION audit_job() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
  BEGIN
    IF TG_OP = 'DELETE' THEN
      INSERT INTO job_audit VALUES (OLD.id, 'end', current_setting('application_name'), OLD.holder, NULL, false, OLD.lease_until < clock_timestamp());
    ELSIF OLD.token IS NULL AND NEW.token IS NOT NULL THEN
      INSERT INTO job_audit VALUES (OLD.id, 'claim', current_setting('application_name'), NULL, NEW.holder, false, NULL);
    ELSE
      INSERT INTO job_audit VALUES (OLD.id, CASE WHEN NEW.token IS NULL THEN 'release' ELSE 'extend' END, current_setting('application_name'),
        OLD.holder, NEW.holder, OLD.token IS NOT DISTINCT FROM NEW.token, OLD.lease_until < clock_timestamp());
    END IF;
    RETURN NULL;
  END $$;
  CREATE TRIGGER audit_job AFTER UPDATE OR DELETE ON _chimpbase_mesh_jobs FOR EACH ROW EXECUTE FUNCTION audit_job();`;

export const READ_AUDIT_SQL = `
  SELECT 'transition' AS kind, job::text, change, by, holder, successor, kept, expired, extract(epoch FROM at)::float8 * 1000 AS at
  FROM job_audit ORDER BY at`;

/**
 * Whoever changes a claimed job is its holder, or takes it over after the lease has run out. `names`: of the nodes, by
 * node id.
 */
export function checkFencing(findings: Findings, names: ReadonlyMap<string, string>): void {
  const transitions = findings.history.all("transition");
  const nameOf = (nodeId: string | null): string | undefined => (nodeId === null ? undefined : names.get(nodeId));
  findings.none(transitions.filter((each) => !isAllowed(each, nameOf)), "changes to jobs by nodes that did not hold them");
  const ended = new Set(transitions.filter(({ change }) => change === "end").map(({ job }) => job));
  findings.none(transitions.filter(({ change, job }) => change === "claim" && !ended.has(job)), "claims of jobs that Postgres never saw end");
}

function isAllowed({ change, by, holder, successor, kept, expired }: Transition, nameOf: (nodeId: string | null) => string | undefined): boolean {
  if (change === "claim") return nameOf(successor) === by;
  if (change === "extend") return kept && nameOf(holder) === by;
  if (change === "end") return nameOf(holder) === by;
  return nameOf(holder) === by || expired === true;
}
