import { getMetadataStorage, ValidationTypes } from "class-validator";
import { MeshValidationError, toError, type ValidationIssue } from "../errors.js";
import type { Class, ParamsSchema } from "../contract/descriptor.js";
import type { StandardResult, StandardSchemaV1 } from "../contract/standard-schema.js";
import { hasTransforms, loadClassTransformer, nestedType, PRIMITIVES, type ClassTransformer } from "./class-transformer.js";
import { buildDto, DtoCheck, type DtoRules, type PropertyRules, type Rule } from "./dto.js";
import { MAX_INPUT_DEPTH, nestsDeeperThan } from "./input-depth.js";
import { show } from "./names.js";

/** Compiled `params`: returns what the handler gets, at once or by promise, or throws `MeshValidationError`. */
export type Validator = (input: unknown) => unknown;

/** `subject` names the action or event in messages. */
export function compileParams(params: ParamsSchema, subject: string): Validator {
  const validate = isStandardSchema(params) ? compileSchema(params, subject) : compileClass(params, subject);
  return (input) => {
    if (nestsDeeperThan(input, MAX_INPUT_DEPTH)) throw failure(subject, [rootIssue(`must not nest deeper than ${MAX_INPUT_DEPTH} levels`, "maxDepth")]);
    return validate(input);
  };
}

/** What is wrong with a value given as `params`, or null. */
export function paramsProblem(params: unknown): string | null {
  if (params === undefined) return "option params is undefined: most often a circular import, which would switch validation off";
  if (isStandardSchema(params) || hasRules(params)) return null;
  if (isClass(params)) return `option params: the class ${params.name || "(anonymous)"} has no class-validator rules`;
  return `option params must be a class with class-validator rules or a Standard Schema, got ${show(params)}`;
}

export function hasRules(type: unknown): type is Class {
  return isClass(type) && metadataOf(type).length > 0;
}

function isClass(value: unknown): value is Class {
  return typeof value === "function" && typeof value.prototype === "object" && value.prototype !== null;
}

function isStandardSchema(value: unknown): value is StandardSchemaV1 {
  if ((typeof value !== "object" && typeof value !== "function") || value === null) return false;
  const standard = (value as { "~standard"?: { validate?: unknown } })["~standard"];
  return typeof standard === "object" && standard !== null && typeof standard.validate === "function";
}

function compileSchema(schema: StandardSchemaV1, subject: string): Validator {
  const { vendor } = schema["~standard"];
  const settle = (result: StandardResult<unknown>): unknown => {
    if (result.issues === undefined) return result.value;
    throw failure(subject, result.issues.map((issue) => schemaIssue(issue, vendor)));
  };
  return (input) => {
    const result = schema["~standard"].validate(input);
    return "then" in result ? result.then(settle) : settle(result);
  };
}

/** zod calls the broken rule `code`, valibot `type`. */
function schemaIssue(issue: { readonly message: string; readonly path?: readonly unknown[] | undefined }, vendor: string): ValidationIssue {
  const path = (issue.path ?? []).map((segment) => String(typeof segment === "object" && segment !== null ? (segment as { key: unknown }).key : segment));
  const { code, type } = issue as { code?: unknown; type?: unknown };
  const constraint = [code, type].find((name) => typeof name === "string") as string | undefined;
  return { path: path.join("."), message: issue.message, constraint: constraint ?? vendor };
}

function compileClass(type: Class, subject: string): Validator {
  const make = compileMaker(type);
  const rules = collectRules(type);
  const rulesOf = rulesCache();
  return (input) => {
    if (typeof input !== "object" || input === null || Array.isArray(input)) throw failure(subject, [rootIssue("input must be an object", "isObject")]);
    const instance = attemptMake(() => make.build(input), type, subject);
    const check = new DtoCheck(rulesOf, make.strip);
    check.run(rules, instance);
    const finish = (): object => {
      if (check.issues.length > 0) throw failure(subject, check.issues);
      return instance;
    };
    return check.pending.length === 0 ? finish() : Promise.all(check.pending).then(finish);
  };
}

/** Input that cannot be made into an instance is bad input: a constructor, setter or `@Transform` refused it. */
function attemptMake(build: () => object, type: Class, subject: string): object {
  try {
    return build();
  } catch (error) {
    throw failure(subject, [rootIssue(`cannot be made into ${type.name}: ${toError(error).message}`, "transform")], error);
  }
}

interface Maker {
  readonly build: (input: object) => object;
  /** Instances hold properties without rules, which are to go. */
  readonly strip: boolean;
}

