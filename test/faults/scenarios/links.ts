import { callsOf, checkCalls } from "../checks.js";
import { now } from "../history.js";
import type { Link } from "../link.js";
import type { Scenario } from "../trial.js";

const CALL_LIMIT_MS = 900;

const FAULTS: readonly { readonly what: string; readonly strike: (link: Link) => void; readonly harmless?: true }[] = [
  { what: "drop", strike: (link) => link.drop() },
  { what: "black hole", strike: (link) => link.blackHole() },
  { what: "half-open", strike: (link) => link.halfOpen() },
  { what: "cut", strike: (link) => link.cut() },
  { what: "delay of 60 ms", strike: (link) => link.delay(60), harmless: true },
];

export const links: Scenario = {
  name: "links",
  promise: "a peer behind a broken link: calls with retries succeed, others fail only while it is broken; it is used again when it has healed",
  async run(trial) {
    const { cluster } = trial;
    const nodes = await cluster.start(3);
    const victim = trial.random.pick(nodes);
    const others = nodes.filter((node) => node !== victim);
    const troubles: (readonly [number, number])[] = [];
    await cluster.load({ calls: 100, timeoutMs: CALL_LIMIT_MS }, others);
    const rounds = Array.from({ length: trial.size(1, 2) }, () => trial.random.shuffled(FAULTS).slice(0, trial.size(2, FAULTS.length)));
    for (const { what, strike, harmless } of rounds.flat()) {
      await trial.pause(400, 800);
      const from = trial.fault(`${what} before ${victim.name}`);
      strike(victim.http);
      await trial.pause(800, 1_200);
      victim.http.heal();
      const healedAt = trial.fault(`${victim.name} healed`);
      if (harmless === undefined) troubles.push([from, healedAt + 100]);
      const used = (): boolean => others.every(({ name }) => callsTo(name, healedAt));
      await trial.within(2_500, `a peer is called again after a ${what}`, used);
    }
    await trial.settle();
    checkCalls(trial, callsOf(trial, others), troubles);

    function callsTo(caller: string, since: number): boolean {
      return trial.history.all("call").some((call) => call.node === caller && call.ranOn === victim.name && call.startedAt >= since && now() > since);
    }
  },
};
