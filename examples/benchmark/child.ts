/** A process under measurement: `child.js FILE ROLE SETUP`. It says `ready`, and then answers each command with its result or error. */
import { pathToFileURL } from "node:url";
import { commands, type Command } from "./commands.js";
import type { Role, Setup } from "./roles.js";

export type Answer = { readonly ready: true } | { readonly id: number; readonly result?: unknown; readonly error?: string };

const [file, role, setup] = process.argv.slice(2) as [string, string, string];
const send = (answer: Answer): boolean | undefined => process.send?.(answer);

const program = (await import(pathToFileURL(file).href)) as Record<string, Role | undefined>;
const start = program[role];
if (start === undefined) throw new Error(`${file} has no role ${role}`);
const running = await start(JSON.parse(setup) as Setup);
const known = commands(running);

process.on("message", ({ id, name, args }: Command) => {
  const command = known[name];
  const result = command === undefined ? Promise.reject(new Error(`no command ${name}`)) : command(args);
  result.then((value) => send({ id, result: value }), (error: Error) => send({ id, error: error.stack ?? String(error) }));
});
const stop = (): void => void running.stop().finally(() => process.exit());
process.once("disconnect", stop);
send({ ready: true });
