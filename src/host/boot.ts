import { createHttpServer } from "../runtime/http-server.js";
import { readTls } from "../tls.js";
import { EventDeliveries, toBroadcast } from "./deliveries.js";
import { openEngines } from "./engines.js";
import { createEnv } from "./env.js";
import { Health } from "./health.js";
import type { HookRegistration, HostEnv, LifecycleRegistration, RouteRegistration } from "../contract/registration.js";
import type { HttpRoute, HttpServer } from "../runtime/http-server.js";
import type { Engines, EngineOptions } from "./engines.js";
import type { HostState } from "./env.js";

/** How long the answers of the last requests may take once everything else has ended. */
const HTTP_GRACE_MS = 1_000;

export interface BootOptions extends EngineOptions {
  readonly state: HostState & { url: string | null; address: string | null };
  readonly hostCheck: Parameters<Health["add"]>[1];
}

/** A host that is up. */
export interface RunningHost {
  readonly engines: Engines;
  readonly http: HttpServer | null;
  readonly env: HostEnv;
  readonly deliveries: EventDeliveries;
}

/**
 * Brings a host up, in this order: engines, bus, `ready` of plugins, HTTP server, `listening` of plugins, event and job
 * handlers, start hooks. What it opened is in the teardown, also where it rejects. The bus runs before `ready`, so that
 * what plugins read then and what they hear afterwards leave no gap; handlers get events only when the plugins are up.
 */
export async function boot(given: BootOptions): Promise<RunningHost> {
  const { arrangement, checkpoint, state } = given;
  const host = await assemble(given);
  const { engines, http, env } = host;
  await engines.bus.start();
  for (const plugin of arrangement.of("lifecycle")) {
    checkpoint();
    given.teardown.push(`the end of ${plugin.name}`, () => plugin.close?.(env));
    await plugin.ready?.(env);
  }
  checkpoint();
  if (http !== null) {
    state.url = await http.listen();
    state.address = http.address;
  }
  for (const plugin of arrangement.of("lifecycle")) {
    checkpoint();
    await plugin.listening?.(env);
  }
  checkpoint();
  await attachHandlers(given, host);
  checkpoint();
  await runStartHooks(given, engines);
  checkpoint();
  return host;
}

async function assemble(given: BootOptions): Promise<RunningHost> {
  const { options, arrangement, nodeId, teardown, state } = given;
  const { log, server } = options;
  // Before anything is opened: a wrong file costs no connection.
  const tls = server?.tls ? readTls(server.tls, (part) => `option "server.tls.${part}"`) : null;
  const engines = await openEngines(given);
  const deliveries = new EventDeliveries(engines);
  teardown.pushPart("the event handlers", () => deliveries.close());
  const health = new Health();
  const env = createEnv({ name: options.name, nodeId, log, engines, deliveries, health, state });
  health.add("host", given.hostCheck);
  health.add("database", () => ({ status: engines.storage.stats().reachable ? "ok" : "degraded" }));
  health.add("bus", () => (engines.bus.live ? { status: "ok" } : { status: "degraded", deliveries: "polling" }));

  if (server === null) return { engines, http: null, env, deliveries };
  const routes = [...arrangement.of("route", "raw-route", "upgrade").map(toHttpRoute), health.route()];
  const http = createHttpServer({ ...server, tls, routes, dispatcher: engines.dispatcher, env, log });
  teardown.pushPart("the HTTP server", () => http.close(HTTP_GRACE_MS));
  return { engines, http, env, deliveries };
}

function toHttpRoute(registration: RouteRegistration | Exclude<HttpRoute, { kind: "route" }>): HttpRoute {
  if (registration.kind !== "route") return registration;
  const { name, handler } = registration;
  // The dispatcher gives targets of this kind a `RouteEnv`.
  return { kind: "route", target: { kind: "route", name, handler: (env, request) => handler(request as Request, env as unknown as Parameters<typeof handler>[1]) } };
}

async function attachHandlers({ arrangement }: BootOptions, { engines, deliveries }: RunningHost): Promise<void> {
  await deliveries.attach([...arrangement.of("subscription").map(toBroadcast), ...arrangement.of("broadcast", "balanced")]);
  await engines.worker.attach(arrangement.of("worker"));
  deliveries.open();
  await engines.worker.start();
  await engines.scheduler.start();
}

async function runStartHooks({ arrangement, teardown, checkpoint }: BootOptions, engines: Engines): Promise<void> {
  for (const hook of arrangement.of("stop")) teardown.push("an onStop hook", () => runHook(engines, hook));
  for (const hook of arrangement.of("start")) {
    checkpoint();
    await runHook(engines, hook);
  }
}

function runHook({ dispatcher }: Engines, { kind, handler }: HookRegistration): Promise<unknown> {
  return dispatcher.dispatch({ kind: "lifecycle", name: kind === "start" ? "onStart" : "onStop", handler }, undefined, dispatcher.rootScope());
}

/** `drain` of all plugins, first registered first. What one throws keeps no other from running. */
export async function drainPlugins(plugins: readonly LifecycleRegistration[], env: HostEnv, attempt: (name: string, step: () => unknown) => Promise<void>): Promise<void> {
  for (const plugin of plugins) if (plugin.drain !== undefined) await attempt(`the drain of ${plugin.name}`, () => plugin.drain?.(env));
}
