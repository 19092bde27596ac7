import { MeshConfigurationError, ServiceDefinitionError } from "../errors.js";
import { nearestName } from "../suggestion.js";
import { instantiate } from "../service/describe.js";
import { RegisteredService } from "./registered-service.js";
import type { ServiceBinding } from "../service/describe.js";
import type { LocalAction, LocalActions } from "./directory.js";
import type { ServiceInfo, ServiceSource } from "../contract/mesh-client.js";

/** The services of this node, and their actions by full name. */
export class NodeServices implements LocalActions {
  readonly #binding: ServiceBinding;
  readonly #services = new Map<string, { readonly service: RegisteredService; readonly source: string }>();
  readonly #actions = new Map<string, LocalAction>();
  /** Still served to callers that do not know yet, but told to nobody any more. */
  readonly #withdrawn = new Set<string>();

  constructor(binding: ServiceBinding) {
    this.#binding = binding;
  }

  find(action: string): LocalAction | undefined {
    return this.#actions.get(action);
  }

  /** A service or action of this node. */
  serves(name: string): boolean {
    return this.#services.has(name) || this.#actions.has(name);
  }

  all(): readonly RegisteredService[] {
    return [...this.#services.values()].map(({ service }) => service);
  }

  /** What peers are told. */
  infos(): readonly ServiceInfo[] {
    return this.all().filter(({ id }) => !this.#withdrawn.has(id)).map(({ info }) => info);
  }

  withdraw(services: readonly RegisteredService[]): void {
    for (const { id } of services) this.#withdrawn.add(id);
  }

  restore(services: readonly RegisteredService[]): void {
    for (const { id } of services) this.#withdrawn.delete(id);
  }

  /**
   * Makes services of `sources` without adding them. Throws `ServiceDefinitionError` for a mistake in one of them, and
   * where two, these or registered ones, would answer to the same name.
   */
  prepare(sources: readonly ServiceSource[]): readonly PreparedService[] {
    const prepared = sources.map((source) => this.#prepareOne(source));
    const owners = new Map<string, string>();
    for (const { service, source } of [...this.#services.values(), ...prepared]) {
      for (const name of [service.id, ...service.info.actions]) claim(owners, name, source);
    }
    return prepared;
  }

  add(prepared: readonly PreparedService[]): void {
    for (const entry of prepared) {
      this.#services.set(entry.service.id, entry);
      for (const action of entry.service.actions) this.#actions.set(action.name, action);
    }
  }

  remove(services: readonly RegisteredService[]): void {
    for (const { id, info } of services) {
      this.#services.delete(id);
      this.#withdrawn.delete(id);
      for (const action of info.actions) this.#actions.delete(action);
    }
  }

  /** Throws `MeshConfigurationError` for the first id that is not registered. */
  select(ids: readonly string[]): readonly RegisteredService[] {
    return [...new Set(ids)].map((id) => this.#services.get(id)?.service ?? this.#refuse(id));
  }

  #prepareOne(source: ServiceSource): PreparedService {
    const service = new RegisteredService(instantiate(source, this.#binding));
    return { service, source: `${describeSource(source)} (${service.id})` };
  }

  #refuse(id: string): never {
    const known = [...this.#services.keys()];
    const guess = nearestName(id, known);
    const hint = guess === undefined ? `registered are: ${known.join(", ") || "none"}` : `did you mean "${guess}"? Registered are: ${known.join(", ")}`;
    throw new MeshConfigurationError(`service "${id}" is not registered on this node; ${hint}`);
  }
}

export interface PreparedService {
  readonly service: RegisteredService;
  /** For errors. */
  readonly source: string;
}

function claim(owners: Map<string, string>, name: string, source: string): void {
  const other = owners.get(name);
  if (other !== undefined) throw new ServiceDefinitionError(`"${name}" is given twice: by ${other} and by ${source}; rename one or raise its version`);
  owners.set(name, source);
}

function describeSource(source: ServiceSource): string {
  if (typeof source === "function") return `class ${source.name}`;
  const type = source.constructor;
  return typeof type === "function" && type !== Object ? `instance of ${type.name}` : "service({...})";
}
