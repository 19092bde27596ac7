import type { Findings } from "./findings.js";
import type { Transition } from "./history.js";

/**
 * Postgres' own record of who did what to a claimed job: a trigger notes each change with the application name of its
 * connection, which is the name of the node. So the checker does not rest on what nodes say of themselves.
 */
export const AUDIT_SQL = `
  CREATE TABLE job_audit (job BIGINT, change TEXT, by TEXT, holder TEXT, successor TEXT, kept BOOLEAN, expired BOOLEAN, at TIMESTAMPTZ DEFAULT clock_timestamp());
  CREATE TABLE claim_audit (token UUID PRIMARY KEY, holder TEXT, lease_until TIMESTAMPTZ, ids BIGINT[], fences INTEGER[]);
  CREATE FUNCTION audit_claim() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
  DECLARE node TEXT := current_setting('application_name');
  BEGIN
    IF TG_OP = 'INSERT' THEN
      INSERT INTO claim_audit VALUES (NEW.token, NEW.holder, NEW.lease_until, NEW.ids, NEW.fences);
      INSERT INTO job_audit SELECT id, 'claim', node, NULL, NEW.holder, false, NULL FROM unnest(NEW.ids) AS id;
    ELSE
      UPDATE claim_audit SET lease_until = NEW.lease_until WHERE token = OLD.token;
      INSERT INTO job_audit SELECT id, 'extend', node, OLD.holder, NEW.holder, OLD.token = NEW.token, OLD.lease_until < clock_timestamp() FROM unnest(NEW.ids) AS id;
    END IF;
    RETURN NULL;
  END $$;
  CREATE FUNCTION audit_job() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
  DECLARE held claim_audit;
  BEGIN
    SELECT c.* INTO held FROM claim_audit AS c, unnest(c.ids, c.fences) AS h(id, fence) WHERE c.ids @> ARRAY[OLD.id] AND h.id = OLD.id AND h.fence = OLD.fence;
    INSERT INTO job_audit VALUES (OLD.id, CASE TG_OP WHEN 'DELETE' THEN 'end' ELSE 'release' END, current_setting('application_name'),
      held.holder, NULL, false, held.lease_until < clock_timestamp());
    RETURN NULL;
  END $$;
  CREATE INDEX claim_audit_ids ON claim_audit USING gin (ids);
  CREATE TRIGGER audit_claim AFTER INSERT OR UPDATE ON _chimpbase_mesh_claims FOR EACH ROW EXECUTE FUNCTION audit_claim();
  CREATE TRIGGER audit_job AFTER UPDATE OR DELETE ON _chimpbase_mesh_jobs FOR EACH ROW EXECUTE FUNCTION audit_job();`;

export const READ_AUDIT_SQL = `
  SELECT 'transition' AS kind, job::text, change, by, holder, successor, kept, expired, extract(epoch FROM at)::float8 * 1000 AS at
  FROM job_audit ORDER BY at`;

/** A row where node `$1` has claimed a job in the last `$2` ms. */
export const RECENT_CLAIM_SQL =
  "SELECT FROM job_audit WHERE change = 'claim' AND successor = $1 AND at > clock_timestamp() - $2::float8 * interval '1 ms' LIMIT 1";

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
