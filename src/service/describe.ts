import type { ServiceDescriptor } from "../contract/descriptor.js";
import type { ServiceSource } from "../contract/mesh-client.js";

/** The frozen descriptor of a class, an instance or a definition; memoised. */
export function describe(_source: ServiceSource): ServiceDescriptor {
  throw new Error("stub");
}


export interface ServiceBinding {
  /** Makes instances, e.g. from a DI container. Default: `new Class()`. */
  readonly resolve?: (type: new () => object) => object;
}

/** `describe` for one host: a class gets an instance of its own, by `resolve` where given. */
export function instantiate(_source: ServiceSource, _binding?: ServiceBinding): ServiceDescriptor {
  throw new Error("stub");
}

/** Member name → action name of a class, for typed clients. */
export function actionNames(_source: ServiceSource): ReadonlyMap<string, string> {
  throw new Error("stub");
}
