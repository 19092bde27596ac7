import { MeshError } from "../errors.js";
import { within } from "../pipeline/time-limit.js";

/**
 * `query`, given up after `limitMs`: a connection that neither answers nor breaks must not stop for good what asks one
 * question at a time. The query itself may go on, and may have been executed.
 */
export async function answered<T>(query: Promise<T>, limitMs: number): Promise<T> {
  const done = await within(query, limitMs);
  if (done === null) throw noAnswer(limitMs);
  return done.value;
}

function noAnswer(limitMs: number): MeshError {
  const message = `Postgres has not answered within ${limitMs} ms; the query may have been executed`;
  return new MeshError(message, { code: "DATABASE_UNAVAILABLE", status: 503, retryable: true });
}
