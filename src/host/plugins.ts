import { MeshConfigurationError } from "../errors.js";
import type { Plugin, Registration } from "../contract/registration.js";

type Leaf = Exclude<Registration, Plugin>;
type LeafOf<K extends Leaf["kind"]> = Extract<Leaf, { readonly kind: K }>;

/** What one call of `add` would bring. */
interface Claims {
  /** What holds each unique name → where it came from. */
  readonly owners: Map<string, string>;
  readonly plugins: Map<string, Plugin>;
  readonly extensions: Map<string, object>;
}

const KINDS: ReadonlySet<string> = new Set<Registration["kind"]>([
  "action", "route", "raw-route", "upgrade", "subscription", "worker", "balanced", "broadcast", "cron", "start", "stop",
  "lifecycle", "context-extension", "host-extension", "plugin",
]);

/** All that was registered with one host, in order. */
export class Registry {
  readonly #roots: Registration[] = [];
  /** What holds each unique name → where it came from. */
  readonly #owners = new Map<string, string>();
  readonly #plugins = new Map<string, Plugin>();
  readonly #extensions = new Map<string, object>();

  /** All or none. Throws `MeshConfigurationError` for a name that is taken, naming both sides. */
  add(registrations: readonly Registration[]): void {
    const claims: Claims = { owners: new Map(), plugins: new Map(), extensions: new Map() };
    for (const registration of registrations) this.#claim(registration, "the application", claims);
    for (const [name, owner] of claims.owners) this.#owners.set(name, owner);
    for (const [name, plugin] of claims.plugins) this.#plugins.set(name, plugin);
    for (const [key, value] of claims.extensions) this.#extensions.set(key, value);
    this.#roots.push(...registrations);
  }

  /** The value that a host extension exposes. */
  extension(key: string): object | undefined {
    return this.#extensions.get(key);
  }

  /**
   * Flattens plugins. Everything keeps its order of registration, but a plugin is preceded by those it depends on. Throws
   * `MeshConfigurationError` for a dependency that is missing or circular, naming both sides.
   */
  arrange(): Arrangement {
    const leaves: Leaf[] = [];
    const state = new Map<Plugin, "visiting" | "done">();
    const path: string[] = [];

    const visit = (registration: Registration): void => {
      if (registration.kind !== "plugin") return void leaves.push(registration);
      if (state.get(registration) === "done") return;
      if (state.get(registration) === "visiting") throw circular([...path, registration.name]);
      state.set(registration, "visiting");
      path.push(registration.name);
      for (const name of registration.dependsOn) visit(this.#dependency(registration, name));
      for (const inner of registration.registrations) visit(inner);
      path.pop();
      state.set(registration, "done");
    };

    for (const root of this.#roots) visit(root);
    return new Arrangement(leaves);
  }

  #claim(registration: Registration, owner: string, claims: Claims): void {
    if (!KINDS.has(registration?.kind)) throw new MeshConfigurationError(`${owner} registers ${kindOf(registration)}, which is no registration: use action(), route(), plugin() and the like; services go into chimpbaseMesh({ services: [...] })`);
    const name = uniqueName(registration);
    const other = name === null ? undefined : (this.#owners.get(name) ?? claims.owners.get(name));
    if (other !== undefined) throw new MeshConfigurationError(`${name} is registered twice: by ${other} and by ${owner}`);
    if (name !== null) claims.owners.set(name, owner);
    if (registration.kind === "host-extension") claims.extensions.set(registration.key, registration.value);
    if (registration.kind !== "plugin") return;
    claims.plugins.set(registration.name, registration);
    for (const inner of registration.registrations) this.#claim(inner, `plugin "${registration.name}"`, claims);
  }

  #dependency(plugin: Plugin, name: string): Plugin {
    const dependency = this.#plugins.get(name);
    if (dependency === undefined) {
      throw new MeshConfigurationError(`plugin "${plugin.name}" depends on plugin "${name}", which is not registered`);
    }
    return dependency;
  }
}

/** Registrations in running order. */
export class Arrangement {
  readonly #leaves: readonly Leaf[];

  constructor(leaves: readonly Leaf[]) {
    this.#leaves = leaves;
  }

  of<K extends Leaf["kind"]>(...kinds: readonly K[]): readonly LeafOf<K>[] {
    return this.#leaves.filter((leaf): leaf is LeafOf<K> => (kinds as readonly string[]).includes(leaf.kind));
  }
}

function kindOf(value: unknown): string {
  if (typeof value === "function") return `the function or class ${value.name || "(anonymous)"}`;
  return Array.isArray(value) ? "an array" : typeof value === "object" && value !== null ? "an object" : String(value);
}

/** What may exist once in a host; null for what may repeat. */
function uniqueName(registration: Registration): string | null {
  switch (registration.kind) {
    case "action":
    case "cron":
    case "plugin":
      return `${registration.kind} "${registration.name}"`;
    case "route":
    case "raw-route":
      return `route "${registration.name}"`;
    case "worker":
      return `worker of queue "${registration.queue}"`;
    case "context-extension":
      return `context extension "${registration.key}"`;
    case "host-extension":
      return `host extension "${registration.key}"`;
    default:
      return null;
  }
}

function circular(path: readonly string[]): MeshConfigurationError {
  const loop = path.slice(path.indexOf(path.at(-1) as string));
  return new MeshConfigurationError(`plugins depend on each other in a circle: ${loop.map((name) => `"${name}"`).join(" → ")}`);
}
