import type { ValidationIssue } from "../errors.js";
import type { Class } from "../contract/descriptor.js";

/** What class-validator hands to a rule and to its message. */
export interface RuleArguments {
  readonly targetName: string;
  readonly property: string;
  readonly object: object;
  readonly value: unknown;
  readonly constraints: unknown[];
}

export interface Rule {
  /** Name of the constraint, as it is reported. */
  readonly constraint: string;
  readonly property: string;
  readonly each: boolean;
  readonly constraints: unknown[];
  readonly message: string | ((args: RuleArguments) => string) | undefined;
  readonly validateIf: ((object: unknown, value: unknown) => boolean) | undefined;
  /** Undefined for the rule that a value is nested. */
  readonly validator: { validate(value: unknown, args?: RuleArguments): unknown; defaultMessage?(args?: RuleArguments): string } | undefined;
}

export interface PropertyRules {
  readonly name: string;
  /** All must hold, else the property is not looked at: `@IsOptional`, `@ValidateIf`. */
  readonly conditions: readonly ((object: unknown, value: unknown) => unknown)[];
  readonly rules: readonly Rule[];
  readonly nested: readonly Rule[];
  /** From `@Type` of class-transformer: makes the property's value from plain data. */
  convert: ((value: unknown) => unknown) | undefined;
}

/** Everything known of one DTO class, collected once. Without properties, the class has no rules. */
export interface DtoRules {
  readonly type: Class;
  readonly properties: readonly PropertyRules[];
}

/** An instance with the known properties of `input`. Own properties only are read, so no prototype can be reached. */
export function buildDto({ type, properties }: DtoRules, input: object): object {
  const instance = new (type as new () => Record<string, unknown>)();
  for (const { name, convert } of properties) {
    if (!Object.hasOwn(input, name)) continue;
    const value = (input as Record<string, unknown>)[name];
    instance[name] = convert === undefined ? value : convert(value);
  }
  return instance;
}

/** Checks one input against the rules of its class. Rules of class-validator may be asynchronous, most are not. */
export class DtoCheck {
  readonly issues: ValidationIssue[] = [];
  /** Rules that have not answered yet. */
  readonly pending: Promise<void>[] = [];
  readonly #rulesOf: (type: unknown) => DtoRules | undefined;
  readonly #strip: boolean;

  /** `strip`: unknown properties are removed on the way. */
  constructor(rulesOf: (type: unknown) => DtoRules | undefined, strip: boolean) {
    this.#rulesOf = rulesOf;
    this.#strip = strip;
  }

  run(rules: DtoRules, object: object): void {
    try {
      this.#object(rules, object, "");
    } catch (error) {
      // A rule that throws ends the check; answers still on their way are of no use, and must not go unhandled.
      void Promise.allSettled(this.pending);
      throw error;
    }
  }

  #object(rules: DtoRules, object: object, path: string): void {
    if (this.#strip) stripUnknown(rules, object);
    for (const property of rules.properties) {
      const value = (object as Record<string, unknown>)[property.name];
      // Every condition is asked, as class-validator does: they may have been written to count on it.
      if (!property.conditions.map((holds) => holds(object, value)).every(Boolean)) continue;
      const at = path === "" ? property.name : `${path}.${property.name}`;
      for (const rule of property.rules) this.#rule(rule, object, value, at);
      for (const rule of property.nested) this.#nested(rule, object, value, at);
    }
  }

  #rule(rule: Rule, object: object, value: unknown, path: string): void {
    if (rule.validateIf !== undefined && !rule.validateIf(object, value)) return;
    const args = argumentsOf(rule, object, value);
    const values = rule.each && isCollection(value) ? toArray(value) : [value];
    const answers = values.map((one) => rule.validator!.validate(one, args));
    if (!answers.some(isPromise)) return void (answers.every(Boolean) || this.#report(rule, args, path));
    this.pending.push(Promise.all(answers).then((settled) => void (settled.every(Boolean) || this.#report(rule, args, path))));
  }

  #nested(rule: Rule, object: object, value: unknown, path: string): void {
    if (value === undefined) return;
    if (isCollection(value)) return void this.#items(rule, object, value, path);
    if (!(value instanceof Object)) return void this.#report(rule, argumentsOf(rule, object, value), path);
    const type = (Object.getPrototypeOf(value) as { constructor?: unknown } | null)?.constructor;
    const rules = this.#rulesOf(type);
    if (rules !== undefined) this.#object(rules, value, path);
    else this.issues.push({ path, message: `${rule.property} cannot be checked: it needs class-transformer installed and @Type(() => Class), beside @ValidateNested, with a class that has rules`, constraint: "unknownValue" });
  }

  #items(rule: Rule, object: object, value: Collection, path: string): void {
    const entries = value instanceof Map ? value.entries() : toArray(value).entries();
    for (const [index, item] of entries) this.#nested(rule, object, item, `${path}.${String(index)}`);
  }

  #report(rule: Rule, args: RuleArguments, path: string): void {
    this.issues.push({ path, message: messageOf(rule, args), constraint: rule.constraint });
  }
}

type Collection = readonly unknown[] | ReadonlySet<unknown> | ReadonlyMap<unknown, unknown>;

function isCollection(value: unknown): value is Collection {
  return Array.isArray(value) || value instanceof Set || value instanceof Map;
}

function toArray(value: Collection): unknown[] {
  return Array.from(value instanceof Map ? value.values() : (value as Iterable<unknown>));
}

function isPromise(value: unknown): boolean {
  return typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function";
}

function stripUnknown({ properties }: DtoRules, object: object): void {
  for (const key of Object.keys(object)) {
    if (!properties.some(({ name }) => name === key)) delete (object as Record<string, unknown>)[key];
  }
}

function argumentsOf({ property, constraints }: Rule, object: object, value: unknown): RuleArguments {
  return { targetName: object.constructor.name, property, object, value, constraints };
}

/** The message with class-validator's tokens filled in: `$property`, `$value`, `$target`, `$constraint1` … */
function messageOf({ message, validator }: Rule, args: RuleArguments): string {
  const given = message ?? validator?.defaultMessage?.(args) ?? "";
  const text = typeof given === "function" ? given(args) : given;
  return text.replace(/\$(?:constraint(\d+)|value|property|target)/g, (token, index?: string) => {
    if (index !== undefined) return Number(index) <= args.constraints.length && index !== "0" ? constraintText(args.constraints[Number(index) - 1]) : token;
    if (token === "$property") return args.property;
    if (token === "$target") return args.targetName;
    return ["string", "boolean", "number"].includes(typeof args.value) ? String(args.value) : token;
  });
}

function constraintText(constraint: unknown): string {
  if (Array.isArray(constraint)) return constraint.join(", ");
  return typeof constraint === "symbol" ? String(constraint.description) : String(constraint);
}
