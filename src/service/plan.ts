import { ServiceDefinitionError } from "../errors.js";
import type { ActionDescriptor, Class, EventDescriptor, Settings } from "../contract/descriptor.js";

export type AnyFunction = (...args: never[]) => unknown;

/** Where a handler's code is: a member, looked up on the instance at each run so that overrides and spies work, or a function. */
export type Code = { readonly member: string } | { readonly run: AnyFunction };

export type ActionOptions = Omit<ActionDescriptor, "name" | "handler">;
export type EventOptions = Omit<EventDescriptor, "name" | "handler" | "balanced">;

/** One declaration. `subject` names class and member in messages. Without `code` it only changes what a mixin declares. */
export interface ActionPart {
  readonly subject: string;
  readonly name: string;
  readonly code: Code | undefined;
  readonly options: ActionOptions;
}

export interface EventPart {
  readonly subject: string;
  readonly name: string;
  readonly code: Code | undefined;
  readonly balanced: boolean | undefined;
  readonly options: EventOptions;
}

/** What one class (with its bases) or one definition declares, before its listed mixins are merged in. */
export interface Plan {
  readonly subject: string;
  readonly type: Class | null;
  /** Null for a mixin that is no service itself. */
  readonly service: { readonly name: string; readonly version: number } | null;
  readonly settings: Settings;
  readonly mixins: readonly unknown[];
  readonly methods: ReadonlyMap<string, Code>;
  readonly actions: ReadonlyMap<string, ActionPart>;
  readonly events: readonly EventPart[];
  /** Base to derived. */
  readonly started: readonly Code[];
  /** Derived to base. */
  readonly stopped: readonly Code[];
  /** Names that are taken off the mixins. */
  readonly removedActions: ReadonlySet<string>;
  readonly removedEvents: ReadonlySet<string>;
}

export function definitionError(subject: string, problem: string, cause?: unknown): ServiceDefinitionError {
  return new ServiceDefinitionError(`${subject}: ${problem}`, cause === undefined ? {} : { cause });
}
