import { until } from "../support/wait.js";

const TICK_MS = 10;
const LONGEST_TICK_MS = 100;
const MOST_UNDER_WAY = 2_000;
const QUIET_LIMIT_MS = 60_000;

export interface Flow {
  readonly perSecond: number;
  /** Never rejects. */
  readonly start: () => Promise<void>;
}

/** Starts operations at steady rates, whether or not those before them have ended. What it leaves out it tells. */
export class LoadGenerator {
  readonly #onOmitted: (operations: number) => void;
  #timer: NodeJS.Timeout | undefined;
  #underWay = 0;

  constructor(onOmitted: (operations: number) => void) {
    this.#onOmitted = onOmitted;
  }

  run(flows: readonly Flow[]): void {
    clearInterval(this.#timer);
    const owed = flows.map(() => 0);
    const allPerSecond = flows.reduce((sum, { perSecond }) => sum + perSecond, 0);
    let last = performance.now();
    this.#timer = setInterval(() => {
      const elapsed = performance.now() - last;
      last += elapsed;
      // A process that was frozen does not make up for it.
      const seconds = Math.min(elapsed, LONGEST_TICK_MS) / 1000;
      let omitted = allPerSecond * (elapsed / 1000 - seconds);
      flows.forEach(({ perSecond, start }, index) => {
        for (owed[index]! += perSecond * seconds; owed[index]! >= 1; owed[index]!--) if (!this.#start(start)) omitted++;
      });
      if (omitted > 0) this.#onOmitted(omitted);
    }, TICK_MS);
  }

  async quiet(): Promise<void> {
    clearInterval(this.#timer);
    await until(() => this.#underWay === 0, { timeoutMs: QUIET_LIMIT_MS, message: "what was under way has ended" });
  }

  #start(start: () => Promise<void>): boolean {
    if (this.#underWay >= MOST_UNDER_WAY) return false;
    this.#underWay++;
    void start().finally(() => this.#underWay--);
    return true;
  }
}
