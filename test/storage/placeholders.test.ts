import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { PlaceholderCache, rewritePlaceholders } from "#mesh/storage/placeholders.js";

const untouched = [
  ["a string", "SELECT 'is it ?1' , 'it''s ?2'"],
  ["an escape string", "SELECT E'it\\'s ?1', e'\\\\?1'"],
  ["a quoted name", 'SELECT "a?1", "b""?2"'],
  ["a line comment", "SELECT 1 -- ?1\n"],
  ["a line comment at the end", "SELECT 1 -- ?1"],
  ["nested comments", "SELECT /* ?1 /* ?2 */ ?3 */ 1"],
  ["a dollar quote", "SELECT $$ ?1 $$, $tag$ ?2 $$ ?3 $tag$"],
  ["the operators of jsonb", "SELECT a ? 'x', a ?| array['y'], a ?& array['z'] FROM t"],
  ["what is never closed", "SELECT '?1"],
  ["dollar placeholders", "SELECT $1, $2"],
] as const;

for (const [what, sql] of untouched) {
  test(`leaves ${what} as it is`, () => assert.equal(rewritePlaceholders(sql), sql));
}

test("rewrites ?1 wherever a value may stand", () => {
  assert.equal(rewritePlaceholders("SELECT ?1::int+?2,(?10)"), "SELECT $1::int+$2,($10)");
  assert.equal(rewritePlaceholders("SELECT a ? ?1, a ?| ?2 FROM t WHERE x=?3"), "SELECT a ? $1, a ?| $2 FROM t WHERE x=$3");
  assert.equal(rewritePlaceholders("SELECT 'x'||?1 -- ?2\n, \"?3\".y, ?4"), "SELECT 'x'||$1 -- ?2\n, \"?3\".y, $4");
});

test("keeps a placeholder apart from the word before it", () => {
  assert.equal(rewritePlaceholders("SELECT 1 LIMIT?1"), "SELECT 1 LIMIT $1");
});

test("does not take a dollar inside a name, or an E at its end, for the start of a quote", () => {
  assert.equal(rewritePlaceholders("SELECT a$b$, ?1, c$b$"), "SELECT a$b$, $1, c$b$");
  assert.equal(rewritePlaceholders("SELECT date'\\', ?1"), "SELECT date'\\', $1");
});

test("rewrites exactly the placeholders of any mix of SQL pieces", () => {
  const inner = fc.string({ unit: fc.constantFrom("a", "?1", " ", "?", "1", "x") });
  const quoted = fc.tuple(inner, fc.constantFrom(["'", "'"], ['"', '"'], ["E'\\'", "'"], ["--", "\n"], ["/*/*", "*/?1*/"], ["$$", "$$"], ["$t$", "$t$"]))
    .map(([text, [open, close]]) => ({ before: `${open}${text}${close}`, after: `${open}${text}${close}` }));
  const plain = fc.constantFrom("SELECT", "a ? b", "a ?| b", "(", ")", "::int", "$1", "1.5", "a$b", "é$1").map((text) => ({ before: text, after: text }));
  const placeholder = fc.integer({ min: 1, max: 200 }).map((n) => ({ before: `?${n}`, after: `$${n}` }));
  fc.assert(
    fc.property(fc.array(fc.oneof(quoted, plain, placeholder)), (pieces) => {
      const join = (side: "before" | "after"): string => pieces.map((piece) => piece[side]).join(" ");
      assert.equal(rewritePlaceholders(join("before")), join("after"));
    }),
    { numRuns: 1000 },
  );
});

test("never fails, whatever the text", () => {
  const text = fc.string({ unit: fc.constantFrom("'", '"', "$", "?", "1", "E", "\\", "-", "/", "*", "\n", "a", " ") });
  fc.assert(fc.property(text, (sql) => assert.equal(rewritePlaceholders(sql).replaceAll(" $", "$").length <= sql.length, true)), { numRuns: 2000 });
});

test("a cache gives the same text, and forgets the oldest when full", () => {
  const cache = new PlaceholderCache();
  for (let i = 0; i < 3_000; i++) assert.equal(cache.rewrite(`SELECT ${i}, ?1`), `SELECT ${i}, $1`);
  assert.equal(cache.rewrite("SELECT 0, ?1"), "SELECT 0, $1");
});
