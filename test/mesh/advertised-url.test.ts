import assert from "node:assert/strict";
import { hostname } from "node:os";
import { test, type TestContext } from "node:test";
import { service } from "@chimpbase/mesh";
import { defaultAdvertisedUrl, isResolvable, reachProblem } from "#mesh/mesh/advertised-url.js";
import { until } from "../support/wait.js";
import { MeshFixture } from "./mesh-fixture.js";

const loopback = { url: "http://127.0.0.1:3000", address: "127.0.0.1" };
const everywhere = { url: "http://127.0.0.1:3000", address: "0.0.0.0" };
const named = (name: string) => service({ name, actions: { who: (_ctx, _args: undefined, self) => self.nodeId } });

function setHostname(t: TestContext, value: string | undefined): void {
  const before = process.env["HOSTNAME"];
  const set = (name: string | undefined): void => {
    if (name === undefined) delete process.env["HOSTNAME"];
    else process.env["HOSTNAME"] = name;
  };
  set(value);
  t.after(() => set(before));
}

const warnings = (mesh: MeshFixture): string[] => mesh.logs.filter((line) => line.includes('"level":40'));

test("the default is HOSTNAME, else the host's name, with the bound port", () => {
  assert.equal(defaultAdvertisedUrl(everywhere, { HOSTNAME: "pod-1" }), "http://pod-1:3000");
  assert.equal(defaultAdvertisedUrl(everywhere, { HOSTNAME: "fd00::7" }), "http://[fd00::7]:3000");
  assert.equal(defaultAdvertisedUrl(everywhere, {}), `http://${hostname()}:3000`);
  assert.equal(defaultAdvertisedUrl(loopback, { HOSTNAME: "pod-1" }), "http://pod-1:3000");
});

test("the default of a server on a loopback address is that address, unless HOSTNAME is set", () => {
  assert.equal(defaultAdvertisedUrl(loopback, {}), "http://127.0.0.1:3000");
  assert.equal(defaultAdvertisedUrl(loopback, { HOSTNAME: "" }), "http://127.0.0.1:3000");
  assert.equal(defaultAdvertisedUrl({ url: "http://[::1]:3000", address: "::1" }, {}), "http://[::1]:3000");
});

test("an address that peers may not reach is told with the option that changes it", () => {
  assert.match(reachProblem("http://127.0.0.1:3000", loopback) ?? "", /loopback.*set server\.host and advertisedUrl$/);
  assert.match(reachProblem("http://localhost:3000", everywhere) ?? "", /loopback.*set advertisedUrl$/);
  assert.match(reachProblem("http://pod-1:3000", loopback) ?? "", /bound to the loopback address 127\.0\.0\.1.*http:\/\/pod-1:3000.*set server\.host/);
  assert.equal(reachProblem("http://pod-1:3000", everywhere), null);
  assert.equal(reachProblem("http://pod-1:3000", { url: "http://[::1]:3000", address: "::" }), null);
});

test("names and addresses resolve, invented names do not", async () => {
  assert.equal(await isResolvable("http://127.0.0.1:1"), true);
  assert.equal(await isResolvable("http://[::1]:1"), true);
  assert.equal(await isResolvable("http://no-such-node.invalid:1"), false);
});

test("two nodes on one machine that set nothing call each other", async (t) => {
  setHostname(t, undefined);
  await using mesh = await MeshFixture.open();
  const a = await mesh.started([named("first")], { advertisedUrl: undefined as never });
  const b = await mesh.started([named("second")], { advertisedUrl: undefined as never });
  await Promise.all([a.mesh.waitFor("v1.second"), b.mesh.waitFor("v1.first")]);
  assert.equal(await a.mesh.call("v1.second.who"), b.nodeId);
  assert.equal(await b.mesh.call("v1.first.who"), a.nodeId);
});

test("a server on all addresses is not taken for one on loopback", async (t) => {
  setHostname(t, undefined);
  await using mesh = await MeshFixture.open();
  const host = await mesh.started([named("first")], { advertisedUrl: undefined as never }, { server: { host: "0.0.0.0", port: 0 } });
  const [row] = await mesh.query<{ advertised_url: string }>("SELECT advertised_url FROM _chimpbase_mesh_nodes");
  assert.equal(row?.advertised_url, `http://${hostname()}:${new URL(host.url ?? "").port}`);
  assert.deepEqual(warnings(mesh).filter((line) => line.includes("loopback")), []);
});

test("a HOSTNAME that does not resolve is warned of, and the caller is told the address it failed on", async (t) => {
  setHostname(t, "no-such-node.invalid");
  await using mesh = await MeshFixture.open();
  await mesh.started([named("first")], { advertisedUrl: undefined as never });
  await until(() => warnings(mesh).some((line) => line.includes("does not resolve") && line.includes("http://no-such-node.invalid:")));
  const caller = await mesh.started([named("second")]);
  await caller.mesh.waitFor("v1.first");
  await assert.rejects(caller.mesh.call("v1.first.who"), (error: Error) => {
    assert.match(error.message, /no-such-node\.invalid/);
    return true;
  });
});
