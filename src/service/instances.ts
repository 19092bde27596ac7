import type { Class } from "../contract/descriptor.js";
import { className } from "./class-plan.js";
import { show } from "./names.js";
import { definitionError, type Code, type Plan } from "./plan.js";

export interface ServiceBinding {
  /** Makes instances, e.g. from a DI container. Default: `new Class()`. */
  readonly resolve?: (type: new () => object) => object;
}

type Constructor = new () => object;

/** `constructor(...args) { super(...args)` or `constructor() { super(...arguments)`. */
const PASSES_ON = /\bconstructor\s*\((?:\.\.\.([\w$]+))?\)\s*\{\s*super\(\.\.\.(?:arguments|\1)\)/;

/** The instance of a class for one service. Throws `ServiceDefinitionError` naming the class where none can be had. */
export function makeInstance(plan: Plan & { readonly type: Class }, { resolve }: ServiceBinding): object {
  const type = plan.type as Constructor;
  const instance = resolve === undefined ? construct(type) : resolveInstance(type, resolve);
  const missing = memberCodes(plan).find((member) => typeof (instance as Record<string, unknown>)[member] !== "function");
  if (missing !== undefined) throw definitionError(className(type), `the instance has no method ${missing}${resolve === undefined ? "" : "; does the option resolve return the right object?"}`);
  return instance;
}

function resolveInstance(type: Constructor, resolve: (type: Constructor) => unknown): object {
  const instance = attempt(type, "the option resolve threw", () => resolve(type));
  if (typeof instance !== "object" || instance === null) throw definitionError(className(type), `the option resolve must return an instance, got ${show(instance)}`);
  if (typeof (instance as { then?: unknown }).then === "function") {
    throw definitionError(className(type), "the option resolve returned a promise: it must return the instance itself, so resolve it before registering");
  }
  return instance;
}

function construct(type: Constructor): object {
  const needed = constructorArity(type);
  if (needed > 0) {
    throw definitionError(className(type), `its constructor needs ${needed} argument${needed === 1 ? "" : "s"}: give the mesh option resolve, e.g. resolve: (type) => container.get(type), or register a ready instance`);
  }
  return attempt(type, "its constructor threw", () => new type());
}

function attempt<T>(type: Class, what: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw definitionError(className(type), `${what}: ${error instanceof Error ? error.message : show(error)}`, error);
  }
}

/**
 * Arguments without a default value. A class without a constructor of its own, or with one that only passes everything
 * on (compiled decorators add such), reports 0: there its base class counts. Bases that are functions, such as
 * EventEmitter, say nothing: their arguments may be optional.
 */
function constructorArity(type: Constructor): number {
  if (type.length > 0) return type.length;
  const base: unknown = Object.getPrototypeOf(type);
  return passesArgumentsOn(type) && typeof base === "function" && sourceOf(base).startsWith("class") ? constructorArity(base as Constructor) : 0;
}

function passesArgumentsOn(type: Constructor): boolean {
  const source = sourceOf(type);
  return source.startsWith("class") && (!/\bconstructor\b/.test(source) || PASSES_ON.test(source));
}

const sourceOf = (type: unknown): string => Function.prototype.toString.call(type);

function memberCodes(plan: Plan): string[] {
  const codes: Code[] = [...plan.methods.values(), ...plan.started, ...plan.stopped];
  for (const part of [...plan.actions.values(), ...plan.events]) if (part.code !== undefined) codes.push(part.code);
  return codes.flatMap((code) => ("member" in code ? [code.member] : []));
}
