import { newest } from "./newest.mjs";

const { Logger, makeWorkerUtils, run } = await newest("graphile-worker");

const logger = new Logger(() => () => undefined);
const BATCHED = { concurrentJobs: 24, maxPoolSize: 30, completeJobBatchDelay: 0, failJobBatchDelay: 0 };
/** Its fastest settings: a local queue of 500, completions in batches. */
const FASTEST = { ...BATCHED, localQueue: { size: 500 } };
/** One more than it runs at a time, where its documentation begins: a node does not take what others could run. */
const SMALL = { size: BATCHED.concurrentJobs + 1 };
const VARIANTS = {
  /** Asks Postgres for each job. */
  direct: BATCHED,
  small: { ...BATCHED, localQueue: SMALL },
  /** Lets jobs gather where a fetch did not fill the queue: fewer claims, later starts. */
  gathering: { ...BATCHED, localQueue: { ...SMALL, refetchDelay: { durationMs: 10, threshold: BATCHED.concurrentJobs } } },
  joined: { ...BATCHED, localQueue: SMALL },
};

export async function queue({ databaseUrl, effects, variant }) {
  const utils = await makeWorkerUtils({ connectionString: databaseUrl, logger, maxPoolSize: BATCHED.maxPoolSize });
  await utils.migrate();
  const consume = async (handler) => {
    const work = effects ? writing(handler) : (message) => handler(message);
    const preset = { worker: { ...(VARIANTS[variant] ?? FASTEST), connectionString: databaseUrl, logger } };
    const runner = await run({ preset, noHandleSignals: true, taskList: { work } });
    return () => runner.stop();
  };
  const add = (message) => utils.addJob("work", message);
  return {
    add: variant === "joined" ? joined((messages) => utils.addJobs(messages.map((payload) => ({ identifier: "work", payload })))) : add,
    load: (from, to) =>
      utils.withPgClient((client) =>
        client.query("SELECT graphile_worker.add_job('work', json_build_object('i', i)) FROM generate_series($1::int, $2::int) i", [from, to]),
      ),
    consume,
    stop: async () => utils.release(),
  };
}

/** It completes a job apart from the task's own transaction, here one statement: a crash in between runs the task again. */
const writing = (handler) => async (message, helpers) => {
  await helpers.query("INSERT INTO effects (i) VALUES ($1)", [message.i]);
  handler(message);
};

/** What is added while the statement before is under way goes into the next one, as a program would do that adds very much. */
function joined(addAll) {
  let waiting = [];
  let running;
  const next = async () => {
    const messages = waiting;
    waiting = [];
    await addAll(messages);
  };
  return async (message) => {
    waiting.push(message);
    const before = running;
    if (waiting.length === 1) running = before === undefined ? next() : before.then(next);
    await running;
  };
}
