import type { HealthReport, HostEnv, LiveRegistration, Scope } from "../contract/registration.js";
import type { EventDeliveries } from "./deliveries.js";
import type { Engines } from "./engines.js";
import type { Health } from "./health.js";
import type { Logger } from "../logger.js";

/** What of the host's state plugins can see. */
export interface HostState {
  readonly url: string | null;
  readonly address: string | null;
  readonly draining: boolean;
}

export interface EnvOptions {
  readonly name: string;
  readonly nodeId: string;
  readonly log: Logger;
  readonly engines: Engines;
  readonly deliveries: EventDeliveries;
  readonly health: Health;
  readonly state: HostState;
}

export function createEnv({ name, nodeId, log, engines, deliveries, health, state }: EnvOptions): HostEnv {
  const { storage, bus, outbox, dispatcher, actions, secrets } = engines;
  return {
    name, nodeId, log, storage, bus, outbox, dispatcher,
    get url() {
      return state.url;
    },
    get address() {
      return state.address;
    },
    get draining() {
      return state.draining;
    },
    secret: (secret: string) => secrets.get(secret),
    action: (action: string, args: unknown, scope: Scope) => actions.run(dispatcher, action, args, scope),
    attach: (registrations: readonly LiveRegistration[]) => deliveries.attach(registrations),
    health: (check: string, report: () => HealthReport) => health.add(check, report),
  };
}
