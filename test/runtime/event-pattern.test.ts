import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { createLogger } from "#mesh/logger.js";
import { compilePattern, patternToRegex } from "#mesh/runtime/event-pattern.js";
import { openPostgres } from "#mesh/storage/postgres.js";
import type { Storage } from "#mesh/contract/storage.js";
import { serverUrl } from "../support/database.js";

let storage: Storage;

before(async () => {
  storage = await openPostgres({ url: serverUrl(), log: createLogger({ level: "error" }) });
});

after(() => storage.close());

/** What the words mean, said in the slowest and plainest way. */
function means(pattern: readonly string[], name: readonly string[]): boolean {
  const [first, ...rest] = pattern;
  if (first === undefined) return name.length === 0;
  if (first === "**") return means(rest, name) || (name.length > 0 && means(pattern, name.slice(1)));
  return name.length > 0 && (first === "*" || first === name[0]) && means(rest, name.slice(1));
}

const segment = fc.constantFrom("a", "b", "ab", "A", "x-1", "$y", "__z", "é", "d", "w", "");
const name = fc.array(segment, { minLength: 1, maxLength: 5 }).map((segments) => segments.join("."));
const pattern = fc.array(fc.oneof(segment, fc.constantFrom("*", "**")), { minLength: 1, maxLength: 5 }).map((segments) => segments.join("."));

test("a plain name matches itself and nothing else", () => {
  const matches = compilePattern("order.paid");
  assert.ok(matches("order.paid"));
  for (const other of ["order", "order.paid.twice", "orderXpaid", "Order.paid", ""]) assert.ok(!matches(other), other);
  assert.equal(patternToRegex("order.paid"), null);
});

test("* stands for exactly one segment, ** for any number, none included", () => {
  const cases: [string, string[], string[]][] = [
    ["order.*", ["order.paid"], ["order", "order.paid.late", "orders.paid"]],
    ["*.paid", ["order.paid"], ["paid", "x.order.paid"]],
    ["audit.**", ["audit", "audit.a", "audit.a.b"], ["audits", "x.audit"]],
    ["**.failed", ["failed", "a.failed", "a.b.failed"], ["a.failed.b", "unfailed"]],
    ["a.**.z", ["a.z", "a.b.z", "a.b.c.z"], ["az", "a", "a.b"]],
    ["**", ["a", "a.b.c"], []],
    ["*", ["a"], ["a.b"]],
    ["a.**.**.*", ["a.b", "a.b.c"], ["a"]],
    ["user*", ["user*"], ["users", "user"]],
  ];
  for (const [text, yes, no] of cases) {
    for (const event of yes) assert.ok(compilePattern(text)(event), `${text} takes ${event}`);
    for (const event of no) assert.ok(!compilePattern(text)(event), `${text} refuses ${event}`);
  }
});

test("the predicate means what the words say", () => {
  fc.assert(fc.property(pattern, name, (text, event) => compilePattern(text)(event) === means(text.split("."), event.split("."))), { numRuns: 3_000 });
});

test("Postgres reads the regular expression as the predicate reads the pattern", async () => {
  const pairs = fc.sample(fc.tuple(pattern, name), 3_000).map(([text, event]) => ({ text, event, regex: patternToRegex(text) }));
  const sql = "SELECT CASE WHEN regex IS NULL THEN pattern = name ELSE name ~ regex END AS hit FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS pair (pattern, name, regex, n) ORDER BY n";
  const rows = await storage.query<{ hit: boolean }>(sql, [pairs.map(({ text }) => text), pairs.map(({ event }) => event), pairs.map(({ regex }) => regex)]);
  pairs.forEach(({ text, event, regex }, index) => assert.equal(rows[index]!.hit, compilePattern(text)(event), `${text} as ${regex} on ${event}`));
});

test("punctuation in a pattern stands for itself in Postgres too", async () => {
  const text = String.raw`a+(b)[c]{1}^|?\d.$x.*`;
  const regex = patternToRegex(text);
  const [row] = await storage.query<{ same: boolean; other: boolean }>("SELECT $2 ~ $1 AS same, $3 ~ $1 AS other", [regex, text.replace("*", "z"), "aab1.$x.z"]);
  assert.deepEqual(row, { same: true, other: false });
});

test("many stars against a long name cost no time", () => {
  const matches = compilePattern(`${"**.a.".repeat(20)}**.z`);
  const long = Array.from({ length: 2_000 }, () => "a").join(".");
  const startedAt = performance.now();
  assert.ok(!matches(long));
  assert.ok(performance.now() - startedAt < 200);
});
