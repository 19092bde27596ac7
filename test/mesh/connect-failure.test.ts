import assert from "node:assert/strict";
import { test } from "node:test";
import { connectionFailure } from "#mesh/mesh/connect-failure.js";
import { isUndelivered } from "#mesh/mesh/undelivered.js";

const alert = (name: string): Error => Object.assign(new Error(`alert ${name}`), { code: `ERR_SSL_TLSV1_ALERT_${name}` });
const peer = (lastAnswerAt: number) => ({ nodeId: "b", advertisedUrl: "https://b", lastAnswerAt });

// Node can send no alert of its own choice over an established connection, so the rule is asked itself.
for (const name of ["ACCESS_DENIED", "HANDSHAKE_FAILURE", "UNKNOWN_CA", "BAD_CERTIFICATE"]) {
  test(`the alert ${name} on a request that was sent proves that nothing ran only where the peer has never answered`, () => {
    assert.equal(isUndelivered(connectionFailure(peer(-Infinity), alert(name), true)), true);
    const established = connectionFailure(peer(5), alert(name), true);
    assert.equal(isUndelivered(established), false);
    assert.match(established.message, /dropped the connection before it answered: alert/);
    assert.equal(isUndelivered(connectionFailure(peer(5), alert(name), false)), true);
  });
}
