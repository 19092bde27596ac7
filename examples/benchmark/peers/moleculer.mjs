import { setTimeout as sleep } from "node:timers/promises";
import { newest } from "./newest.mjs";

const { ServiceBroker } = await newest("moleculer");

const ADDER = {
  name: "adder",
  actions: {
    add: ({ params: { a, b } }) => ({ sum: a + b }),
    addLater: async ({ params: { a, b } }) => ({ sum: a + b }),
    echo: ({ params }) => params,
    async slow({ params: { ms } }) {
      await sleep(ms);
      return { sum: 42 };
    },
  },
};

/** Literals, as in most programs: a name put together for each call would have to be hashed for each. */
const ACTIONS = { add: "adder.add", addLater: "adder.addLater", echo: "adder.echo", slow: "adder.slow" };

/**
 * `variant` is `tcp`, or the URL of a broker; behind `tcp:` stands the time limit of a call in ms, of which 0, the default, is none. Over TCP
 * the nodes are listed, so that nothing leaves loopback.
 */
function createBroker({ nodes, index, variant }) {
  const { id: nodeID, port } = nodes[index];
  const urls = nodes.map((node) => `127.0.0.1:${node.port}/${node.id}`);
  const tcp = { type: "TCP", options: { udpDiscovery: false, port, urls } };
  const overTcp = /^tcp(?::(\d+))?$/.exec(variant);
  return new ServiceBroker({ nodeID, logger: false, transporter: overTcp === null ? variant : tcp, requestTimeout: Number(overTcp?.[1] ?? 0) });
}

export async function callee(setup) {
  const broker = createBroker(setup);
  broker.createService(ADDER);
  await broker.start();
  return { stop: () => broker.stop() };
}

export async function caller(setup) {
  const broker = createBroker(setup);
  await broker.start();
  await broker.waitForServices("adder", 20_000);
  return { call: (kind, args) => broker.call(ACTIONS[kind], args), stop: () => broker.stop() };
}

/** `variant` is the time limit of a call in ms; 0, its default, is none. */
export async function local({ variant }) {
  const broker = new ServiceBroker({ logger: false, requestTimeout: Number(variant) });
  broker.createService(ADDER);
  await broker.start();
  return { call: (kind, args) => broker.call(ACTIONS[kind], args), stop: () => broker.stop() };
}

export async function bus(setup) {
  const broker = createBroker(setup);
  let handler = () => undefined;
  const [publisher] = setup.nodes;
  // The publisher is not among those that get what it broadcasts.
  if (setup.index > 0) broker.createService({ name: "news", events: { "bench.news": { context: true, handler: ({ params }) => handler(params) } } });
  await broker.start();
  return {
    add: (message) => broker.broadcast("bench.news", message),
    async consume(take) {
      handler = take;
      await until(() => broker.registry.nodes.get(publisher.id)?.available === true);
      return async () => (handler = () => undefined);
    },
    special: {
      /** Moleculer drops broadcasts for nodes that it does not know yet. */
      ready: ({ receivers }) => until(() => broker.registry.events.getAllEndpoints("bench.news").length >= receivers),
    },
    stop: () => broker.stop(),
  };
}

async function until(condition) {
  const end = Date.now() + 20_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error("Moleculer's nodes have not found each other");
    await sleep(20);
  }
}
