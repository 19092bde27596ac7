import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { chimpbaseAuth, chimpbaseMesh, route, service, type Registration } from "@chimpbase/mesh";
import { post, type RawReply } from "../mesh/rpc-fixture.js";
import { makeHost } from "../support/host.js";

const mesh = (): Registration => chimpbaseMesh({
  services: [service({ name: "math", version: 1, actions: { add: async (_ctx, { a, b }: { a: number; b: number }) => a + b } })],
  meshToken: "MESH_TOKEN", advertisedUrl: "http://127.0.0.1:0",
});
const auth = (): Registration => chimpbaseAuth({ bootstrapKeySecret: "BOOT", protectedPaths: "all", excludePaths: ["/livez", "/readyz"] });
const hello = route("hello", (request) => (new URL(request.url).pathname === "/hello" ? new Response("hello") : null));
const call = { actionName: "v1.math.add", args: { a: 1, b: 2 } };

async function started(t: TestContext, ...registrations: Registration[]): Promise<(body: unknown, token: string | null, headers?: Record<string, string>, path?: string) => Promise<RawReply>> {
  const { host } = await makeHost(t, { secrets: { values: { MESH_TOKEN: "t0ken", BOOT: "boot-key" } } });
  host.register(...registrations);
  await host.start();
  const port = Number(new URL(host.url as string).port);
  return (body, token, headers = {}, path) => post({ port }, body, { token, headers, ...(path === undefined ? {} : { path }) });
}

const refusedByGuard = { ok: false, error: "unauthorized", code: "UNAUTHORIZED" };
const refusedByMesh = { ok: false, error: "unauthorized mesh rpc" };

test("before the guard, the mesh route answers without a key; other routes stay guarded", async (t) => {
  const send = await started(t, mesh(), auth(), hello);
  assert.deepEqual((await send(call, "t0ken")).json, { ok: true, result: 3 });
  const refused = await send(call, "wrong");
  assert.deepEqual([refused.status, refused.json], [401, refusedByMesh]);
  // A key of the guard is no token of the mesh.
  assert.deepEqual((await send(call, null, { "x-api-key": "boot-key" })).json, refusedByMesh);
  assert.deepEqual((await send("", "t0ken", {}, "/hello")).json, refusedByGuard);
  assert.equal((await send("", null, { "x-api-key": "boot-key" }, "/hello")).text, "hello");
});

test("after the guard, the mesh route is reached with a key only, and still asks for its token", async (t) => {
  const send = await started(t, auth(), mesh(), hello);
  const refused = await send(call, "t0ken");
  assert.deepEqual([refused.status, refused.json], [401, refusedByGuard]);
  assert.deepEqual((await send(call, "t0ken", { "x-api-key": "boot-key" })).json, { ok: true, result: 3 });
  assert.deepEqual((await send(call, "t0ken", { authorization: "Bearer boot-key" })).json, { ok: true, result: 3 });
  assert.deepEqual((await send(call, "wrong", { "x-api-key": "boot-key" })).json, refusedByMesh);
  assert.deepEqual([(await send("x".repeat(2 * 1024 ** 2), "t0ken")).status, (await send("x".repeat(2 * 1024 ** 2), "t0ken", { "x-api-key": "boot-key" })).status], [401, 413]);
});
