import type { Meta } from "../contract/context.js";

/** What the `headers` column of a job holds, as JSON: all that travels with a payload. */
export interface JobHeaders {
  /** Id of the event that the job carries, the same for each of its groups; left out of plain jobs, whose id is the job's. */
  readonly id?: string;
  readonly requestId: string;
  readonly meta: Meta;
  /** Node that emitted or enqueued. */
  readonly nodeId: string;
}

export interface EncodedOrigin {
  readonly requestIdJson: string;
  readonly metaJson: string;
}

export function encodeJobHeaders({ requestIdJson, metaJson }: EncodedOrigin, nodeId: string, id?: string): string {
  return `{${id === undefined ? "" : `"id":"${id}",`}"requestId":${requestIdJson},"meta":${metaJson},"nodeId":${JSON.stringify(nodeId)}}`;
}

/** Throws where the text is no JSON object. What is missing gets an empty value: a job is not lost for its headers. */
export function decodeJobHeaders(text: string): JobHeaders {
  const parsed: unknown = JSON.parse(text);
  if (typeof parsed !== "object" || parsed === null) throw new SyntaxError("job headers are not a JSON object");
  const { id, requestId, meta, nodeId } = parsed as Partial<JobHeaders>;
  return { ...(typeof id === "string" ? { id } : {}), requestId: requestId ?? "", meta: readMeta(meta), nodeId: nodeId ?? "" };
}

/** Whoever writes to the tables writes this too: `__proto__` never gets in, since a later copy by assignment would follow it. */
export function readMeta(value: unknown): Meta {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return {};
  if (!Object.hasOwn(value, "__proto__")) return value as Meta;
  const { ["__proto__"]: _, ...meta } = value as Meta;
  return meta;
}
