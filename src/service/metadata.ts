import "reflect-metadata";
import type { Class } from "../contract/descriptor.js";

/**
 * What the decorators leave on a class: one record per class, its own, under one key of the global symbol registry, as
 * plain data with a version, so that two copies of the package read each other's. Legacy decorators write on the
 * constructor, standard ones on the class's metadata object; nothing else differs.
 */
const RECORD = Symbol.for("@chimpbase/mesh/record");
const VERSION = 1;

// Compiled classes ask for the symbol when they are evaluated, and Node 20 has none. tsc, esbuild, swc and Babel fall
// back to this one or find it here.
const METADATA = Symbol.for("Symbol.metadata");
if ((Symbol as { metadata?: symbol }).metadata === undefined) Object.defineProperty(Symbol, "metadata", { value: METADATA });

export type DecoratorName = "Service" | "Action" | "Event" | "Method" | "Started" | "Stopped";

/** One use of a decorator, unchecked: `describe` judges. */
export interface Mark {
  readonly decorator: DecoratorName;
  /** What the decorator stands on: `class`, `method`, `field`, `accessor`, `getter`, `setter` or `parameter`. */
  readonly kind: string;
  /** The class's name as written for a class, else the member. */
  readonly key: PropertyKey | undefined;
  readonly static: boolean;
  readonly private: boolean;
  /** True where the parentheses were forgotten: `@Action create() {}`. */
  readonly bare: boolean;
  readonly args: readonly unknown[];
}

interface ClassRecord {
  readonly version: number;
  readonly marks: Mark[];
}

type Site = Pick<Mark, "kind" | "key" | "static" | "private"> & { readonly owner: object };

/**
 * The decorator that writes `args` down where it is applied. It never throws, wraps or replaces. Undefined where the
 * factory itself was applied, which is what the compiled code must then get to leave the member alone.
 */
export function marker(decorator: DecoratorName, args: readonly unknown[]): ((...application: unknown[]) => void) | undefined {
  const forgotten = findForgottenSite(decorator, args);
  if (forgotten !== null) {
    write(forgotten, decorator, [], true);
    return undefined;
  }
  return (...application) => {
    const site = findSite(application);
    if (site !== null) write(site, decorator, args, false);
  };
}

/** Own marks of a class, in the order in which they were made. */
export function marksOf(type: Class): readonly Mark[] {
  const owners = new Set<unknown>([type]);
  for (const key of [Symbol.metadata, METADATA]) if (Object.hasOwn(type, key)) owners.add((type as unknown as Record<symbol, unknown>)[key]);
  return [...owners].flatMap((owner) => (isObject(owner) ? readRecord(owner)?.marks ?? [] : []));
}

/** Parameter types of a method, where the compiler emitted them. */
export function emittedParameterTypes(prototype: object, key: string): readonly unknown[] {
  const types: unknown = Reflect.getOwnMetadata("design:paramtypes", prototype, key);
  return Array.isArray(types) ? types : [];
}

function write({ owner, ...place }: Site, decorator: DecoratorName, args: readonly unknown[], bare: boolean): void {
  let record = readRecord(owner);
  if (record === undefined) Reflect.defineMetadata(RECORD, (record = { version: VERSION, marks: [] }), owner);
  record.marks.push({ decorator, ...place, bare, args });
}

function readRecord(owner: object): ClassRecord | undefined {
  const record = Reflect.getOwnMetadata(RECORD, owner) as ClassRecord | undefined;
  return record?.version === VERSION ? record : undefined;
}

/** `@Action create() {}` calls the factory as if it were the decorator. A lone function is that for `@Service` only. */
function findForgottenSite(decorator: DecoratorName, args: readonly unknown[]): Site | null {
  const looksApplied = args.length === 3 || (args.length === 2 && isStandardContext(args[1])) || (args.length === 1 && decorator === "Service");
  return looksApplied ? findSite(args) : null;
}

/** Reads the arguments that a decorator was called with; null where they are no application of a decorator. */
function findSite(application: readonly unknown[]): Site | null {
  const [target, second] = application;
  if (application.length === 2 && isStandardContext(second)) return standardSite(second);
  if (!isObject(target)) return null;
  return legacySite(target, second, application[2], application.length);
}

function standardSite(context: DecoratorContext): Site | null {
  if (!isObject(context.metadata)) return null;
  const member = context.kind === "class" ? { static: false, private: false } : { static: context.static, private: context.private };
  return { owner: context.metadata, kind: context.kind, key: context.name, ...member };
}

function legacySite(target: object, key: unknown, third: unknown, count: number): Site | null {
  if (typeof third === "number") return { owner: classOf(target), kind: "parameter", key: memberKey(key) ?? "constructor", static: typeof target === "function", private: false };
  const member = memberKey(key);
  if (member !== undefined) return { owner: classOf(target), kind: memberKind(target, member, third), key: member, static: typeof target === "function", private: false };
  return typeof target === "function" && count === 1 ? { owner: target, kind: "class", key: nameOf(target), static: false, private: false } : null;
}

function memberKey(key: unknown): string | symbol | undefined {
  if (typeof key === "number") return String(key);
  return typeof key === "string" || typeof key === "symbol" ? key : undefined;
}

/** A prototype leads to its class; statics stand on the class itself. */
function classOf(target: object): object {
  const own: unknown = Object.hasOwn(target, "constructor") ? target.constructor : undefined;
  return typeof target !== "function" && typeof own === "function" ? own : target;
}

function memberKind(target: object, key: PropertyKey, given: unknown): string {
  const descriptor = isObject(given) ? (given as PropertyDescriptor) : Object.getOwnPropertyDescriptor(target, key);
  if (descriptor?.get !== undefined || descriptor?.set !== undefined) return "accessor";
  return typeof descriptor?.value === "function" ? "method" : "field";
}

function nameOf(type: object): string | undefined {
  const { name } = type as { name?: unknown };
  return typeof name === "string" ? name : undefined;
}

function isStandardContext(value: unknown): value is DecoratorContext {
  return isObject(value) && typeof (value as { kind?: unknown }).kind === "string" && typeof (value as { addInitializer?: unknown }).addInitializer === "function";
}

function isObject(value: unknown): value is object {
  return (typeof value === "object" && value !== null) || typeof value === "function";
}
