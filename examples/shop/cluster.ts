import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

export interface ShopNode {
  readonly role: string;
  readonly nodeId: string;
  readonly url: string;
  readonly process: ChildProcess;
  readonly exited: Promise<unknown>;
}

/** Starts one node of the shop as a process of its own; resolves when it takes calls. */
export async function startNode(role: string, env: NodeJS.ProcessEnv): Promise<ShopNode> {
  const child = spawn(process.execPath, [fileURLToPath(new URL("./node.js", import.meta.url)), role], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = once(child, "exit");
  const lines = createInterface({ input: child.stdout });
  const ready = new Promise<{ url: string; nodeId: string }>((resolve) => {
    lines.on("line", (line) => {
      const message = JSON.parse(line) as { ready?: string; url: string; nodeId: string; level?: number };
      if (message.ready === role) resolve(message);
      else if ((message.level ?? 0) >= 50) process.stderr.write(`${role}: ${line}\n`);
    });
  });
  const died = exited.then(([code]) => Promise.reject(new Error(`the ${role} node ended with code ${code} before it was ready`)));
  const { url, nodeId } = await Promise.race([ready, died]);
  died.catch(() => undefined);
  return { role, nodeId, url, process: child, exited };
}

/** Asks a node to drain and end; kills it after ten seconds. */
export async function stopNode(node: ShopNode): Promise<void> {
  if (node.process.exitCode !== null || node.process.signalCode !== null) return;
  const timer = setTimeout(() => node.process.kill("SIGKILL"), 10_000);
  node.process.kill("SIGTERM");
  await node.exited;
  clearTimeout(timer);
}
