import assert from "node:assert/strict";
import { test } from "node:test";
import "reflect-metadata";
import { Exclude, Expose, Transform, Type } from "class-transformer";
import {
  Allow, ArrayMinSize, IsArray, IsBoolean, IsDate, IsDefined, IsEmail, IsIn, IsInt, IsOptional, IsString, Length, Matches, Max, Min, getMetadataStorage, registerDecorator,
  ValidateIf, ValidateNested, validateSync, type ValidationError,
} from "class-validator";
import fc from "fast-check";
import * as v from "valibot";
import { z } from "zod";
import { Action, describe, Event, MeshValidationError, Service, type ValidationIssue, type Class, type Context, type ParamsSchema } from "@chimpbase/mesh";
import { compileParams } from "#mesh/service/validation.js";

class Item {
  @IsString() sku!: string;
  @IsInt() @Min(1) qty!: number;
}

class Address {
  @IsString() @Length(2, 20) street!: string;
}

class Order {
  @IsEmail() email!: string;
  @IsArray() @ArrayMinSize(1) @ValidateNested({ each: true }) @Type(() => Item) items!: Item[];
  @IsOptional() @ValidateNested() @Type(() => Address) address?: Address;
  @IsOptional() @IsIn(["low", "high"]) priority = "low";
}

const good = { email: "a@b.io", items: [{ sku: "x", qty: 1 }] };

test("plain input becomes an instance, nested classes too, with defaults, and without unknown properties", () => {
  const order = compileParams(Order, "orders.create")({ ...good, extra: 1, items: [{ sku: "x", qty: 1, extra: 1 }], address: { street: "Main", extra: 1 } }) as Order;
  assert.ok(order instanceof Order && order.items[0] instanceof Item && order.address instanceof Address);
  assert.deepEqual(JSON.parse(JSON.stringify(order)), { email: "a@b.io", items: [{ sku: "x", qty: 1 }], address: { street: "Main" }, priority: "low" });
});

test("every broken rule is listed by path, message and constraint", () => {
  const issues = refused(Order, { email: "nope", items: [{ sku: "x", qty: 1 }, { sku: 1, qty: 0 }], address: { street: "x" } });
  assert.deepEqual(issues, [
    { path: "email", message: "email must be an email", constraint: "isEmail" },
    { path: "items.1.sku", message: "sku must be a string", constraint: "isString" },
    { path: "items.1.qty", message: "qty must not be less than 1", constraint: "min" },
    { path: "address.street", message: "street must be longer than or equal to 2 characters", constraint: "isLength" },
  ]);
});

test("the error names subject and rules", () => {
  assert.throws(() => compileParams(Order, "v1.orders.create")({ email: "x", items: [{}] }), (error: MeshValidationError) =>
    error instanceof MeshValidationError && error.status === 422 && !error.retryable
    && error.message.startsWith("invalid input for v1.orders.create: email must be an email; items.0.sku: ") && error.message.endsWith("(and 1 more)"));
});

test("input that is no object is refused as such", () => {
  for (const input of [null, undefined, [], [good], 1, "x", true]) assert.deepEqual(refused(Order, input), [{ path: "", message: "input must be an object", constraint: "isObject" }]);
});

test("input nested deeper than 64 levels is refused before any rule runs; 64 levels pass", () => {
  let ran = 0;
  class Deep { @Allow() @ValidateIf(() => (ran++, false)) value: unknown; }
  const nest = (levels: number): unknown => JSON.parse('{"value":'.repeat(1) + "[".repeat(levels - 1) + "]".repeat(levels - 1) + "}");
  const validate = compileParams(Deep, "s");
  validate(nest(64));
  assert.equal(ran, 1);
  for (const input of [nest(65), nest(5_000), { value: circular() }]) assert.throws(() => validate(input), (error) => error instanceof MeshValidationError && error.data[0]?.constraint === "maxDepth");
  assert.throws(() => compileParams(z.any(), "s")(nest(65)), MeshValidationError);
  assert.equal(ran, 1);
});

