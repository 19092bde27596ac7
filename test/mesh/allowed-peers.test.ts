import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { MeshConfigurationError } from "@chimpbase/mesh";
import { parseAdvertisedUrl } from "#mesh/mesh/advertised-url.js";
import { AllowedPeers, type Verdict } from "#mesh/mesh/allowed-peers.js";

/** As a row's URL passes: what does not parse is called by nobody, whatever the list says. */
function judge(entries: readonly string[], text: string): Verdict | "unusable" {
  const parsed = parseAdvertisedUrl(text);
  return "fault" in parsed ? "unusable" : new AllowedPeers(entries).judge(parsed.url);
}

type Row = readonly [entries: readonly string[], url: string, verdict: Verdict | "unusable"];

const table: Readonly<Record<string, readonly Row[]>> = {
  "a name": [
    [["api"], "http://api:3000", "allowed"],
    [["api"], "https://api", "allowed"],
    [["api"], "http://api/below/a/path", "allowed"],
    [["API"], "http://Api", "allowed"],
    [["api"], "http://API", "allowed"],
    [["api"], "http://api2", "refused"],
    [["api"], "http://xapi", "refused"],
    [["api"], "http://api.evil.com", "refused"],
    [["api"], "http://evil.com/api", "refused"],
    [["api", "other_1-x"], "http://other_1-x", "allowed"],
    [["bücher.example"], "http://xn--bcher-kva.example", "allowed"],
    [["xn--bcher-kva.example"], "http://BÜCHER.example", "allowed"],
    [["api"], "http://аpi", "refused"],
    [["api"], "http://ａｐｉ", "allowed"],
    [["api"], "http://%61pi", "allowed"],
    [["api"], "http://api.", "refused"],
    [["localhost"], "http://localhost.", "refused"],
    [["localhost"], "http://127.0.0.1", "refused"],
    [["localhost"], "http://localhost.evil.com", "refused"],
  ],
  "a pattern": [
    [["*.mesh.internal"], "http://a.mesh.internal", "allowed"],
    [["*.mesh.internal"], "http://a.b.c.mesh.internal", "allowed"],
    [["*.Mesh.Internal"], "http://A.MESH.internal", "allowed"],
    [["*.mesh.internal"], "http://mesh.internal", "refused"],
    [["*.mesh.internal"], "http://.mesh.internal", "refused"],
    [["*.mesh.internal"], "http://a..mesh.internal", "refused"],
    [["*.mesh.internal"], "http://amesh.internal", "refused"],
    [["*.mesh.internal"], "http://a.mesh.internal.evil.com", "refused"],
    [["*.mesh.internal"], "http://a.mesh.internal.", "refused"],
    [["*.mesh.internal"], "http://evil.com/a.mesh.internal", "refused"],
    [["*.mesh.internal"], "http://evil.com#a.mesh.internal", "unusable"],
    [["*.mesh.internal"], "http://evil.com?a.mesh.internal", "unusable"],
    [["*.internal"], "http://10.0.0.1", "refused"],
    [["*"], "http://anything.at.all", "allowed"],
    [["*"], "http://10.0.0.1", "allowed"],
    [["*"], "http://[::1]", "allowed"],
    [["*"], "ftp://api", "unusable"],
  ],
  "an address": [
    [["127.0.0.1"], "http://127.0.0.1:3000", "allowed"],
    [["127.0.0.1"], "http://127.0.0.2", "refused"],
    [["127.0.0.1"], "http://2130706433", "allowed"],
    [["127.0.0.1"], "http://0x7f.1", "allowed"],
    [["127.0.0.1"], "http://0177.0.0.1", "allowed"],
    [["127.0.0.1"], "http://127.0.0.1.", "allowed"],
    [["127.0.0.1"], "http://[::ffff:127.0.0.1]", "allowed"],
    [["127.0.0.1"], "http://[::ffff:7f00:1]", "allowed"],
    [["127.0.0.1"], "http://[::127.0.0.1]", "refused"],
    [["127.0.0.1"], "http://0.0.0.0", "refused"],
    [["::1"], "http://[::1]:3000", "allowed"],
    [["::1"], "http://[0:0:0:0:0:0:0:1]", "allowed"],
    [["[::1]"], "http://[::1]", "allowed"],
    [["::1"], "http://127.0.0.1", "refused"],
    [["::1"], "http://[::1%25lo]", "unusable"],
    [["::ffff:10.0.0.1"], "http://10.0.0.1", "allowed"],
    [["fe80::1"], "http://[fe80::1%eth0]", "unusable"],
  ],
  "a range": [
    [["10.0.0.0/8"], "http://10.255.0.1:80", "allowed"],
    [["10.0.0.0/8"], "http://11.0.0.1", "refused"],
    [["10.0.0.0/8"], "http://167772161", "allowed"],
    [["10.0.0.0/8"], "http://0xa.0.0.1", "allowed"],
    [["10.0.0.0/8"], "http://012.0.0.1", "allowed"],
    [["10.0.0.0/8"], "http://010.0.0.1", "refused"],
    [["10.0.0.0/8"], "http://[::ffff:10.1.2.3]", "allowed"],
    [["10.0.0.0/8"], "http://[::ffff:11.1.2.3]", "refused"],
    [["10.0.0.0/8"], "http://[::a00:1]", "refused"],
    [["::ffff:10.0.0.0/104"], "http://10.9.9.9", "allowed"],
    [["::ffff:10.0.0.0/104"], "http://11.9.9.9", "refused"],
    [["fd00::/8"], "http://[fd12:3456::1]", "allowed"],
    [["[fd00::/8]"], "http://[fd12:3456::1]:3000", "allowed"],
    [["fd00::/8"], "http://[fe80::1]", "refused"],
    [["::/0"], "http://10.0.0.1", "refused"],
    [["::/0"], "http://[::ffff:10.0.0.1]", "refused"],
    [["0.0.0.0/0"], "http://[fd00::1]", "refused"],
    [["0.0.0.0/0"], "http://169.254.169.254", "allowed"],
    [["10.0.0.0/8"], "http://169.254.169.254", "refused"],
  ],
  "a name that only its address may allow": [
    [["10.0.0.0/8"], "http://api", "by-address"],
    [["10.0.0.0/8"], "http://10.0.0.1.evil.com", "by-address"],
    [["10.0.0.0/8"], "http://localhost.", "by-address"],
    [["api", "10.0.0.0/8"], "http://api", "allowed"],
    [["https://10.0.0.0/8"], "http://api", "refused"],
    [["10.0.0.0/8:3000"], "http://api:3001", "refused"],
    [["10.0.0.0/8"], "http://1.2.3.4.5", "unusable"],
  ],
  "scheme and port": [
    [["https://api"], "https://api:8443", "allowed"],
    [["https://api"], "http://api", "refused"],
    [["HTTPS://api"], "https://api", "allowed"],
    [["http://api"], "https://api", "refused"],
    [["https://*"], "https://10.0.0.1:1", "allowed"],
    [["https://*"], "http://10.0.0.1:1", "refused"],
    [["api:3000"], "http://api:3000", "allowed"],
    [["api:3000"], "http://api", "refused"],
    [["api:80"], "http://api", "allowed"],
    [["api:80"], "https://api", "refused"],
    [["api:443"], "https://api", "allowed"],
    [["https://*.mesh.internal:8443"], "https://a.mesh.internal:8443", "allowed"],
    [["https://*.mesh.internal:8443"], "https://a.mesh.internal", "refused"],
    [["[::1]:3000"], "http://[::1]:3000", "allowed"],
    [["[::1]:3000"], "http://[::1]:3001", "refused"],
    [["[fd00::/8]:3000"], "http://[fd00::1]:3000", "allowed"],
    [["[fd00::]/8:3000"], "http://[fd00::1]:3001", "refused"],
  ],
  "a URL that hides where it leads": [
    [["api"], "http://api@evil.com", "unusable"],
    [["api"], "http://api:3000@evil.com", "unusable"],
    [["api"], "http://user:pass@api", "unusable"],
    [["api"], "http://evil.com#@api", "unusable"],
    [["api"], "http://evil.com?@api", "unusable"],
    [["api"], "http://evil.com\\@api", "refused"],
    [["evil.com"], "http://evil.com\\@api", "allowed"],
    [["api"], "http://evil.com/@api", "refused"],
    [["api"], "http:\\\\evil.com", "refused"],
    [["api"], "http:evil.com", "refused"],
    [["api"], "http:///evil.com/api", "refused"],
    [["api"], "//api", "unusable"],
    [["api"], "javascript:api", "unusable"],
    [["api"], "file://api/etc/passwd", "unusable"],
    [["api"], " http://api", "allowed"],
    [["api"], "ht\ntp://ap\ti", "allowed"],
    [["api"], "http://api\0.evil.com", "unusable"],
    [["api"], "http://api%00.evil.com", "unusable"],
    [["api"], "http://evil%2ecom", "refused"],
    [["api"], "http://api%2eevil.com", "refused"],
    [["api"], "http://api。evil.com", "refused"],
  ],
};

