/** All that holds for calls by POST holds for calls on wires: the same tests, with wires between the nodes. */
import { fixtureDefaults } from "./rpc-fixture.js";

fixtureDefaults.wire = true;
await import("./rpc-client.test.js");
