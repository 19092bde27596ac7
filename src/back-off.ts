const FIRST_MS = 100;
const LONGEST_MS = 5_000;

/** Pause before the next try after `failures` in a row: doubling up to 5 s, half of it random. */
export function backOffMs(failures: number): number {
  const full = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.max(0, failures - 1));
  return full * (0.5 + Math.random() / 2);
}