for (const [what, rows] of Object.entries(table)) {
  describe(what, () => {
    for (const [entries, url, verdict] of rows) {
      test(`${JSON.stringify(url)} is ${verdict} where ${entries.join(", ")} may be called`, () => assert.equal(judge(entries, url), verdict));
    }
  });
}

describe("an address that a name resolves to", () => {
  const list = new AllowedPeers(["api", "10.0.0.0/8", "https://fd00::/8"]);
  const rows: readonly (readonly [string, string, boolean])[] = [
    ["http://x", "10.1.2.3", true],
    ["http://x", "::ffff:10.1.2.3", true],
    ["http://x", "127.0.0.1", false],
    ["http://x", "::ffff:127.0.0.1", false],
    ["https://x", "fd00::1", true],
    ["http://x", "fd00::1", false],
    ["https://x", "fd00::1%eth0", false],
    ["http://x", "api", false],
    ["http://x", "", false],
  ];
  for (const [url, address, allowed] of rows) {
    test(`${JSON.stringify(address)} is ${allowed ? "" : "not "}allowed for ${url}`, () => assert.equal(list.allowsAddress(url, address), allowed));
  }
});

const wrong = [
  "", " ", "api ", "a b", "api/", "api/path", "https://api/", "ftp://api", "://api", "api:", "api:0", "api:65536", "api:http", "api:080", "user@api",
  "https://user:s3cret@api", "api.", ".api", "a..b", "*api", "a.*", "*.", "**", "*.*.x", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/x", "10.0.0/8", "10.0.0.0/-1",
  "300.0.0.1", "fd00::/129", "::ffff:10.0.0.0/95", "fe80::1%eth0", "[10.0.0.1]", "[::1", "::1]", "[::1]x", "fd00::/8:3000", "2130706433", "0x7f.1", "*.0.0.1",
  "api#x", "api?x", "api\\x", "%61pi", "api\0",
];
for (const entry of wrong) {
  test(`the entry ${JSON.stringify(entry)} is refused by name, with the forms that there are`, () => {
    assert.throws(() => new AllowedPeers(["ok", entry]), (error: Error) => {
      assert.ok(error instanceof MeshConfigurationError);
      assert.ok(error.message.includes(entry.includes("@") ? "…@…" : JSON.stringify(entry)));
      assert.match(error.message, /allowedPeers.*"\*\.mesh\.internal".*"10\.0\.0\.0\/8"/);
      assert.doesNotMatch(error.message, /s3cret/);
      return true;
    });
  });
}
