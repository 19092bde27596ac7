import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { ScopedContext } from "#mesh/contract/registration.js";
import { until } from "../support/wait.js";
import { PATH, post, RawConnection, RpcNode, type PostOptions } from "./rpc-fixture.js";
import { headersFor, keyId, postSigned, signatureHeader, signatureOf, Signer, type Signed } from "./signing.js";

const SECRET = "a-secret-of-sixteen-bytes-or-more";
const UNAUTHORIZED = '{"ok":false,"error":"unauthorized mesh rpc"}';
const TRACE = `00-${"a".repeat(32)}-${"b".repeat(16)}-01`;

describe("a node that takes signed requests only", () => {
  let node: RpcNode;
  let seen: ScopedContext | undefined;
  let runs = 0;
  const sign = new Signer(SECRET, "b");
  const header = (name: string, value: string): PostOptions => ({ headers: { [name]: value } });

  before(async () => {
    node = await RpcNode.start({ nodeId: "b", tokens: [SECRET], rpcAuth: "signed", server: { maxBodyBytes: 2000, maxInFlight: 100 } });
    node.actions
      .add("v1.t.echo", (ctx, args) => { seen = ctx; runs++; return args; })
      .add("v1.t.fail", () => { throw new Error("broken"); })
      .add("v1.t.hang", () => new Promise(() => undefined));
  });
  after(() => node.close());

  test("answers one, and signs the answer", async () => {
    const reply = await postSigned(node, sign.make());
    assert.deepEqual([reply.status, reply.json, reply.signed], [200, { ok: true, result: 1 }, true]);
    assert.deepEqual(seen!.caller, { nodeId: "c", action: null });
  });

  test("takes a request without timeout, and one with a trace", async () => {
    assert.equal((await postSigned(node, sign.make({ timeout: "" }))).status, 200);
    assert.equal((await postSigned(node, sign.make({ traceparent: TRACE }))).status, 200);
    assert.equal(seen!.meta["traceparent"], TRACE);
  });

  test("takes the trace in the signed body before the one in the header, which anything on the way may set anew", async () => {
    const own = TRACE.replace("a", "c");
    const body = { actionName: "v1.t.echo", args: 1, meta: { traceparent: own } };
    for (const traceparent of [own, TRACE]) {
      assert.equal((await postSigned(node, sign.make({ body, traceparent: own }), header("traceparent", traceparent))).status, 200);
      assert.equal(seen!.meta["traceparent"], own);
    }
  });

  test("refuses the token, and what carries neither", async () => {
    for (const token of [SECRET, "wrong", null]) {
      const reply = await post(node, sign.make().body, { token });
      assert.deepEqual([reply.status, reply.text, reply.headers["x-chimpbase-mesh-signature"]], [401, UNAUTHORIZED, undefined]);
    }
  });

  const changed = (change: Partial<Signed>): ((signed: Signed) => PostOptions) => (signed) => {
    const sig = signatureHeader(signed).split(";").at(-1)!;
    return header("x-chimpbase-mesh-signature", `${signatureHeader({ ...signed, ...change }).split(";").slice(0, -1).join(";")};${sig}`);
  };
  const tampered: readonly [string, (signed: Signed) => PostOptions & { readonly body?: string }][] = [
    ["path", () => ({ path: `${PATH}?x=1` })],
    ["caller", () => header("x-chimpbase-mesh-caller", "d")],
    ["timeout", () => header("x-chimpbase-mesh-timeout", "99999")],
    ["timestamp", changed({ timestamp: Date.now() + 1 })],
    ["nonce", changed({ nonce: 12_345 })],
    ["target", changed({ target: "elsewhere" })],
    ["body hash", changed({ body: "{}" })],
    ["signature", (signed) => header("x-chimpbase-mesh-signature", signatureHeader(signed).replace(/sig=(.)/, (_, first: string) => `sig=${first === "A" ? "B" : "A"}`))],
  ];
  for (const [what, change] of tampered) {
    test(`refuses a request whose ${what} was changed on the way`, async () => {
      const before = runs;
      const signed = sign.make();
      const reply = await postSigned(node, signed, change(signed));
      assert.deepEqual([reply.status, reply.text, reply.headers["x-chimpbase-mesh-signature"]], [401, UNAUTHORIZED, undefined]);
      assert.equal(runs, before);
    });
  }

  test("refuses another body than the one that was signed", async () => {
    const before = runs;
    for (const body of ["", '{"actionName":"v1.t.echo","args":2}', `${sign.make().body} `]) {
      const reply = await postSigned(node, sign.make(), { body });
      assert.deepEqual([reply.status, reply.text, reply.signed], [401, UNAUTHORIZED, true]);
    }
    assert.equal(runs, before);
  });

  test("refuses what has no signature that it could read", async () => {
    const good = signatureHeader(sign.make());
    const bad = ["", "v1", good.replace("v1", "v2"), `${good};x=1`, good.replace(/nonce=\d+/, "nonce=-1"), good.replace(/ts=\d+/, "ts=1e3"), `${good}=`, good.replaceAll(";", "; "), good.toUpperCase()];
    for (const value of bad) assert.equal((await postSigned(node, sign.make(), header("x-chimpbase-mesh-signature", value))).status, 401, value);
    const twice = await postSigned(node, sign.make(), { headers: { "x-chimpbase-mesh-signature": [good, good] } });
    assert.equal(twice.status, 401);
    assert.equal((await postSigned(node, sign.make({ nonce: "9".repeat(16) }))).status, 401);
    assert.equal((await post(node, "{}", { token: null, headers: { "x-chimpbase-mesh-signature": good } })).status, 401);
  });

  test("refuses a key that it does not know", async () => {
    const reply = await postSigned(node, sign.make({ secret: "another" }));
    assert.deepEqual([reply.status, reply.text, reply.signed], [401, UNAUTHORIZED, false]);
    const claimed = sign.make({ secret: "another" });
    const forged = signatureHeader(claimed).replace(keyId("another"), keyId(SECRET));
    assert.equal((await postSigned(node, claimed, header("x-chimpbase-mesh-signature", forged))).status, 401);
  });

  test("lets a request in once, whether its copies come later or at the same time", async () => {
    const before = runs;
    const first = sign.make();
    assert.equal((await postSigned(node, first)).status, 200);
    const again = await postSigned(node, first);
    assert.deepEqual([again.status, again.text, again.signed], [401, UNAUTHORIZED, true]);
    const copied = sign.make();
    const statuses = (await Promise.all(Array.from({ length: 12 }, () => postSigned(node, copied)))).map(({ status }) => status);
    assert.deepEqual(statuses.sort(), [200, ...Array.from({ length: 11 }, () => 401)]);
    assert.equal(runs, before + 2);
  });

  test("takes requests that have overtaken each other, and none that is too old for its memory", async () => {
    const nonces = [20_002, 20_001, 50_000, 49_999, 33_617, 33_616];
    const statuses: number[] = [];
    for (const nonce of nonces) statuses.push((await postSigned(node, sign.make({ caller: "z", nonce }))).status);
    assert.deepEqual(statuses, [200, 200, 200, 200, 200, 401]);
  });

  test("refuses timestamps of more than a minute ago or ahead", async () => {
    const at = async (offsetMs: number): Promise<unknown[]> => {
      const reply = await postSigned(node, sign.make({ timestamp: Date.now() + offsetMs }));
      return [reply.status, reply.signed];
    };
    assert.deepEqual([await at(-50_000), await at(50_000)], [[200, true], [200, true]]);
    assert.deepEqual([await at(-61_000), await at(62_000), await at(-Date.now())], [[401, true], [401, true], [401, true]]);
  });

  test("says so where a request is for another node, and who it is itself", async () => {
    const before = runs;
    const reply = await postSigned(node, sign.make({ target: "its-predecessor" }));
    assert.deepEqual([reply.status, reply.signed], [421, true]);
    const { code, undelivered, retryable, nodeId, data } = reply.json;
    assert.deepEqual({ code, undelivered, retryable, nodeId, data }, { code: "WRONG_NODE", undelivered: true, retryable: true, nodeId: "b", data: { advertisedUrl: node.address.advertisedUrl } });
    assert.equal(runs, before);
  });

  test("signs its refusals too", async () => {
    const status = async (more: Parameters<Signer["make"]>[0]): Promise<unknown[]> => {
      const reply = await postSigned(node, sign.make(more));
      return [reply.status, reply.signed];
    };
    assert.deepEqual(await status({ body: "{" }), [400, true]);
    assert.deepEqual(await status({ body: { actionName: "v1.t.none" } }), [404, true]);
    assert.deepEqual(await status({ body: { actionName: "v1.t.hang" }, timeout: "300" }), [408, true]);
    assert.deepEqual(await status({ timeout: "0" }), [408, true]);
    assert.deepEqual(await status({ body: "x".repeat(3000) }), [413, true]);
    assert.deepEqual(await status({ body: { actionName: "v1.t.fail" } }), [500, true]);
    node.draining = true;
    assert.deepEqual(await status({}), [503, true]);
    node.draining = false;
  });

  test("decides on the signature before the body has come", async () => {
    const headers = Object.entries(headersFor(sign.make({ secret: "another" }))).map(([name, value]) => `${name}: ${value}\r\n`).join("");
    const raw = (await RawConnection.to(node)).send(`POST ${PATH} HTTP/1.1\r\nhost: x\r\n${headers}content-length: 1000000\r\n\r\n`);
    await until(() => raw.received.includes("unauthorized mesh rpc"));
    assert.match(raw.received, /^HTTP\/1\.1 401 /);
    await until(() => raw.closed);
  });

  test("tells in its log what is wrong, of each kind once a minute, and shows no secret and no signature", async (t) => {
    const fresh = await RpcNode.start({ nodeId: "b", tokens: [SECRET], rpcAuth: "signed" });
    t.after(() => fresh.close());
    const stale = sign.make({ timestamp: Date.now() - 100_000 });
    const once = sign.make({ body: { actionName: "v1.t.none" } });
    for (let i = 0; i < 3; i++) {
      await post(fresh, "{}", { token: SECRET });
      await postSigned(fresh, sign.make({ secret: "another" }));
      await postSigned(fresh, sign.make(), header("x-chimpbase-mesh-caller", "d"));
      await postSigned(fresh, sign.make(), { body: "{}" });
      await postSigned(fresh, stale);
      await postSigned(fresh, once);
    }
    const warnings = fresh.logs.map((line) => JSON.parse(line) as Record<string, unknown>);
    assert.deepEqual(warnings.map(({ msg }) => msg), [
      'mesh rpc refused: it is not signed; do all nodes run with rpcAuth: "signed"?',
      "mesh rpc refused: it is signed with a key that meshToken does not name; do all nodes share the secret?",
      "mesh rpc refused: its signature does not fit; something on the way may change path or headers",
      "mesh rpc refused: its body is not the one that was signed",
      "mesh rpc refused: its timestamp is too far from the database's clock",
      "mesh rpc refused: it has been here before",
    ]);
    assert.ok(Math.abs((warnings[4]!["differenceMs"] as number) + 100_000) < 30_000);
    for (const line of fresh.logs) for (const secret of [SECRET, signatureOf(SECRET, ""), signatureHeader(stale).split("sig=")[1]!]) assert.ok(!line.includes(secret));
  });
});

