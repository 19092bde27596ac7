import type { Findings } from "../findings.js";

/** Since then the node was told that it may have missed broadcasts. */
export function isTold({ history }: Findings, name: string, since: number): boolean {
  return history.all("resync").some(({ node, at }) => node === name && at >= since);
}

/** Only the node that was away for longer than the retention, from `awayFrom` on, is told to resync. */
export function checkResyncs(findings: Findings, name: string, awayFrom: number): void {
  const resyncs = findings.history.all("resync");
  findings.none(resyncs.filter(({ at }) => at < awayFrom), "nodes told to resync that had missed nothing");
  findings.none(resyncs.filter(({ node }) => node !== name), "nodes told to resync that were there");
  findings.check(isTold(findings, name, awayFrom), `${name} was not told to resync`);
}
