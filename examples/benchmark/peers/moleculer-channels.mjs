import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { Middleware } = require("@moleculer/channels");
// The middleware is made for the 0.14 line.
const { ServiceBroker } = require("moleculer");

/** `variant` is the URL of a Redis or NATS server. */
export async function queue({ nodes, index, variant }) {
  // Of this run alone: the broker keeps what an earlier one has left.
  const channel = `bench.work.${nodes[index].id}`;
  const createBroker = (name) => new ServiceBroker({ nodeID: `${nodes[index].id}-${name}`, logger: false, middlewares: [Middleware({ adapter: variant })] });
  const sender = createBroker("sender");
  await sender.start();
  const add = (message) => sender.sendToChannel(channel, message);
  const consume = async (handler) => {
    const receiver = createBroker("receiver");
    receiver.createService({
      name: "work",
      channels: { [channel]: { group: "work", maxInFlight: 500, redis: { startID: "0", readTimeoutInterval: 0 }, handler } },
    });
    await receiver.start();
    return () => receiver.stop();
  };
  let known = false;
  return {
    add,
    consume,
    async load(from, to) {
      // NATS makes the stream when the first receiver starts.
      if (!known) await (await consume(() => undefined))();
      known = true;
      for (let at = from; at <= to; at += 500) {
        await Promise.all(Array.from({ length: Math.min(500, to - at + 1) }, (_, offset) => add({ i: at + offset })));
      }
    },
    async stop() {
      await removed(sender.channelAdapter, channel);
      await sender.stop();
    },
  };
}

/** The broker keeps streams for ever, and may be that of the user's own machine. */
async function removed(adapter, channel) {
  if (adapter.manager !== undefined) await adapter.manager.streams.delete(channel.replaceAll(".", "_")).catch(() => undefined);
  else await adapter.clients.get("Pub")?.del(channel);
}
