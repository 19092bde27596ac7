import type { Duplex } from "node:stream";
import { now } from "../pipeline/deadline.js";
import { UpgradeRefusedError } from "./peer-pool.js";
import { CallerWire, type CallerWireOptions } from "./wire-caller.js";
import { setUpForLines } from "./wire-writer.js";

export interface WireLinkOptions extends Omit<CallerWireOptions, "onEnd"> {
  /** Makes the connection, and gives it up where `signal` is aborted. Rejects with `UpgradeRefusedError` where the peer answers with none. */
  readonly connect: (signal: AbortSignal) => Promise<Duplex>;
  /** Time for connection and upgrade. */
  readonly timeoutMs: number;
}

/** Where a wire cannot be made, as behind a proxy that lets no upgrade through, POST does for that long. */
const REFUSED_PAUSE_MS = 30_000;
/** After wires that broke soon, or could not be made for another reason, pauses grow from the first to the last. */
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 30_000;
/** A wire that has lived that long was a good one: what ended it may be over. */
const GOOD_AFTER_MS = 5_000;

/** The one wire to a peer. It is made beside the calls, which go by POST as long as there is none. */
export class WireLink {
  readonly #options: WireLinkOptions;
  #wire: CallerWire | null = null;
  #making: AbortController | null = null;
  #closed = false;
  #notBefore = 0;
  #breaks = 0;

  constructor(options: WireLinkOptions) {
    this.#options = options;
  }

  /** The wire for another request; null where there is none that could take it. Then one is made, if it is time to try. */
  open(): CallerWire | null {
    if (this.#wire !== null) return this.#wire.isOpen ? this.#wire : null;
    if (this.#making === null && !this.#closed && now() >= this.#notBefore) void this.#make();
    return null;
  }

  /** Requests under way on the wire. */
  get size(): number {
    return this.#wire?.size ?? 0;
  }

  probe(): void {
    this.#wire?.probe();
  }

  /** For good. What is under way fails. */
  close(): void {
    this.#closed = true;
    this.#making?.abort();
    this.#wire?.destroy(new Error("this node has closed the wire"));
  }

  async #make(): Promise<void> {
    const making = (this.#making = new AbortController());
    const limit = setTimeout(() => making.abort(), this.#options.timeoutMs);
    try {
      const socket = await this.#options.connect(making.signal);
      if (making.signal.aborted) socket.destroy();
      else this.#use(socket);
    } catch (error) {
      // The calls, which go by POST, will tell what is wrong with the peer, if it is not just the upgrade.
      if (error instanceof UpgradeRefusedError) this.#notBefore = now() + REFUSED_PAUSE_MS;
      else this.#pauseLonger();
    } finally {
      clearTimeout(limit);
      this.#making = null;
    }
  }

  #use(socket: Duplex): void {
    setUpForLines(socket);
    const madeAt = now();
    this.#wire = new CallerWire(socket, {
      ...this.#options,
      onEnd: () => {
        this.#wire = null;
        if (now() - madeAt >= GOOD_AFTER_MS) this.#breaks = 0;
        this.#pauseLonger();
        this.#options.onIdle();
      },
    });
  }

  #pauseLonger(): void {
    this.#notBefore = now() + Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** this.#breaks++);
  }
}
