import assert from "node:assert/strict";
import { test } from "node:test";
import { MeshConfigurationError, chimpbaseMesh, registerServices, service } from "@chimpbase/mesh";
import { makeHost } from "../support/host.js";

const greeter = service({ name: "greeter", actions: { hello: (_ctx, name: string) => `hello ${name}` } });

test("registerServices registers the mesh with its services and options, and returns the host", async (t) => {
  const { host } = await makeHost(t, { server: false });
  assert.equal(registerServices(host, [greeter], { transport: "local-only" }), host);
  assert.throws(() => host.register(chimpbaseMesh({ services: [greeter], transport: "local-only" })), MeshConfigurationError);
  await host.start();
  assert.equal(await host.mesh.call("v1.greeter.hello", "Ada"), "hello Ada");
  assert.equal(host.mesh.nodeId(), host.nodeId);
});