/**
 * Plain data to instances. Where class-transformer would do no more than follow `@Type`, that is done here: its general
 * way takes many times as long. Transforms, discriminators, maps and the like are left to it.
 */
function compileMaker(type: Class): Maker {
  const transformer = loadClassTransformer();
  const reached = new Map<Class, DtoRules>();
  if (transformer === null || (transformer.storage !== null && linkNested(type, transformer.storage, reached))) {
    const rules = reached.get(type) ?? collectRules(type);
    return { build: (input) => buildDto(rules, input), strip: false };
  }
  return { build: (input) => transformer.plainToInstance(type, input), strip: true };
}

/** Fills in `convert` along `@Type`; false where something needs class-transformer itself. */
function linkNested(type: Class, storage: NonNullable<ClassTransformer["storage"]>, reached: Map<Class, DtoRules>): boolean {
  if (reached.has(type)) return true;
  const rules = collectRules(type);
  reached.set(type, rules);
  if (rules.properties.length === 0 || hasTransforms(storage, type)) return false;
  return rules.properties.every((property) => {
    const nested = nestedType(storage, type, property.name);
    if (nested === undefined) return true;
    const primitive = PRIMITIVES.get(nested);
    if (primitive !== undefined) property.convert = eachValue((value) => (typeof value === "object" ? value : primitive(value)));
    else if (isClass(nested) && linkNested(nested, storage, reached)) property.convert = eachValue((value) => (typeof value === "object" ? buildDto(reached.get(nested)!, value) : value));
    else return false;
    return true;
  });
}

function eachValue(convert: (value: NonNullable<unknown>) => unknown): (value: unknown) => unknown {
  return function each(value): unknown {
    if (Array.isArray(value)) return value.map(each);
    return value === undefined || value === null ? value : convert(value);
  };
}

/** Rules of the classes met during a check, by class. */
function rulesCache(): (type: unknown) => DtoRules | undefined {
  const known = new Map<unknown, DtoRules | undefined>();
  return (type) => {
    if (!known.has(type)) known.set(type, hasRules(type) ? collectRules(type) : undefined);
    return known.get(type);
  };
}

type Metadata = ReturnType<ReturnType<typeof getMetadataStorage>["getTargetValidationMetadatas"]>[number];

function metadataOf(type: Class): Metadata[] {
  return getMetadataStorage().getTargetValidationMetadatas(type, "", false, false);
}

function collectRules(type: Class): DtoRules {
  const all = metadataOf(type);
  const names = new Set(all.map((metadata) => metadata.propertyName));
  return { type, properties: [...names].map((name) => propertyRules(name, all.filter((metadata) => metadata.propertyName === name))) };
}

function propertyRules(name: string, all: readonly Metadata[]): PropertyRules {
  const of = (type: string): Metadata[] => all.filter((metadata) => metadata.type === type);
  return {
    name,
    conditions: of(ValidationTypes.CONDITIONAL_VALIDATION).map((metadata) => (metadata.constraints as [PropertyRules["conditions"][number]])[0]),
    rules: [...of(ValidationTypes.IS_DEFINED), ...of(ValidationTypes.CUSTOM_VALIDATION)].flatMap(customRules),
    nested: of(ValidationTypes.NESTED_VALIDATION).map((metadata) => rule(metadata, metadata.type, undefined)),
    convert: undefined,
  };
}

function customRules(metadata: Metadata): Rule[] {
  const constraints = getMetadataStorage().getTargetValidatorConstraints(metadata.constraintCls);
  return constraints.map(({ name, instance }) => rule(metadata, name || metadata.type, instance as Rule["validator"]));
}

function rule(metadata: Metadata, constraint: string, validator: Rule["validator"]): Rule {
  const { propertyName: property, each, constraints, message, validateIf } = metadata;
  return { constraint, property, each, constraints: (constraints ?? []) as unknown[], message: (message || undefined) as Rule["message"], validateIf, validator };
}

const rootIssue = (message: string, constraint: string): ValidationIssue => ({ path: "", message, constraint });

function failure(subject: string, issues: readonly ValidationIssue[], cause?: unknown): MeshValidationError {
  const shown = issues.slice(0, 3).map(({ path, message }) => (path === "" || message.startsWith(path) ? message : `${path}: ${message}`));
  const more = issues.length > shown.length ? ` (and ${issues.length - shown.length} more)` : "";
  return new MeshValidationError(`invalid input for ${subject}: ${shown.join("; ")}${more}`, issues, cause === undefined ? {} : { cause });
}
