/** What a program under measurement is told at its start. */
export interface Setup {
  readonly databaseUrl: string;
  /** One secret for all nodes of a run. */
  readonly token: string;
  /** All processes of the system in this scenario; `nodes[index]` is this one. The ports were free a moment ago. */
  readonly nodes: readonly { readonly id: string; readonly port: number }[];
  readonly index: number;
  /** Tells apart systems that one file serves, by the URL of their broker for example. */
  readonly variant: string;
  /** Jobs write one row each into the table `effects`, in one transaction with their completion where the system can. */
  readonly effects: boolean;
}

export type CallKind = "add" | "addLater" | "addChecked" | "addUnchecked" | "echo" | "slow";

export interface Message {
  readonly i: number;
  /** When it was, or was due to be, given to the system, on the monotonic clock that all processes of a machine share, in ms. */
  readonly at?: number;
}

/** One side of one system: what a file in `programs/` or `peers/` gives for each role that it exports. A role has the parts that its scenarios use. */
export interface Running {
  call?(kind: CallKind, args: object): Promise<unknown>;
  /** Queues or publishes one message; resolves when the system has accepted it. */
  add?(message: Message): Promise<unknown>;
  /** Queues messages `from` to `to`, both included, as fast as the system can, while nothing consumes. */
  load?(from: number, to: number): Promise<unknown>;
  /** Gives each message to `handler`, until the function that it resolves with is called. */
  consume?(handler: (message: Message) => void): Promise<() => Promise<unknown>>;
  /** What only one scenario needs, by name. */
  readonly special?: Readonly<Record<string, (args: Readonly<Record<string, number>>) => Promise<unknown>>>;
  stop(): Promise<unknown>;
}

export type Role = (setup: Setup) => Promise<Running>;
