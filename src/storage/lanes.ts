const SEPARATOR = "\u001f";
const BALANCED_PREFIX = "__chimpbase.mesh.balanced.";

/** Claim key of a plain job. */
export function queueLane(queue: string): string {
  return `q:${queue}`;
}

/** Claim key of balanced events that `group` takes by `pattern`. The separator can stand in no name. */
export function groupLane(group: string, pattern: string): string {
  return `g:${group}${SEPARATOR}${pattern}`;
}

/** `groupLane` as an SQL expression over two others. */
export function groupLaneSql(group: string, pattern: string): string {
  return `'g:' || ${group} || chr(${SEPARATOR.charCodeAt(0)}) || ${pattern}`;
}

/** Queue on which a balanced event is a job. */
export function balancedQueue(event: string): string {
  return `${BALANCED_PREFIX}${event}`;
}

/** `balancedQueue` as an SQL expression over another. */
export function balancedQueueSql(event: string): string {
  return `'${BALANCED_PREFIX}' || ${event}`;
}