test("input cannot reach a prototype", () => {
  class Open { @Allow() value: unknown; @IsOptional() @ValidateNested() @Type(() => Item) item?: Item; }
  const input = JSON.parse('{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"value":1,"item":{"sku":"x","qty":1,"__proto__":{"qty":5},"constructor":7}}') as object;
  const result = compileParams(Open, "s")(input) as Open & { polluted?: unknown };
  assert.equal(Object.getPrototypeOf(result), Open.prototype);
  assert.equal(result.polluted, undefined);
  assert.deepEqual(Object.keys(result.item!), ["sku", "qty"]);
  assert.equal(({} as { polluted?: unknown }).polluted, undefined);
});

test("nested values of the wrong shape are refused, not thrown over", () => {
  for (const items of [null, 1, "x", [1], [null], [[1]], {}]) assert.ok(refused(Order, { ...good, items }).every(({ path }) => path.startsWith("items")));
});

test("@ValidateNested without @Type says what is missing", () => {
  class Bare { @ValidateNested({ each: true }) items!: Item[]; }
  const [issue] = refused(Bare, { items: [{ sku: "x", qty: 1, constructor: 1 }] });
  assert.equal(issue?.path, "items.0");
  assert.match(issue!.message, /class-transformer.*@Type/);
});

test("@Transform, @Expose, @Exclude, discriminators and plain types are honoured", () => {
  abstract class Shape { @IsString() kind!: string; }
  class Circle extends Shape { @IsInt() radius!: number; }
  class Square extends Shape { @IsInt() side!: number; }
  class Rich {
    @Transform(({ value }) => String(value).trim()) @IsString() name!: string;
    @Expose({ name: "user_age" }) @IsInt() age!: number;
    @Exclude() @IsOptional() @IsString() secret?: string;
    @ValidateNested() @Type(() => Shape, { discriminator: { property: "kind", subTypes: [{ name: "circle", value: Circle }, { name: "square", value: Square }] }, keepDiscriminatorProperty: true })
    shape!: Circle | Square;
  }
  const input = { name: " n ", user_age: 3, secret: "s", shape: { kind: "circle", radius: 2, extra: 1 }, extra: 1 };
  const rich = compileParams(Rich, "s")(input) as Rich;
  assert.ok(rich instanceof Rich && rich.shape instanceof Circle);
  assert.deepEqual(JSON.parse(JSON.stringify(rich)), { name: "n", age: 3, shape: { kind: "circle", radius: 2 } });
  assert.deepEqual(input.shape, { kind: "circle", radius: 2, extra: 1 });
  class Timed { @Type(() => Date) @IsDate() at!: Date; @Type(() => Number) @IsInt({ each: true }) many!: number[]; @IsOptional() @Type(() => Boolean) @IsBoolean() on?: boolean; }
  const timed = compileParams(Timed, "s")({ at: "2026-01-01T00:00:00Z", many: ["1", "2"] }) as Timed;
  assert.equal(timed.at.getTime(), Date.UTC(2026, 0, 1));
  assert.deepEqual(timed.many, [1, 2]);
  assert.deepEqual(refused(Timed, { at: { valueOf: 1, toString: 1 }, many: [{ toString: 1 }] }).map(({ path }) => path), ["at", "many"]);
});

test("a constructor or transform that throws makes the input invalid, with the cause", () => {
  class Broken { @Allow() value: unknown; constructor() { throw new Error("no"); } }
  class Throwing { @Transform(() => { throw new Error("bad"); }) @Allow() value: unknown; }
  assert.deepEqual(refused(Broken, {}), [{ path: "", message: "cannot be made into Broken: no", constraint: "transform" }]);
  assert.deepEqual(refused(Throwing, { value: 1 }), [{ path: "", message: "cannot be made into Throwing: bad", constraint: "transform" }]);
});

test("inherited rules hold, and one rule of a subclass replaces its base's", () => {
  class Base { @IsString() name!: string; @Min(5) @IsInt() age!: number; }
  class Derived extends Base { @IsEmail() email!: string; }
  assert.deepEqual(refused(Derived, { name: 1, age: 1, email: 1 }).map(({ path, constraint }) => `${path} ${constraint}`).sort(), ["age min", "email isEmail", "name isString"]);
});

