import assert from "node:assert/strict";
import { test } from "node:test";
import { RequestIds } from "#mesh/pipeline/request-ids.js";

test("request ids are unique within a host and between hosts, short, and fit a header", () => {
  const hosts = [new RequestIds(), new RequestIds()];
  const ids = hosts.flatMap((host) => Array.from({ length: 1_000 }, () => host.next()));
  assert.equal(new Set(ids).size, ids.length);
  for (const id of ids) assert.match(id, /^[\w-]{16}-[0-9a-z]{1,3}$/);
});
