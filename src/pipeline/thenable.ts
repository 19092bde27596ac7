/** Whether there is something to wait for. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as PromiseLike<unknown> | null | undefined)?.then === "function";
}

/** Settles as `result` does, once `end`, which must not throw, has been called. Not async: what `then` makes costs a call less. */
export function endAfter(result: PromiseLike<unknown>, end: () => void): Promise<unknown> {
  return Promise.resolve(result).then(
    (value) => {
      end();
      return value;
    },
    (error: unknown) => {
      end();
      throw error;
    },
  );
}
