import type { Scenario } from "../scenario.js";
import { bodies, local, mixed, remote, validated } from "./calls.js";
import { depth } from "./depth.js";
import { broadcast, outbox } from "./events.js";
import { idle } from "./idle.js";
import { exactlyOnce, queue } from "./queues.js";
import { scale } from "./scale.js";
import { steady } from "./steady.js";

export const SCENARIOS: readonly Scenario[] = [
  remote, bodies, mixed, local, validated, queue, exactlyOnce, steady, broadcast, outbox, idle, scale, depth,
];
