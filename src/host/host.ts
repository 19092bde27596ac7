import { randomUUID } from "node:crypto";
import { MeshConfigurationError, MeshError } from "../errors.js";
import { within } from "../pipeline/time-limit.js";
import { boot, drainPlugins } from "./boot.js";
import { meshMissing } from "./context.js";
import { drain } from "./drain.js";
import { resolveHostOptions } from "./options.js";
import { Registry } from "./plugins.js";
import { onSignals } from "./signals.js";
import { Teardown } from "./teardown.js";
import type { HostMesh } from "../contract/mesh-client.js";
import type { HealthReport, Registration } from "../contract/registration.js";
import type { BootOptions, RunningHost } from "./boot.js";
import type { HostOptions, ResolvedHostOptions } from "./options.js";
import type { Arrangement } from "./plugins.js";

export type { DatabaseOptions, HostOptions, SecretOptions, ServerOptions, ServerTlsOptions } from "./options.js";

export interface StartOptions {
  /** SIGTERM and SIGINT stop the host; a second one exits at once. Default false. */
  readonly signals?: boolean;
}

export interface Host {
  readonly name: string;
  /** UUID of this boot. */
  readonly nodeId: string;
  /** Bound URL, null before start and without a server. */
  readonly url: string | null;
  /** The mesh client for use outside handlers. Throws code `MESH_NOT_REGISTERED` without `chimpbaseMesh`. */
  readonly mesh: HostMesh;
  /** Adds to what `start` brings up. Throws `MeshConfigurationError` for names that are taken, and after start (`ALREADY_STARTED`). */
  register(...registrations: readonly Registration[]): this;
  /**
   * Resolves when everything runs. Rejects, with everything already started stopped again, where any part fails. A host
   * starts once: a second call rejects with code `ALREADY_STARTED`, one after `stop` with `ALREADY_STOPPED`.
   */
  start(options?: StartOptions): Promise<void>;
  /**
   * Drains and closes everything; the same promise each time. Rejects with code `STOP_FAILED`, after all of it, where
   * steps failed. It waits for handlers and start hooks under way, so none of them must wait for it.
   */
  stop(): Promise<void>;
}

/** Throws `MeshConfigurationError` for an option that is wrong or unknown, and where no database is given. */
export function createHost(options: HostOptions = {}): Host {
  return new MeshHost(resolveHostOptions(options));
}

type Phase = "new" | "starting" | "started" | "draining" | "stopped";

class MeshHost implements Host {
  readonly nodeId = randomUUID();
  readonly #options: ResolvedHostOptions;
  readonly #registry = new Registry();
  readonly #teardown: Teardown;
  readonly #state: BootOptions["state"];
  #phase: Phase = "new";
  #arrangement: Arrangement | undefined;
  #running: RunningHost | undefined;
  #starting: Promise<void> | undefined;
  #stopping: Promise<void> | undefined;
  #removeSignals: () => void = () => undefined;

  constructor(options: ResolvedHostOptions) {
    this.#options = options;
    this.#teardown = new Teardown(options.log);
    const draining = (): boolean => this.#stopping !== undefined;
    this.#state = {
      url: null,
      address: null,
      get draining() {
        return draining();
      },
    };
  }

  get name(): string {
    return this.#options.name;
  }

  get url(): string | null {
    return this.#state.url;
  }

  get mesh(): HostMesh {
    const mesh = this.#registry.extension("mesh");
    if (mesh === undefined) throw meshMissing("host.mesh");
    return mesh as HostMesh;
  }

  register(...registrations: readonly Registration[]): this {
    if (this.#phase !== "new") throw tooLate("register() after start(): register everything before, or services with host.mesh.register()", "ALREADY_STARTED");
    this.#registry.add(registrations);
    return this;
  }

  async start(options: StartOptions = {}): Promise<void> {
    if (this.#stopping !== undefined || this.#phase === "stopped") throw tooLate("start() after stop(): make another host", "ALREADY_STOPPED");
    if (this.#phase !== "new") throw tooLate("start() was called before: a host starts once", "ALREADY_STARTED");
    this.#arrangement = this.#registry.arrange();
    this.#phase = "starting";
    if (options.signals === true) this.#removeSignals = onSignals((signal) => this.#stopOnSignal(signal));
    this.#starting = this.#start(this.#arrangement);
    await this.#starting;
  }

  stop(): Promise<void> {
    return (this.#stopping ??= this.#stop());
  }

  async #start(arrangement: Arrangement): Promise<void> {
    const { nodeId } = this;
    const { log } = this.#options;
    try {
      const checkpoint = (): void => this.#checkpoint();
      const hostCheck = (): HealthReport => this.#check();
      this.#running = await boot({ options: this.#options, arrangement, nodeId, teardown: this.#teardown, checkpoint, state: this.#state, hostCheck });
      this.#phase = "started";
      log.info("host started", { nodeId, url: this.url });
    } catch (error) {
      await this.#teardown.finish().catch(() => undefined);
      this.#end();
      throw error;
    }
  }

  async #stop(): Promise<void> {
    await this.#starting?.catch(() => undefined);
    const running = this.#running;
    if (running === undefined) return this.#end();
    this.#phase = "draining";
    this.#options.log.info("host stopping", { nodeId: this.nodeId });
    try {
      await this.#drain(running);
      await this.#teardown.finish();
      this.#options.log.info("host stopped", { nodeId: this.nodeId });
    } finally {
      this.#end();
    }
  }

  async #drain(running: RunningHost): Promise<void> {
    const { engines, http, env, deliveries } = running;
    const attempt = this.#teardown.attempt.bind(this.#teardown);
    // While peers are being told, jobs are claimed no more: what was prefetched goes back at once.
    // What becomes of it is for the teardown to say, which waits for both again.
    const withdrawn = Promise.allSettled([engines.scheduler.stop(), engines.worker.drain()]);
    await drainPlugins(this.#arrangement?.of("lifecycle") ?? [], env, attempt);
    deliveries.close();
    const { drainTimeoutMs: limitMs, log } = this.#options;
    // The teardown waits once more for what a Postgres that does not answer holds up.
    await Promise.all([drain({ engines, http, limitMs, log }), within(withdrawn, limitMs)]);
  }

  #checkpoint(): void {
    if (this.#stopping !== undefined) throw new MeshError("the host was stopped while it started", { code: "ALREADY_STOPPED" });
  }

  #check(): HealthReport {
    const state = this.#stopping === undefined ? this.#phase : "draining";
    return { status: state === "started" ? "ok" : "failing", state };
  }

  #stopOnSignal(signal: string): void {
    this.#options.log.info(`${signal}: the host stops`, { nodeId: this.nodeId });
    // Failures are in the log; the process must not end as if all were well.
    this.stop().catch(() => (process.exitCode = 1));
  }

  #end(): void {
    this.#phase = "stopped";
    this.#state.url = this.#state.address = null;
    this.#removeSignals();
  }
}

function tooLate(message: string, code: string): MeshConfigurationError {
  return new MeshConfigurationError(message, { code });
}
