import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { Type } from "class-transformer";
import { IsInt, ValidateNested } from "class-validator";
import { Action, describe, MeshValidationError, service, type Context } from "@chimpbase/mesh";
import type * as decorators from "#mesh/service/decorators.js";
import type * as definition from "#mesh/service/definition.js";
import type * as description from "#mesh/service/describe.js";
import type * as validation from "#mesh/service/validation.js";
import { run } from "./running.js";

type Copy = typeof decorators & typeof definition & typeof description & typeof validation;

const root = fileURLToPath(new URL("../../..", import.meta.url));
let directory: string;
let copy: Copy;

// A second copy of the package, in a place where class-transformer cannot be found.
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "mesh-copy-"));
  await writeFile(join(directory, "package.json"), '{"type":"module"}');
  await cp(join(root, "dist"), join(directory, "dist"), { recursive: true });
  await mkdir(join(directory, "node_modules"));
  for (const name of ["class-validator", "reflect-metadata"]) await symlink(join(root, "node_modules", name), join(directory, "node_modules", name));
  const load = async (file: string): Promise<object> => (await import(pathToFileURL(join(directory, "dist/service", file)).href)) as object;
  copy = Object.assign({}, ...(await Promise.all(["decorators.js", "definition.js", "describe.js", "validation.js"].map(load)))) as Copy;
});
after(() => rm(directory, { recursive: true }));

test("a class decorated by one copy of the package is described by another", async () => {
  assert.notEqual(copy.describe, describe);
  class Base { @Action() list() { return "list"; } }
  @copy.Service("users") class Users extends Base { @copy.Action("made") create(_ctx: Context) { return "created"; } }
  for (const descriptor of [describe(Users), copy.describe(Users)]) {
    assert.deepEqual(Object.keys(descriptor.actions), ["list", "made"]);
    assert.equal(await run(descriptor, "made"), "created");
  }
});

test("a definition of one copy is a descriptor and a mixin to another", async () => {
  const theirs = copy.service({ name: "audit", version: 2, settings: { a: 1 }, actions: { trail: { timeoutMs: 5, handler: () => "trail" } }, events: { x: { balanced: true, maxAttempts: 2, handler: () => 1 } }, started: () => 1 });
  const { actions, events, started, ...rest } = describe(theirs);
  assert.deepEqual([rest.name, rest.version, rest.settings, started.length], ["audit", 2, { a: 1 }, 1]);
  assert.deepEqual([actions.trail!.timeoutMs, events.x!.balanced, events.x!.maxAttempts], [5, true, 2]);
  assert.equal(await run(service({ name: "users", mixins: [theirs] }), "trail"), "trail");
});

test("without class-transformer flat classes validate, and nested ones say what is missing", () => {
  class Item { @IsInt() qty!: number; }
  class Flat { @IsInt() n!: number; }
  class Order { @ValidateNested({ each: true }) @Type(() => Item) items!: Item[]; }
  assert.ok(copy.compileParams(Flat, "s")({ n: 1 }) instanceof Flat);
  const validate = copy.compileParams(Order, "s");
  assert.throws(() => validate({ items: [{ qty: 1 }] }), (error) => error instanceof MeshValidationError && error.data[0]?.path === "items.0" && error.data[0].message.includes("class-transformer"));
  assert.ok(validate({ items: [Object.assign(new Item(), { qty: 1 })] }) instanceof Order);
});

test("Symbol.metadata exists once the package is loaded, as the symbol that compilers fall back to", () => {
  if (process.versions.node.startsWith("20.")) assert.equal(Symbol.metadata, Symbol.for("Symbol.metadata"));
  assert.equal(typeof Symbol.metadata, "symbol");
});
