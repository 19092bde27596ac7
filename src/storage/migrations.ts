import type { Storage } from "../contract/storage.js";

export function migrate(_storage: Storage): Promise<void> {
  throw new Error("stub");
}
