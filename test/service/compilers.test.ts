import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { transformAsync as babel } from "@babel/core";
import { transform as swc } from "@swc/core";
import { transform as esbuild } from "esbuild";
import ts from "typescript";
import { describe, type Class, type ServiceDescriptor } from "@chimpbase/mesh";
import { defines, run, runEvent, runHooks } from "./running.js";

type Compile = (source: string) => Promise<string> | string;

const tsc = (options: ts.CompilerOptions): Compile => (source) =>
  ts.transpileModule(source, { compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, ...options } }).outputText;
const withEsbuild = (experimentalDecorators: boolean, options: object = {}): Compile => async (source) =>
  (await esbuild(source, { loader: "ts", format: "esm", target: "es2022", tsconfigRaw: { compilerOptions: { experimentalDecorators } }, ...options })).code;
const withSwc = (transform: object): Compile => async (source) =>
  (await swc(source, { configFile: false, swcrc: false, isModule: true, jsc: { target: "es2022", parser: { syntax: "typescript", decorators: true }, transform }, module: { type: "es6" } })).code;
const withBabel = (version: "legacy" | "2023-11"): Compile => async (source) => {
  const plugins = [["@babel/plugin-proposal-decorators", { version }]];
  return (await babel(source, { filename: "services.ts", configFile: false, babelrc: false, presets: ["@babel/preset-typescript"], plugins }))!.code!;
};

const LEGACY: Record<string, Compile> = {
  "tsc, legacy": tsc({ experimentalDecorators: true }),
  "tsc, legacy with metadata": tsc({ experimentalDecorators: true, emitDecoratorMetadata: true }),
  "tsc, legacy to ES2017": tsc({ experimentalDecorators: true, target: ts.ScriptTarget.ES2017 }),
  "esbuild, legacy": withEsbuild(true),
  "esbuild, legacy with kept names": withEsbuild(true, { keepNames: true }),
  "swc, legacy": withSwc({ legacyDecorator: true }),
  "swc, legacy with metadata": withSwc({ legacyDecorator: true, decoratorMetadata: true }),
  "Babel, legacy": withBabel("legacy"),
};

const STANDARD: Record<string, Compile> = {
  "tsc, standard": tsc({}),
  "tsc, standard to ES2017": tsc({ target: ts.ScriptTarget.ES2017 }),
  "esbuild, standard": withEsbuild(false),
  "esbuild, standard with kept names": withEsbuild(false, { keepNames: true }),
  "swc, standard of 2022-03": withSwc({ decoratorVersion: "2022-03" }),
  "swc, standard of 2023-11": withSwc({ decoratorVersion: "2023-11" }),
  "Babel, standard of 2023-11": withBabel("2023-11"),
};

interface Services { readonly UsersService: Class; readonly SiblingService: Class; readonly OrdersService: Class; readonly seen: string[] }

const root = fileURLToPath(new URL("../../..", import.meta.url));
let directory: string;

// Inside the package, so that the compiled files resolve its imports.
before(async () => {
  await mkdir(join(root, ".build/fixtures"), { recursive: true });
  directory = await mkdtemp(join(root, ".build/fixtures/decorators-"));
});
after(() => rm(directory, { recursive: true }));

for (const [name, compile] of Object.entries({ ...LEGACY, ...STANDARD })) {
  test(`${name}: services are described and run alike`, async () => {
    const { UsersService, SiblingService, OrdersService, seen } = await load<Services>("services", name, compile);
    const users = describe(UsersService);
    assert.deepEqual(outline(users), EXPECTED_USERS);
    assert.deepEqual(outline(describe(SiblingService)).actions, ["gone", "list", "own", "page"]);
    assert.deepEqual([describe(SiblingService).name, describe(SiblingService).version, describe(OrdersService).name], ["sibling", 1, "orders"]);
    assert.deepEqual(await run(users, "list"), ["base", "users 1"]);
    assert.equal(await run(users, "create", { name: "Ann" }), "hello Ann!");
    assert.equal(await run(users, "page", 2), "page 2");
    await runHooks(users.started);
    await runEvent(users, "flush");
    await runHooks(users.stopped);
    assert.deepEqual(seen, ["open", "users up", "pages", "users", "users close", "base down"]);
  });

  test(`${name}: mistakes are named`, async () => {
    const classes = await load<Record<string, Class>>("mistakes", name, compile);
    for (const [type, parts] of Object.entries(MISTAKES)) assert.throws(() => describe(classes[type]!), defines(...parts), type);
  });
}

for (const [name, compile] of Object.entries({ ...LEGACY, ...STANDARD })) {
  // It compiles no decorators of members with computed names.
  if (name === "Babel, legacy") continue;
  test(`${name}: a member under a symbol is refused`, async () => {
    const { SymbolMember } = await load<{ SymbolMember: Class }>("symbol-member", name, compile);
    assert.throws(() => describe(SymbolMember), defines("SymbolMember.Symbol(hidden)", "symbol"));
  });
}

for (const [name, compile] of Object.entries(STANDARD)) {
  test(`${name}: a private member is refused`, async () => {
    const { PrivateMember } = await load<{ PrivateMember: Class }>("private-member", name, compile);
    assert.throws(() => describe(PrivateMember), defines("PrivateMember", "list", "private"));
  });
}

const EXPECTED_USERS = {
  name: "users", version: 1, settings: { page: { size: 10, max: 50 } }, methods: ["greet"],
  actions: ["audit.trail", "create", "list", "page"], options: { "audit.trail": { name: "audit.trail", timeoutMs: 50 }, create: { name: "create", retry: { attempts: 2 } }, list: { name: "list" }, page: { name: "page" } },
  events: {
    "user.*": { name: "user.*", balanced: false }, flush: { name: "flush", balanced: false },
    "order.paid": { name: "order.paid", balanced: true, group: "billing" }, "order.sent": { name: "order.sent", balanced: false, concurrency: 2 },
  },
  started: 2, stopped: 2,
};

const MISTAKES = {
  StaticMember: ["StaticMember.list", "static"], FieldMember: ["FieldMember.list", "only methods"], GetterMember: ["GetterMember.list", "only methods"],
  BareMember: ["BareMember.list", "parentheses"], TwoActions: ["TwoActions", "first", "second"],
  BareService: ["BareService", "parentheses"], ActionOnClass: ["ActionOnClass", "belongs on a method"], Undecorated: ["Undecorated", "no @Service"],
};

async function load<T>(fixture: string, compiler: string, compile: Compile): Promise<T> {
  const source = await readFile(join(root, "test/fixtures/decorators", `${fixture}.ts`), "utf8");
  const file = join(directory, `${fixture}-${compiler.replace(/[^a-z0-9]+/gi, "-")}.mjs`);
  await writeFile(file, await compile(source));
  return (await import(pathToFileURL(file).href)) as T;
}

/** Compilers differ in the order in which they apply decorators to members, never in what comes out. */
function outline(descriptor: ServiceDescriptor): Record<string, unknown> {
  const plain = (table: Readonly<Record<string, { handler: unknown }>>): unknown => Object.fromEntries(Object.entries(table).map(([name, { handler: _, ...rest }]) => [name, rest]));
  return {
    ...descriptor, methods: Object.keys(descriptor.methods), actions: Object.keys(descriptor.actions).sort(), options: plain(descriptor.actions), events: plain(descriptor.events),
    started: descriptor.started.length, stopped: descriptor.stopped.length,
  };
}
