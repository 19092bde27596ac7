/** What `work` gives, or null where it takes longer than `limitMs`; then its late outcome, good or bad, is ignored. */
export async function within<T>(work: Promise<T>, limitMs: number): Promise<{ readonly value: T } | null> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<null>((resolve) => {
    timer = setTimeout(() => resolve(null), limitMs);
  });
  try {
    return await Promise.race([work.then((value) => ({ value })), limit]);
  } finally {
    clearTimeout(timer);
  }
}
