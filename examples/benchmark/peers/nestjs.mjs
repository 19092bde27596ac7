import "reflect-metadata";
import { setTimeout as sleep } from "node:timers/promises";
import { Controller, Module } from "@nestjs/common";
import { NestFactory } from "@nestjs/core";
import { ClientProxyFactory, MessagePattern, Transport } from "@nestjs/microservices";
import { firstValueFrom } from "rxjs";

class AdderController {
  add({ a, b }) {
    return { sum: a + b };
  }

  echo(args) {
    return args;
  }

  async slow({ ms }) {
    await sleep(ms);
    return { sum: 42 };
  }
}

// What the decorators of a TypeScript program do.
Controller()(AdderController);
for (const name of ["add", "echo", "slow"]) {
  MessagePattern(name)(AdderController.prototype, name, Object.getOwnPropertyDescriptor(AdderController.prototype, name));
}
class AppModule {}
Module({ controllers: [AdderController] })(AppModule);

const tcp = ({ nodes: [callee] }) => ({ transport: Transport.TCP, options: { host: "127.0.0.1", port: callee.port } });

export async function callee(setup) {
  const app = await NestFactory.createMicroservice(AppModule, { ...tcp(setup), logger: false });
  await app.listen();
  return { stop: () => app.close() };
}

export async function caller(setup) {
  const client = ClientProxyFactory.create(tcp(setup));
  await client.connect();
  return { call: (kind, args) => firstValueFrom(client.send(kind, args)), stop: async () => client.close() };
}
