import type { Scenario } from "../scenario.js";
import { bodies, local, mixed, remote, validated } from "./calls.js";
import { idle, scale } from "./cluster.js";
import { broadcast, outbox } from "./events.js";
import { depth, exactlyOnce, queue } from "./queues.js";
import { steady } from "./steady.js";

export const SCENARIOS: readonly Scenario[] = [
  remote, bodies, mixed, local, validated, queue, exactlyOnce, steady, broadcast, outbox, idle, scale, depth,
];
