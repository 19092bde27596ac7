import { checkName, show } from "./names.js";
import { checkActionOptions, checkEventOptions, checkServiceOptions, refuseBalancedOptions, unknownKey } from "./options.js";
import { definitionError, type ActionPart, type AnyFunction, type Code, type EventPart, type Plan } from "./plan.js";
import { copySettings, isPlainObject } from "./settings.js";

const KEYS = ["name", "version", "settings", "mixins", "methods", "actions", "events", "started", "stopped"];

/**
 * Reads a definition, or a descriptor that another copy of the package made: the two have the same keys, and what a
 * descriptor repeats (`name` in its entries, hooks in arrays) is allowed in a definition too.
 */
export function planOfDefinition(definition: Record<string, unknown>): Plan {
  const { name, version = 1, settings = {}, mixins = [], subject } = readHead(definition);
  const actions = readTable(subject, definition, "actions");
  const events = readTable(subject, definition, "events");
  return {
    subject, type: null, mixins,
    service: name === undefined ? null : { name, version },
    settings: copySettings(subject, settings),
    methods: new Map(readTable(subject, definition, "methods").map(([method, code]) => [method, methodCode(subject, method, code)])),
    actions: new Map(actions.filter(isKept).map(([action, entry]) => [action, actionPart(subject, action, entry)])),
    events: events.filter(isKept).map(([event, entry]) => eventPart(subject, event, entry)),
    started: readHooks(subject, definition, "started"),
    stopped: readHooks(subject, definition, "stopped"),
    removedActions: new Set(actions.filter((entry) => !isKept(entry)).map(([action]) => action)),
    removedEvents: new Set(events.filter((entry) => !isKept(entry)).map(([event]) => event)),
  };
}

type Entry = readonly [name: string, value: unknown];

interface Head {
  readonly subject: string;
  readonly name?: string;
  readonly version?: number;
  readonly settings?: unknown;
  readonly mixins?: readonly unknown[];
}

function readHead(definition: Record<string, unknown>): Head {
  const subject = typeof definition.name === "string" ? `service ${show(definition.name)}` : "service({...})";
  const stray = Object.keys(definition).find((key) => !KEYS.includes(key));
  if (stray !== undefined) throw definitionError(subject, unknownKey(`key ${show(stray)}`, stray, KEYS));
  const { name, version, settings, mixins } = definition;
  const { name: _name, ...head } = checkServiceOptions(subject, { version, settings, mixins });
  return { subject, ...head, ...(name === undefined ? {} : { name: checkName(subject, "service", name) }) };
}

function readTable(subject: string, definition: Record<string, unknown>, key: "methods" | "actions" | "events"): Entry[] {
  const table = definition[key];
  if (table === undefined) return [];
  if (!isPlainObject(table)) throw definitionError(subject, `${key} must be a plain object, got ${show(table)}`);
  return Object.entries(table);
}

const isKept = ([, value]: Entry): boolean => value !== false;

function methodCode(service: string, name: string, code: unknown): Code {
  const subject = `${service}, methods.${name}`;
  checkName(subject, "method", name);
  if (!isFunction(code)) throw definitionError(subject, `must be a function, got ${show(code)}`);
  return { run: code };
}

function actionPart(service: string, name: string, entry: unknown): ActionPart {
  const subject = `${service}, actions.${name}`;
  const { code, rest } = readEntry(subject, checkName(subject, "action", name), entry);
  const { name: _name, ...options } = checkActionOptions(subject, rest);
  return { subject, name, code, options };
}

function eventPart(service: string, name: string, entry: unknown): EventPart {
  const subject = `${service}, events.${name}`;
  const { code, rest } = readEntry(subject, checkName(subject, "event", name), entry);
  const { name: _name, balanced, ...options } = checkEventOptions(subject, rest);
  const decided = balanced ?? (code === undefined ? undefined : false);
  if (decided === false) refuseBalancedOptions(subject, options);
  return { subject, name, code, balanced: decided, options };
}

/** A handler, or options with one; without one, the options are laid over what a mixin declares. */
function readEntry(subject: string, name: string, entry: unknown): { code: Code | undefined; rest: Record<string, unknown> } {
  if (isFunction(entry)) return { code: { run: entry }, rest: {} };
  if (!isPlainObject(entry)) throw definitionError(subject, `must be a handler, an object with a handler, or false, got ${show(entry)}`);
  const { handler, ...rest } = entry;
  if (handler !== undefined && !isFunction(handler)) throw definitionError(subject, `handler must be a function, got ${show(handler)}`);
  if (rest.name !== undefined && rest.name !== name) throw definitionError(subject, `has two names: its key and ${show(rest.name)}`);
  return { code: handler === undefined ? undefined : { run: handler }, rest };
}

function readHooks(subject: string, definition: Record<string, unknown>, key: "started" | "stopped"): Code[] {
  const hooks = definition[key];
  if (hooks === undefined) return [];
  return (Array.isArray(hooks) ? (hooks as unknown[]) : [hooks]).map((hook) => {
    if (!isFunction(hook)) throw definitionError(subject, `${key} must be a function or a list of functions, got ${show(hook)}`);
    return { run: hook };
  });
}

function isFunction(value: unknown): value is AnyFunction {
  return typeof value === "function";
}
