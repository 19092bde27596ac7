import { cpus } from "node:os";
import { now } from "../pipeline/deadline.js";

interface MachineTimes {
  readonly busy: number;
  readonly total: number;
}

/**
 * Load since the last reading, 0 to 1: this process's use of one core or the machine's use of all, whichever is higher.
 * JavaScript runs on one thread, so a process at one core is as full as a machine at all of them.
 */
export class CpuLoad {
  #processMs = processTime();
  #machine = machineTimes();
  #readAt = now();

  read(): number {
    const [processMs, machine, at] = [processTime(), machineTimes(), now()];
    const ownShare = share(processMs - this.#processMs, at - this.#readAt);
    const machineShare = share(machine.busy - this.#machine.busy, machine.total - this.#machine.total);
    [this.#processMs, this.#machine, this.#readAt] = [processMs, machine, at];
    return Math.round(Math.max(ownShare, machineShare) * 1000) / 1000;
  }
}

function share(part: number, whole: number): number {
  return whole > 0 ? Math.min(1, Math.max(0, part / whole)) : 0;
}

function processTime(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

function machineTimes(): MachineTimes {
  let [busy, idle] = [0, 0];
  for (const { times } of cpus()) {
    busy += times.user + times.nice + times.sys + times.irq;
    idle += times.idle;
  }
  return { busy, total: busy + idle };
}
