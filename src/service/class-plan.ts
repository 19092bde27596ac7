import type { Class, Settings } from "../contract/descriptor.js";
import { emittedParameterTypes, marksOf, type DecoratorName, type Mark } from "./metadata.js";
import { checkName, show } from "./names.js";
import { checkActionOptions, checkEventOptions, checkServiceOptions, refuseBalancedOptions, type ServiceOptionsFound } from "./options.js";
import { definitionError, type ActionPart, type Code, type EventPart, type Plan } from "./plan.js";
import { copySettings, mergeSettings } from "./settings.js";
import { hasRules } from "./validation.js";

/** A mark on a method that has passed the checks of where it stands. */
interface MemberMark extends Mark {
  readonly key: string;
}

type Member<P> = P & { readonly code: { readonly member: string } };

/** What has been gathered on the way from the base class down. */
interface Gathered {
  service: Plan["service"];
  settings: Settings;
  readonly mixins: unknown[];
  readonly methods: Map<string, { readonly member: string }>;
  readonly actions: Map<string, Member<ActionPart>>;
  events: Member<EventPart>[];
  started: string[];
  stopped: string[];
  readonly removedActions: Set<string>;
  readonly removedEvents: Set<string>;
}

/** Reads a class and its bases, base first. Throws `ServiceDefinitionError` for the first mistake found. */
export function planOfClass(type: Class): Plan {
  const gathered: Gathered = {
    service: null, settings: Object.freeze({}), mixins: [], methods: new Map(), actions: new Map(), events: [],
    started: [], stopped: [], removedActions: new Set(), removedEvents: new Set(),
  };
  for (const level of classChain(type)) readLevel(level, gathered);
  const hooks = (members: readonly string[]): Code[] => members.map((member) => ({ member }));
  return { subject: className(type), type, ...gathered, started: hooks(gathered.started), stopped: hooks(gathered.stopped) };
}

/** True where the class or one of its bases carries any mark. */
export function isMarked(type: Class): boolean {
  return classChain(type).some((level) => marksOf(level).length > 0);
}

export function className(type: Class): string {
  const { name } = type as { name?: unknown };
  return typeof name === "string" && name !== "" ? name : "(anonymous class)";
}

/** The classes of a prototype chain, base first. `type` itself counts even where another class owns its prototype. */
export function classChain(type: Class): Class[] {
  const chain = new Set<Class>([type]);
  for (let prototype: unknown = type.prototype; typeof prototype === "object" && prototype !== null; prototype = Object.getPrototypeOf(prototype)) {
    const own: unknown = Object.hasOwn(prototype, "constructor") ? prototype.constructor : undefined;
    if (typeof own === "function") chain.add(own as Class);
  }
  return [...chain].reverse();
}

function readLevel(level: Class, gathered: Gathered): void {
  const subject = className(level);
  const marks = marksOf(level).filter((mark) => mark.decorator !== "Service").map((mark) => checkMember(subject, mark));
  readService(subject, marksOf(level).filter((mark) => mark.decorator === "Service"), gathered);
  const of = (decorator: DecoratorName): MemberMark[] => marks.filter((mark) => mark.decorator === decorator);
  readActions(level, of("Action"), gathered);
  readEvents(level, of("Event"), gathered);
  readMethods(subject, of("Method"), gathered);
  const started = readHooks(subject, of("Started"));
  const stopped = readHooks(subject, of("Stopped"));
  gathered.started = [...gathered.started.filter((member) => !started.includes(member)), ...started];
  gathered.stopped = [...stopped, ...gathered.stopped.filter((member) => !stopped.includes(member))];
}

function checkMember(subject: string, mark: Mark): MemberMark {
  const at = `@${mark.decorator} on ${subject}${mark.key === undefined || mark.kind === "class" ? "" : `.${String(mark.key)}`}`;
  if (mark.bare) throw definitionError(at, `parentheses are missing: write @${mark.decorator}()`);
  if (mark.kind === "class") throw definitionError(at, `@${mark.decorator} belongs on a method; a class takes @Service`);
  if (mark.static) throw definitionError(at, "a static member cannot be decorated: make it an instance method");
  if (mark.private) throw definitionError(at, "a private member cannot be decorated: drop the #");
  if (typeof mark.key !== "string") throw definitionError(at, "a symbol member cannot be decorated: give the method a name");
  if (mark.kind !== "method") throw definitionError(at, `only methods can be decorated, this is not one (${mark.kind}): write ${mark.key}(…) { … }`);
  return mark as MemberMark;
}

function readService(subject: string, marks: readonly Mark[], gathered: Gathered): void {
  for (const mark of marks) checkServicePlace(subject, mark);
  const [mark, second] = marks;
  if (mark === undefined) return;
  if (second !== undefined) throw definitionError(subject, "has two @Service decorators: keep one");
  const { name, version = 1, settings = {}, mixins = [] } = serviceOptions(subject, mark.args);
  gathered.service = { name: checkName(subject, "service", name === undefined ? defaultName(subject, mark) : name), version };
  gathered.settings = mergeSettings(gathered.settings, copySettings(subject, settings));
  gathered.mixins.push(...mixins);
}

function checkServicePlace(subject: string, mark: Mark): void {
  if (mark.kind !== "class") throw definitionError(`@Service on ${subject}.${String(mark.key)}`, "@Service belongs on the class");
  if (mark.bare) throw definitionError(`@Service on ${subject}`, "parentheses are missing: write @Service()");
}

function serviceOptions(subject: string, args: readonly unknown[]): ServiceOptionsFound {
  const [first] = args;
  if (args.length > 1) throw definitionError(subject, "@Service takes one argument: a name or options");
  return first === undefined ? {} : typeof first === "string" ? { name: first } : checkServiceOptions(`@Service on ${subject}`, first);
}

