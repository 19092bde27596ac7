import assert from "node:assert/strict";
import { test } from "node:test";
import { MeshConfigurationError } from "@chimpbase/mesh";
import { GuardedPaths, type PathRules } from "#mesh/plugins/guarded-paths.js";

const guards = (rules: Partial<PathRules>, path: string): boolean =>
  new GuardedPaths({ protectedPaths: "all", excludePaths: [], ...rules }).guards(path);

test("a protected path is protected with all beneath it, however it is written", () => {
  const rules = { protectedPaths: ["/admin/", "/a b"] };
  for (const path of [
    "/admin", "/admin/", "/admin/users", "/ADMIN", "/Admin/Users", "//admin", "/x/../admin", "/./admin", "/%61dmin", "/%2561dmin", "/admin%2fusers",
    "/x/%2e%2e/admin", "/x/..%2fadmin", "/x%5c..%5cadmin", "/admin//users", "/%41DMIN",
    "/admin/../public", "/%61dmin/..%2fpublic", "/%61dmin/%252e%252e/public", "/a%20b", "/a b/c",
  ]) assert.equal(guards(rules, path), true, path);
  for (const path of ["/", "/administration", "/x/admin", "/adm", "/livez"]) {
    assert.equal(guards(rules, path), false, path);
  }
});

test("what cannot be decoded, or is encoded again and again, is guarded", () => {
  for (const path of ["/%zz", "/%", "/%c0%ae", "/%252525252561"]) assert.equal(guards({ protectedPaths: ["/admin"] }, path), true, path);
});

test("an excluded path is let through only as it is written", () => {
  const rules = { excludePaths: ["/livez", "/public/*", /^\/docs(\/|$)/] };
  for (const path of ["/livez", "/public/a", "/public/a/b", "/docs", "/docs/x"]) assert.equal(guards(rules, path), false, path);
  for (const path of [
    "/LIVEZ", "/livez/", "//livez", "/livez/x", "/livez%2f", "/livez/..", "/public", "/public/../admin", "/public/%2e%2e/admin",
    "/public/..%2fadmin", "/public/%252e%252e/admin", "/public\\..\\admin", "/docs/%2e%2e/admin", "/Docs",
  ]) assert.equal(guards(rules, path), true, path);
});

test("regular expressions with the flags g and y match each time", () => {
  const paths = new GuardedPaths({ protectedPaths: [/^\/admin/g, /\/secret$/gy], excludePaths: [] });
  for (let i = 0; i < 3; i++) assert.equal(paths.guards("/admin/x"), true);
});

test("rules that are no paths are refused", () => {
  assert.throws(() => guards({ protectedPaths: ["admin"] }, "/"), MeshConfigurationError);
  assert.throws(() => guards({ protectedPaths: "some" as never }, "/"), MeshConfigurationError);
  assert.throws(() => guards({ excludePaths: [1 as never] }, "/"), MeshConfigurationError);
});
