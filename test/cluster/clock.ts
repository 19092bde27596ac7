/** Puts this process's wall clock `offsetMs` ahead (below 0: behind), as far as JavaScript can tell. */
export function setClock(offsetMs: number): void {
  if (offsetMs === 0) return;
  const RealDate = Date;
  class WrongDate extends RealDate {
    constructor(...args: [] | [string | number | Date]) {
      super(...((args.length === 0 ? [WrongDate.now()] : args) as [number]));
    }
    static override now(): number {
      return RealDate.now() + offsetMs;
    }
  }
  globalThis.Date = WrongDate as DateConstructor;
}
