import { MeshError } from "../errors.js";

/**
 * `query`, given up after `limitMs`: a connection that neither answers nor breaks must not stop for good what asks one
 * question at a time. The query itself may go on, and may have been executed.
 */
export async function answered<T>(query: Promise<T>, limitMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(noAnswer(limitMs)), limitMs);
  });
  try {
    return await Promise.race([query, limit]);
  } finally {
    clearTimeout(timer);
  }
}

function noAnswer(limitMs: number): MeshError {
  const message = `Postgres has not answered within ${limitMs} ms; the query may have been executed`;
  return new MeshError(message, { code: "DATABASE_UNAVAILABLE", status: 503, retryable: true });
}
