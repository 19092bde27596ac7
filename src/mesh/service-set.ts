import { within } from "../pipeline/time-limit.js";
import type { PreparedService, NodeServices } from "./services.js";
import type { RegisteredService } from "./registered-service.js";
import type { ServiceSource } from "../contract/mesh-client.js";
import type { HostEnv } from "../contract/registration.js";

/** Longest wait for the calls under way on a service that is taken off: the host's default drain limit. */
const UNREGISTER_LIMIT_MS = 20_000;

type Detach = () => Promise<void>;

/** Starts and stops the services of a node, and changes which they are while it runs. One change at a time. */
export class ServiceSet {
  readonly #services: NodeServices;
  /** Started services, in that order, with the detachment of their events. */
  readonly #started = new Map<RegisteredService, Detach>();
  #lastChange: Promise<unknown> = Promise.resolve();

  constructor(services: NodeServices) {
    this.#services = services;
  }

  async startAll(env: HostEnv): Promise<void> {
    for (const service of this.#services.all()) await this.#start(service, env);
  }

  /** Last started, first stopped. A hook that throws is logged and holds up nobody. */
  async stopAll(env: HostEnv): Promise<void> {
    await this.#lastChange;
    for (const service of [...this.#started.keys()].reverse()) await this.#stop(service, env);
  }

  /** Rejects, with everything as it was, where a service is wrong, a hook throws, or `publish` rejects. */
  register(sources: readonly ServiceSource[], env: HostEnv, publish: () => Promise<void>): Promise<void> {
    return this.#inTurn(async () => {
      const prepared = this.#services.prepare(sources);
      try {
        for (const { service } of prepared) await this.#start(service, env);
        this.#services.add(prepared);
        await publish();
      } catch (error) {
        await this.#rollBack(prepared, env);
        throw error;
      }
    });
  }

  /** Rejects, with everything as it was, where an id is unknown or `publish` rejects. */
  unregister(ids: readonly string[], env: HostEnv, publish: () => Promise<void>): Promise<void> {
    return this.#inTurn(async () => {
      const services = this.#services.select(ids);
      this.#services.withdraw(services);
      try {
        await publish();
      } catch (error) {
        this.#services.restore(services);
        throw error;
      }
      this.#services.remove(services);
      for (const service of services) await this.#retire(service, env);
    });
  }

  async #start(service: RegisteredService, env: HostEnv): Promise<void> {
    await service.start(env.dispatcher);
    try {
      this.#started.set(service, await env.attach(service.events));
    } catch (error) {
      await this.#stop(service, env);
      throw error;
    }
  }

  async #retire(service: RegisteredService, env: HostEnv): Promise<void> {
    const ended = Promise.all([service.idle(), this.#started.get(service)?.()]);
    const inTime = await within(ended, UNREGISTER_LIMIT_MS);
    if (inTime === null) env.log.warn("mesh service is taken off while calls are under way", { service: service.id });
    await this.#stop(service, env);
  }

  async #rollBack(prepared: readonly PreparedService[], env: HostEnv): Promise<void> {
    const services = prepared.map(({ service }) => service);
    this.#services.remove(services);
    for (const service of services.reverse()) {
      const detach = this.#started.get(service);
      if (detach === undefined) continue;
      await detach().catch((error: unknown) => env.log.error("mesh service could not be detached", { service: service.id, err: error }));
      await this.#stop(service, env);
    }
  }

  async #stop(service: RegisteredService, env: HostEnv): Promise<void> {
    this.#started.delete(service);
    try {
      await service.stop(env.dispatcher);
    } catch (error) {
      env.log.error("mesh service: its stopped hook threw", { service: service.id, err: error });
    }
  }

  #inTurn(change: () => Promise<void>): Promise<void> {
    const turn = this.#lastChange.then(change);
    this.#lastChange = turn.catch(() => undefined);
    return turn;
  }
}
