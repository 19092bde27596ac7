import type { Session, Statement, Storage } from "../contract/storage.js";
import { sqlState } from "../storage/connection-errors.js";
import { UNEXPECTED_GROUP } from "../storage/functions.js";
import { queueLane } from "../storage/lanes.js";
import { encodeRow } from "./event-record.js";
import { encodeJobHeaders } from "./job-headers.js";
import type { Notifier } from "./notifier.js";
import { MAX_NAMES, type News } from "./wake.js";
import type { Encoded, EncodedEvent, EncodedJob } from "./outgoing.js";

/** What one write did. */
export interface Written {
  /** For each message in turn: how many balanced groups got the event, or the job's id. */
  readonly results: readonly (number | string)[];
  /** By what the broadcast log has grown, as far as nobody has been told. */
  readonly events: News;
  /** Lanes with jobs that can run now. */
  readonly lanes: readonly string[];
  /** Lanes with delayed jobs: ms until the first of these is due. */
  readonly delayed: ReadonlyMap<string, number>;
}

interface Target {
  readonly name: string;
  readonly lane: string;
}

interface WriteResult {
  readonly targets: readonly Target[] | null;
  readonly job_ids: readonly string[] | null;
}

/** Messages of one write, by where they go. */
interface Sorted {
  readonly logged: readonly EncodedEvent[];
  /** Of these events. */
  readonly news: News;
  readonly balanced: readonly EncodedEvent[];
  /** Names of events for groups of which none is expected: they come without the payloads. */
  readonly ungrouped: ReadonlySet<string>;
  readonly jobs: readonly EncodedJob[];
}

const NO_NAMES: ReadonlySet<string> = new Set();
const MAX_UNGROUPED = 5_000;

/** Writes events and jobs: all of a batch by one statement, so in one round trip and one commit. */
export class MessageWriter {
  readonly #storage: Storage;
  readonly #notifier: Notifier;
  readonly #nodeId: string;
  readonly #sql: string;
  /** Names of events that no group took when they were written last. */
  readonly #ungrouped = new Set<string>();

  constructor(storage: Storage, notifier: Notifier, nodeId: string) {
    this.#storage = storage;
    this.#notifier = notifier;
    this.#nodeId = nodeId;
    this.#sql = `SELECT targets, job_ids FROM ${storage.table("_chimpbase_mesh_write")}($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`;
  }

  /** In the order given, as a commit of its own. The payload of an event that no group takes is not sent for groups too. */
  async write(messages: readonly Encoded[]): Promise<Written> {
    const sorted = sort(messages, this.#ungrouped);
    try {
      return await this.#commit(messages, sorted);
    } catch (error) {
      if (sqlState(error) !== UNEXPECTED_GROUP) throw error;
      for (const name of sorted.ungrouped) this.#ungrouped.delete(name);
      return this.#commit(messages, sort(messages, NO_NAMES));
    }
  }

  /** In the order given, as part of a transaction, in which a write must not fail for a guess. */
  async writeIn(tx: Session, messages: readonly Encoded[]): Promise<Written> {
    const sorted = sort(messages, NO_NAMES);
    const { sql, params } = this.#statement(sorted);
    return this.#written(messages, sorted, await tx.query<WriteResult>(sql, params, { prepare: true }));
  }

  /** With a NOTIFY for the log's readers, where nothing else is written of which it should tell. */
  async #commit(messages: readonly Encoded[], sorted: Sorted): Promise<Written> {
    const statement = this.#statement(sorted);
    const onlyLogged = sorted.news !== "none" && sorted.balanced.length + sorted.jobs.length === 0;
    const told = onlyLogged ? this.#notifier.accompany(sorted.news, (notice) => this.#storage.queryThen<WriteResult>(statement, notice)) : null;
    if (told === null) return this.#written(messages, sorted, await this.#storage.query<WriteResult>(statement.sql, statement.params, { prepare: true }));
    return { ...this.#written(messages, sorted, (await told).rows), events: "none" };
  }

  #statement(sorted: Sorted): Statement {
    return { sql: this.#sql, params: parameters(this.#nodeId, sorted), prepare: true };
  }

  #written(messages: readonly Encoded[], sorted: Sorted, rows: readonly WriteResult[]): Written {
    const targets = rows[0]!.targets ?? [];
    this.#learn(sorted, targets);
    return toWritten(messages, sorted, targets, rows[0]!.job_ids ?? []);
  }

