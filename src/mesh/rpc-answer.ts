import { MeshCallError } from "../errors.js";
import type { AnsweredCall, ErrorReviver } from "./error-revival.js";
import { parseObject } from "./json-object.js";
import { markUndelivered } from "./undelivered.js";

const EXCERPT = 200;

/** The result in an answer; throws the error in it, or `MeshCallError` where it is no answer of a mesh node. */
export function readAnswer(status: number, text: string, call: AnsweredCall, revive: ErrorReviver): unknown {
  if (status >= 300 && status < 400) throw junk(status, text, call);
  const answer = parseObject(text);
  if (answer === null || typeof answer.ok !== "boolean") throw junk(status, text, call);
  if (answer.ok && status === 200) return answer.result ?? null;
  if (answer.ok) throw junk(status, text, call);
  const error = revive(answer, status, call);
  throw answer.undelivered === true ? markUndelivered(error, answer.draining === true ? "draining" : "refused") : error;
}

function junk(status: number, text: string, call: AnsweredCall): MeshCallError {
  const excerpt = JSON.stringify(text.length > EXCERPT ? `${text.slice(0, EXCERPT)}…` : text);
  const message = `mesh peer answered ${status} to ${call.action} with something that is no mesh answer: ${excerpt}`;
  return new MeshCallError(message, { status: status >= 400 ? status : 502, nodeId: call.nodeId });
}
