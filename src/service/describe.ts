import type { Class, ServiceDescriptor } from "../contract/descriptor.js";
import type { ServiceSource } from "../contract/mesh-client.js";
import { className, isMarked, planOfClass } from "./class-plan.js";
import { compose, type Layer } from "./compose.js";
import { makeInstance, type ServiceBinding } from "./instances.js";
import { linearize, type Source } from "./mixins.js";
import { show } from "./names.js";
import { planOfDefinition } from "./object-plan.js";
import { definitionError, type Plan } from "./plan.js";
import { isPlainObject } from "./settings.js";

export type { ServiceBinding };

type ClassPlan = Plan & { readonly type: Class };

// Memos, keyed by what was described and gone with it.
const descriptors = new WeakMap<object, ServiceDescriptor>();
const origins = new WeakMap<object, Source>();
const clientNames = new WeakMap<object, ReadonlyMap<string, string>>();

/**
 * The frozen descriptor of a class, an instance or a definition; the same one each time. An instance is bound as it is;
 * for a class, and for each class among the mixins, one is made when a handler first runs.
 *
 * Throws `ServiceDefinitionError` naming class and member.
 */
export function describe(source: ServiceSource): ServiceDescriptor {
  const known = isReference(source) ? descriptors.get(source) : undefined;
  if (known !== undefined) return known;
  const root = readSource(source, "describe");
  const descriptor = build(root, lazily);
  descriptors.set(root.identity, descriptor);
  descriptors.set(descriptor, descriptor);
  origins.set(descriptor, root);
  return descriptor;
}

/** `describe` for one host: classes, mixins too, get their instances now, by `resolve` where given. */
export function instantiate(source: ServiceSource, binding: ServiceBinding = {}): ServiceDescriptor {
  // Nothing is constructed for a service that has a mistake in it.
  describe(source);
  return build(readSource(source, "describe"), (plan) => {
    const instance = makeInstance(plan, binding);
    return () => instance;
  });
}

/** Member name → action name of a class, for typed clients. Actions of listed mixins and definitions go by their own names. */
export function actionNames(source: ServiceSource): ReadonlyMap<string, string> {
  const descriptor = describe(source);
  const known = clientNames.get(descriptor);
  if (known !== undefined) return known;
  const names = new Map<string, string>();
  const renamed = new Set<string>();
  for (const { name, code } of readSource(source, "describe").plan.actions.values()) {
    if (code === undefined || "run" in code) continue;
    renamed.add(name);
    if (name === code.member || !names.has(code.member)) names.set(code.member, name);
  }
  for (const name of Object.keys(descriptor.actions)) if (!renamed.has(name) && !names.has(name)) names.set(name, name);
  clientNames.set(descriptor, names);
  return names;
}

function lazily(plan: ClassPlan): () => object {
  let instance: object | undefined;
  return () => (instance ??= makeInstance(plan, {}));
}

function build(root: Source, ownerOf: (plan: ClassPlan) => () => object): ServiceDescriptor {
  const { service, subject, type } = root.plan;
  if (service === null) throw definitionError(subject, type === null ? "a definition needs a name" : "has no @Service: decorate the class with @Service()");
  const layers = linearize(root, readSource).map((source): Layer => ({ plan: source.plan, owner: ownerFor(source, ownerOf) }));
  return compose(layers, service);
}

function ownerFor({ plan, identity, instance }: Source, ownerOf: (plan: ClassPlan) => () => object): () => object {
  // An instance owns its members; the functions of a definition need no owner.
  return instance === null && plan.type !== null ? ownerOf(plan as ClassPlan) : () => identity;
}

function readSource(value: unknown, subject: string): Source {
  if (!isReference(value)) throw definitionError(subject, `expects a class with @Service, an instance of one, or a definition, got ${show(value)}`);
  const origin = origins.get(value);
  if (origin !== undefined) return origin;
  if (typeof value === "function") return { plan: planOfClass(asClass(value, subject)), identity: value, instance: null };
  const type = classOf(value);
  if (type !== null && isMarked(type)) return { plan: planOfClass(type), identity: value, instance: value };
  if (isPlainObject(value)) return { plan: planOfDefinition(value), identity: value, instance: null };
  throw definitionError(subject, `got an instance of ${type === null ? "no class" : className(type)}, which has no @Service: decorate the class`);
}

function asClass(value: object, subject: string): Class {
  if (!isReference((value as { prototype?: unknown }).prototype)) throw definitionError(subject, `expects a class, got the function ${show((value as { name?: unknown }).name)}`);
  return value as Class;
}

function classOf(instance: object): Class | null {
  const prototype: unknown = Object.getPrototypeOf(instance);
  const type: unknown = isReference(prototype) ? (prototype as { constructor?: unknown }).constructor : undefined;
  return typeof type === "function" && isReference(type.prototype) ? (type as Class) : null;
}

function isReference(value: unknown): value is object {
  return (typeof value === "object" && value !== null) || typeof value === "function";
}
