/** Claim key of a plain job. */
export function queueLane(queue: string): string {
  return `q:${queue}`;
}

/** Claim key of balanced events that `group` takes by `pattern`. The separator can stand in no name. */
export function groupLane(group: string, pattern: string): string {
  return `g:${group}\u001f${pattern}`;
}

/** Queue on which a balanced event is a job. */
export function balancedQueue(event: string): string {
  return `__chimpbase.mesh.balanced.${event}`;
}