  #learn({ balanced }: Sorted, targets: readonly Target[]): void {
    for (const { name } of balanced) this.#ungrouped.add(name);
    for (const { name } of targets) this.#ungrouped.delete(name);
    if (this.#ungrouped.size > MAX_UNGROUPED) this.#ungrouped.clear();
  }
}

function sort(messages: readonly Encoded[], ungrouped: ReadonlySet<string>): Sorted {
  const sorted = { logged: [] as EncodedEvent[], balanced: [] as EncodedEvent[], ungrouped: new Set<string>(), jobs: [] as EncodedJob[] };
  for (const message of messages) {
    if (message.kind === "job") sorted.jobs.push(message);
    else {
      if (message.reach !== "balanced") sorted.logged.push(message);
      if (message.reach === "broadcast") continue;
      if (ungrouped.has(message.name)) sorted.ungrouped.add(message.name);
      else sorted.balanced.push(message);
    }
  }
  return { ...sorted, news: newsOf(sorted.logged) };
}

/** Null for each part that the batch does not need. A row of more different events than a wake would name comes to every reader. */
function parameters(nodeId: string, { logged, news, balanced, ungrouped, jobs }: Sorted): unknown[] {
  const row = logged.length === 0 ? null : encodeRow(logged);
  return [nodeId, typeof news === "string" ? null : news, row, ungrouped.size === 0 ? null : [...ungrouped], ...eventColumns(balanced, nodeId), ...jobColumns(jobs, nodeId)];
}

function newsOf(events: readonly EncodedEvent[]): News {
  if (events.length === 0) return "none";
  const names = new Set(events.map(({ name }) => name));
  return names.size > MAX_NAMES ? "any" : [...names];
}

function eventColumns(events: readonly EncodedEvent[], nodeId: string): unknown[] {
  if (events.length === 0) return [null, null, null];
  return [events.map(({ name }) => name), events.map(({ payloadJson }) => payloadJson), events.map((event) => encodeJobHeaders(event, nodeId, event.id))];
}

function jobColumns(jobs: readonly EncodedJob[], nodeId: string): unknown[] {
  if (jobs.length === 0) return [null, null, null, null, null];
  const queues = jobs.map(({ queue }) => queue);
  const headers = jobs.map((job) => encodeJobHeaders(job, nodeId));
  return [queues.map(queueLane), queues, jobs.map(({ payloadJson }) => payloadJson), headers, jobs.map(({ delayMs }) => delayMs)];
}

function toWritten(messages: readonly Encoded[], { news, jobs }: Sorted, targets: readonly Target[], jobIds: readonly string[]): Written {
  const lanes = new Set<string>();
  const delayed = new Map<string, number>();
  for (const { queue, delayMs } of jobs) {
    const lane = queueLane(queue);
    if (delayMs === 0) lanes.add(lane);
    else delayed.set(lane, Math.min(delayMs, delayed.get(lane) ?? Infinity));
  }
  const groups = new Map<string, number>();
  for (const { name, lane } of targets) {
    groups.set(name, (groups.get(name) ?? 0) + 1);
    lanes.add(lane);
  }
  let nextJob = 0;
  const results = messages.map((message) => {
    if (message.kind === "job") return jobIds[nextJob++]!;
    return message.reach === "broadcast" ? 0 : (groups.get(message.name) ?? 0);
  });
  return { results, events: news, lanes: [...lanes], delayed };
}