test("asynchronous rules are awaited, also where a validator returns promises without saying so", async () => {
  const Free = (each: boolean) => (target: object, propertyName: string): void =>
    registerDecorator({ name: "free", target: target.constructor, propertyName, options: { message: "$value of $target.$property is taken", each }, validator: { validate: async (value: unknown) => value !== "taken" } });
  class Claim { @IsString() @Free(false) name!: string; @IsOptional() @Free(true) more?: string[]; }
  const validate = compileParams(Claim, "s");
  const claim = validate({ name: "new" });
  assert.ok(claim instanceof Promise && (await claim) instanceof Claim);
  await assert.rejects(Promise.resolve(validate({ name: "taken", more: ["a", "taken"] })), (error) => error instanceof MeshValidationError
    && error.data.map(({ path, message }) => `${path}: ${message}`).join() === "name: taken of Claim.name is taken,more: $value of Claim.more is taken");
});

test("a rule that throws ends the check with its error, whatever answers are still awaited", async () => {
  const Rule = (validate: () => unknown) => (target: object, propertyName: string): void =>
    registerDecorator({ name: "rule", target: target.constructor, propertyName, validator: { validate: validate as () => boolean } });
  class Faulty { @Rule(() => Promise.reject(new Error("late"))) first: unknown; @Rule(() => { throw new Error("at once"); }) second: unknown; }
  class Late { @Rule(() => Promise.reject(new Error("late"))) first: unknown; @Rule(() => Promise.reject(new Error("later"))) second: unknown; }
  assert.throws(() => compileParams(Faulty, "s")({}), { message: "at once" });
  await assert.rejects(Promise.resolve(compileParams(Late, "s")({})), { message: "late" });
});

test("rules without a promise are answered at once", () => {
  assert.ok(compileParams(Order, "s")(good) instanceof Order);
  assert.deepEqual(compileParams(z.object({ n: z.number() }), "s")({ n: 1, x: 2 }), { n: 1 });
});

test("zod and valibot schemas validate, transform, and report by path", () => {
  const zod = z.object({ items: z.array(z.object({ qty: z.number().min(1) })), page: z.number().default(1) });
  assert.deepEqual(compileParams(zod, "s")({ items: [] }), { items: [], page: 1 });
  assert.deepEqual(refused(zod, { items: [{ qty: 0 }] }).map(({ path, constraint }) => [path, constraint]), [["items.0.qty", "too_small"]]);
  const valibot = v.object({ items: v.array(v.object({ qty: v.pipe(v.number(), v.minValue(1)) })) });
  assert.deepEqual(refused(valibot, { items: [{ qty: 0 }] }).map(({ path, constraint }) => [path, constraint]), [["items.0.qty", "min_value"]]);
  assert.deepEqual(refused(zod, null).map(({ path }) => path), [""]);
});

test("an asynchronous schema is awaited", async () => {
  const schema = z.object({ name: z.string().refine(async (name) => name !== "taken", "taken") });
  assert.deepEqual(await compileParams(schema, "s")({ name: "new" }), { name: "new" });
  await assert.rejects(Promise.resolve(compileParams(schema, "s")({ name: "taken" })), (error) => error instanceof MeshValidationError && error.data[0]?.path === "name");
});

test("any Standard Schema will do; without a code the vendor names the constraint", () => {
  const schema = { "~standard": { version: 1 as const, vendor: "own", validate: (value: unknown) => (value === 1 ? { value: "one" } : { issues: [{ message: "not one", path: [{ key: "a" }, 0] }] }) } };
  assert.equal(compileParams(schema, "s")(1), "one");
  assert.deepEqual(refused(schema, 2), [{ path: "a.0", message: "not one", constraint: "own" }]);
});