describe("a node that takes tokens", () => {
  test("takes signed requests as well, and signs its answers to them alone", async (t) => {
    const node = await RpcNode.start({ nodeId: "b", tokens: [SECRET] });
    t.after(() => node.close());
    node.actions.add("v1.t.echo", (_ctx, args) => args);
    const sign = new Signer(SECRET, "b");
    const reply = await postSigned(node, sign.make());
    assert.deepEqual([reply.status, reply.signed], [200, true]);
    const plain = await post(node, sign.make().body, { token: SECRET });
    assert.deepEqual([plain.status, plain.headers["x-chimpbase-mesh-signature"]], [200, undefined]);
  });

  test("judges a signed request by its signature alone", async (t) => {
    const node = await RpcNode.start({ nodeId: "b", tokens: [SECRET] });
    t.after(() => node.close());
    assert.equal((await postSigned(node, new Signer("another", "b").make(), { token: SECRET })).status, 401);
    assert.equal((await postSigned(node, new Signer(SECRET, "x").make(), { token: SECRET })).status, 421);
  });
});

test("each key that is listed is known, and no empty one", async (t) => {
  const node = await RpcNode.start({ nodeId: "b", tokens: ["new-secret", "old-secret", ""], rpcAuth: "signed" });
  t.after(() => node.close());
  node.actions.add("v1.t.echo", (_ctx, args) => args);
  const ask = async (secret: string): Promise<unknown[]> => {
    const { status, signed } = await postSigned(node, new Signer(secret, "b", `caller-${secret}`).make());
    return [status, signed];
  };
  assert.deepEqual([await ask("new-secret"), await ask("old-secret"), await ask("")], [[200, true], [200, true], [401, false]]);
});
