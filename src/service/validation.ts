import type { ParamsSchema } from "../contract/descriptor.js";

/** Compiled `params`: returns what the handler gets, at once or by promise, or throws `MeshValidationError`. */
export type Validator = (input: unknown) => unknown;

/** `subject` names the action or event in messages. */
export function compileParams(_params: ParamsSchema, _subject: string): Validator {
  throw new Error("stub");
}
