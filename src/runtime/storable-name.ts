export const LONGEST_NAME = 255;

/** Whether a name can be written: control characters and lone surrogates are what Postgres cannot store or an index would choke on. */
export function isStorableName(name: unknown): name is string {
  return typeof name === "string" && name.length > 0 && name.length <= LONGEST_NAME && !/[\p{Cc}\p{Cs}]/u.test(name);
}