test("params may be left out where the second parameter's emitted type is a class with rules", () => {
  class Plain { name!: string; }
  @Service() class Orders {
    @Action() create(_ctx: Context, _order: Order) {}
    @Action() plain(_ctx: Context, _plain: Plain) {}
    @Action() shape(_ctx: Context, _args: { a: number }) {}
    @Action() text(_ctx: Context, _args: string) {}
    @Action({ params: Item }) given(_ctx: Context, _order: Item) {}
    @Event("x") onX(_ctx: Context, _order: Order) {}
  }
  @Service() class More extends Orders { override create(_ctx: Context, _order: Order) {} }
  const { actions, events } = describe(Orders);
  assert.deepEqual([actions.create!.params, actions.plain!.params, actions.shape!.params, actions.text!.params, actions.given!.params, events.x!.params], [Order, undefined, undefined, undefined, Item, Order]);
  assert.equal(describe(More).actions.create!.params, Order);
});

test("rules answer as class-validator itself does", () => {
  class Nested { @IsInt() @Max(3) n!: number; @IsOptional() @Matches(/^[a-z]$/, { message: "$property of $target is $value, not $constraint1" }) c?: string; }
  class Every {
    @IsString({ each: true }) tags!: string[];
    @IsDefined() @IsInt({ message: ({ value, property }) => `${property}=${typeof value}` }) a: unknown;
    @ValidateIf(({ a }: Every) => a === 1) @IsString() b: unknown;
    @IsOptional() @ValidateNested() @Type(() => Nested) one?: Nested;
    @IsOptional() @ValidateNested({ each: true }) @Type(() => Nested) many?: Nested[];
    @IsBoolean({ groups: ["g"] }) grouped: unknown;
  }
  const leaf = fc.oneof(fc.integer({ min: 0, max: 5 }), fc.constantFrom("a", "b", "ab", null, undefined, true));
  const nested = fc.oneof(leaf, fc.record({ n: leaf, c: leaf }, { requiredKeys: [], noNullPrototype: true }));
  const input = fc.record({ tags: fc.oneof(leaf, fc.array(leaf)), a: leaf, b: leaf, one: nested, many: fc.oneof(nested, fc.array(nested)), grouped: leaf, extra: leaf }, { requiredKeys: [], noNullPrototype: true });
  fc.assert(fc.property(input, (plain) => {
    const ours = issuesOf(Every, plain);
    const reference = flatten(validateSync(toInstance(plain), { whitelist: true }));
    assert.deepEqual(sorted(ours), sorted(reference));
  }), { numRuns: 500 });

  function toInstance(plain: object): Every {
    const make = (value: unknown): unknown => (Array.isArray(value) ? value.map(make) : typeof value === "object" && value !== null ? Object.assign(new Nested(), value) : value);
    const { one, many, ...rest } = plain as { one?: unknown; many?: unknown };
    return Object.assign(new Every(), rest, { one: make(one), many: make(many) });
  }
});

test("rules are collected once a class, so that validation costs the same however many DTO classes there are", (t) => {
  const validate = compileParams(Order, "s");
  validate(good);
  const lookup = t.mock.method(getMetadataStorage(), "getTargetValidationMetadatas");
  for (let i = 0; i < 10; i++) validate(good);
  assert.equal(lookup.mock.callCount(), 0);
});

function refused(params: ParamsSchema, input: unknown): readonly ValidationIssue[] {
  try {
    compileParams(params, "s")(input);
  } catch (error) {
    if (error instanceof MeshValidationError) return error.data;
    throw error;
  }
  throw new Error("was not refused");
}

function issuesOf(params: Class, input: unknown): readonly ValidationIssue[] {
  try {
    compileParams(params, "s")(input);
    return [];
  } catch (error) {
    if (error instanceof MeshValidationError) return error.data;
    throw error;
  }
}

function flatten(errors: readonly ValidationError[], prefix = ""): ValidationIssue[] {
  return errors.flatMap(({ property, constraints, children }) => [
    ...Object.entries(constraints ?? {}).map(([constraint, message]) => ({ path: prefix + property, message, constraint })),
    ...flatten(children ?? [], `${prefix}${property}.`),
  ]);
}

const sorted = (issues: readonly ValidationIssue[]): string[] => issues.map(({ path, message, constraint }) => `${path}|${message}|${constraint}`).sort();

function circular(): object {
  const value: Record<string, unknown> = {};
  value.self = value;
  return value;
}