/** Standard decorators know the name as it was written; compilers may put underscores before the class's own. */
function defaultName(subject: string, mark: Mark): string {
  const written = (typeof mark.key === "string" && mark.key !== "" ? mark.key : subject).replace(/^_+/, "");
  if (written === "(anonymous class)") throw definitionError(subject, 'an anonymous class needs a name: write @Service("name")');
  const bare = written.length > "Service".length && written.endsWith("Service") ? written.slice(0, -"Service".length) : written;
  return bare.charAt(0).toLowerCase() + bare.slice(1);
}

/** A decorated override replaces whatever its base declared; elsewhere the nearest declaration of a name wins. */
function readActions(level: Class, marks: readonly MemberMark[], { actions, removedActions }: Gathered): void {
  for (const { key, args } of marks) {
    const names = [...actions.values()].filter((part) => part.code.member === key).map((part) => part.name);
    for (const name of names) actions.delete(name);
    if (args[0] === false) for (const name of names.length > 0 ? names : [key]) removedActions.add(name);
  }
  const own = new Map<string, Member<ActionPart>>();
  for (const mark of marks) {
    if (mark.args[0] === false) continue;
    const part = actionPart(level, mark);
    const twin = own.get(part.name);
    if (twin !== undefined) throw definitionError(className(level), `two members are the action ${show(part.name)}: ${twin.code.member} and ${mark.key}; rename one with @Action("name")`);
    own.set(part.name, part);
  }
  for (const [name, part] of own) {
    actions.set(name, part);
    removedActions.delete(name);
  }
}

function actionPart(level: Class, { key, args }: MemberMark): Member<ActionPart> {
  const subject = `${className(level)}.${key}`;
  const [first] = args;
  if (args.length > 1) throw definitionError(subject, "@Action takes one argument: a name, options or false");
  const { name = key, ...options } = typeof first === "string" ? { name: first } : first === undefined ? {} : checkActionOptions(subject, first);
  return { subject, name: checkName(subject, "action", name), code: { member: key }, options: withEmittedParams(level, key, options) };
}

/** Events go by member: two members may handle one event, also a base's and a derived one's, and then both run. */
function readEvents(level: Class, marks: readonly MemberMark[], gathered: Gathered): void {
  const { removedEvents } = gathered;
  for (const { key, args } of marks) {
    const names = gathered.events.filter((part) => part.code.member === key).map((part) => part.name);
    gathered.events = gathered.events.filter((part) => part.code.member !== key);
    if (args[0] === false) for (const name of names.length > 0 ? names : [key]) removedEvents.add(name);
  }
  const own = marks.filter(({ args }) => args[0] !== false).map((mark) => eventPart(level, mark));
  for (const part of own) {
    removedEvents.delete(part.name);
    const twin = own.find((other) => other !== part && other.name === part.name && other.code.member === part.code.member);
    if (twin !== undefined) throw definitionError(part.subject, `declares the event ${show(part.name)} twice: keep one`);
  }
  gathered.events = [...gathered.events, ...own];
}

function eventPart(level: Class, { key, args }: MemberMark): Member<EventPart> {
  const subject = `${className(level)}.${key}`;
  const { name = key, balanced = false, ...options } = eventOptions(subject, args);
  if (!balanced) refuseBalancedOptions(subject, options);
  return { subject, name: checkName(subject, "event", name), code: { member: key }, balanced, options: withEmittedParams(level, key, options) };
}

function eventOptions(subject: string, args: readonly unknown[]): ReturnType<typeof checkEventOptions> {
  const [first, second] = args;
  if (args.length > 2) throw definitionError(subject, "@Event takes a name and options");
  if (typeof first !== "string") {
    if (args.length > 1) throw definitionError(subject, `the first of two arguments of @Event is the event name, got ${show(first)}`);
    return first === undefined ? {} : checkEventOptions(subject, first);
  }
  const options = second === undefined ? {} : checkEventOptions(subject, second);
  if (options.name !== undefined) throw definitionError(subject, "@Event has two names: keep one");
  return { ...options, name: first };
}

/** `params` may be left out where the compiler emits parameter types and the second one is a class with rules. */
function withEmittedParams<O extends { readonly params?: unknown }>(level: Class, key: string, options: O): O {
  if (options.params !== undefined) return options;
  const type = emittedParameterTypes(level.prototype as object, key)[1];
  return hasRules(type) ? { params: type, ...options } : options;
}

function readMethods(subject: string, marks: readonly MemberMark[], { methods }: Gathered): void {
  for (const { key } of marks) for (const [name, code] of methods) if (code.member === key) methods.delete(name);
  const own = new Map<string, { readonly member: string }>();
  for (const { key, args } of marks) {
    const [given = key, ...more] = args;
    if (more.length > 0) throw definitionError(`${subject}.${key}`, "@Method takes one argument: a name");
    const name = checkName(`${subject}.${key}`, "method", given);
    const twin = own.get(name);
    if (twin !== undefined) throw definitionError(subject, `two members are the method ${show(name)}: ${twin.member} and ${key}; rename one with @Method("name")`);
    own.set(name, { member: key });
  }
  for (const [name, code] of own) methods.set(name, code);
}

/** Each member once: a decorated override runs where it is declared last. */
function readHooks(subject: string, marks: readonly MemberMark[]): string[] {
  for (const { key, args, decorator } of marks) {
    if (args.length > 0) throw definitionError(`${subject}.${key}`, `@${decorator} takes no arguments`);
  }
  return [...new Set(marks.map(({ key }) => key))];
}
