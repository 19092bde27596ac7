const SIGNALS = { SIGTERM: 15, SIGINT: 2 } as const;

/** Calls `stop` at the first SIGTERM or SIGINT; a second one ends the process at once with code 128 + n. Returns the removal. */
export function onSignals(stop: (signal: string) => void): () => void {
  let stopping = false;
  const listen = (signal: NodeJS.Signals): void => {
    if (stopping) process.exit(128 + SIGNALS[signal as keyof typeof SIGNALS]);
    stopping = true;
    stop(signal);
  };
  const signals = Object.keys(SIGNALS) as NodeJS.Signals[];
  for (const signal of signals) process.on(signal, listen);
  return () => {
    for (const signal of signals) process.off(signal, listen);
  };
}
