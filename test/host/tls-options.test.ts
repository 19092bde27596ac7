import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test, type TestContext } from "node:test";
import { MeshConfigurationError, chimpbaseMesh, createHost, service } from "@chimpbase/mesh";
import { createAuthority } from "../support/certificates.js";
import { hostOn, makeHost } from "../support/host.js";

const authority = createAuthority();
const own = authority.issue();
const other = authority.issue();
// What of a key no message may hold.
const keyText = own.key.split("\n")[1] as string;

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "mesh-tls-test-"));
  await Promise.all([writeFile(join(directory, "cert.pem"), own.cert), writeFile(join(directory, "key.pem"), own.key), writeFile(join(directory, "empty"), "")]);
});
after(() => rm(directory, { recursive: true }));

const inDirectory = (name: string): string => join(directory, name);

function refusal(message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof MeshConfigurationError, String(error));
    assert.match(error.message, message);
    assert.ok(!JSON.stringify([error.message, String(error.cause)]).includes(keyText));
    return true;
  };
}

test("certificate and key are given as PEM text or as files", async (t) => {
  const { host } = await makeHost(t, { server: { port: 0, tls: { cert: inDirectory("cert.pem"), key: inDirectory("key.pem"), ca: authority.ca } } });
  await host.start();
  assert.match(host.url ?? "", /^https:/);
});

const malformed: readonly [string, unknown, RegExp][] = [
  ["no object", true, /"server\.tls" must be an object/],
  ["a string, which may be the key", own.key, /"server\.tls" must be an object/],
  ["no key", { cert: own.cert }, /"server\.tls" needs both "cert" and "key"/],
  ["no certificate", { key: own.key }, /"server\.tls" needs both/],
  ["another key's name", { ...own, passphrase: "x" }, /unknown option "server\.tls\.passphrase"/],
  ["a key in a list", { cert: own.cert, key: [own.key] }, /"server\.tls\.key" must be a string.*an array/],
  ["an empty key", { cert: own.cert, key: "" }, /"server\.tls\.key"/],
];
for (const [what, tls, message] of malformed) {
  test(`server.tls with ${what} is refused by createHost`, () => {
    assert.throws(() => createHost({ database: "postgres://x/y", server: { tls } } as object), refusal(message));
  });
}

const unusable: readonly [string, () => object, RegExp][] = [
  ["a certificate file that is missing", () => ({ ...own, cert: inDirectory("none") }), /"server\.tls\.cert" is neither PEM text nor .*ENOENT: .*none/],
  ["a key file that is missing", () => ({ ...own, key: inDirectory("none") }), /"server\.tls\.key" is neither PEM text nor .*ENOENT \(its value is not shown/],
  ["a key without its first line, taken for a path", () => ({ ...own, key: own.key.split("\n").slice(1).join("\n") }), /"server\.tls\.key" is neither/],
  ["an empty file", () => ({ ...own, ca: inDirectory("empty") }), /"server\.tls\.ca" names the file .*empty without PEM text/],
  ["a key where the certificate belongs", () => ({ ...own, cert: own.key }), /"server\.tls\.cert" holds no certificate/],
  ["a certificate where the key belongs", () => ({ ...own, key: own.cert }), /"server\.tls\.key" holds no private key/],
  ["a damaged certificate", () => ({ ...own, cert: own.cert.replace(/\n.{64}\n/, "\n") }), /"server\.tls\.cert" holds a certificate that cannot be parsed/],
  ["the key of another certificate", () => ({ ...own, key: other.key }), /"server\.tls\.key" holds a key that does not belong to the certificate of option "server\.tls\.cert"/],
  ["a CA that is a key", () => ({ ...own, ca: own.key }), /"server\.tls\.ca" holds no certificate/],
];
for (const [what, tls, message] of unusable) {
  test(`server.tls with ${what} is refused when the host starts`, async () => {
    const { host } = hostOn("postgres://nobody:pw@127.0.0.1:1/none", { server: { port: 0, tls: tls() } } as object);
    await assert.rejects(host.start(), refusal(message));
  });
}

const mesh = (tls: unknown) => chimpbaseMesh({ services: [service({ name: "t" })], meshToken: "MESH_TOKEN", tls } as Parameters<typeof chimpbaseMesh>[0]);

test("the mesh option tls is checked by name, and no message shows a key", () => {
  assert.throws(() => mesh(own.key), refusal(/mesh option tls must be an object/));
  assert.throws(() => mesh({ cert: own.cert }), refusal(/tls\.cert and tls\.key go together/));
  assert.throws(() => mesh({ key: own.key }), refusal(/tls\.cert and tls\.key go together/));
  assert.throws(() => mesh({ cert: own.cert, key: [own.key] }), refusal(/mesh option tls\.key must be PEM text/));
  assert.throws(() => mesh({ rejectUnauthorized: false }), refusal(/unknown option of mesh option tls "rejectUnauthorized"/));
});

async function startWith(t: TestContext, tls: object): Promise<void> {
  const { host } = await makeHost(t, { secrets: { values: { MESH_TOKEN: "t0ken" } } });
  await host.register(mesh(tls)).start();
}

test("files of the mesh option tls are read when the host starts", async (t) => {
  await assert.rejects(startWith(t, { ca: inDirectory("none") }), refusal(/mesh option tls\.ca is neither PEM text nor .*none/));
  await assert.rejects(startWith(t, { ...own, key: other.key }), refusal(/mesh option tls\.key holds a key that does not belong/));
  await startWith(t, { ca: authority.ca, cert: inDirectory("cert.pem"), key: inDirectory("key.pem") });
});
