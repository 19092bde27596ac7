import { MeshActionNotFoundError } from "../errors.js";
import { fullActionName } from "../contract/descriptor.js";
import { actionNames, describe } from "../service/describe.js";
import type { CallOptions, MeshClient, ServiceClient, ServiceSource } from "../contract/mesh-client.js";

type Call = MeshClient["call"];
type ClientMethod = (args?: unknown, options?: CallOptions) => Promise<unknown>;

/**
 * The actions of a service as methods. `service` is its class or definition, or its name with version (`v1.users`),
 * where every member stands for the action of that name. Throws `ServiceDefinitionError` for what is no service.
 */
export function serviceClient<S extends object>(client: { readonly call: Call }, service: ServiceSource | string): ServiceClient<S> {
  const resolve = typeof service === "string" ? (member: string) => `${service}.${member}` : membersOf(service);
  return new Proxy(Object.freeze(Object.create(null)), { get: (_, member) => methodOf(client, member, resolve) }) as ServiceClient<S>;
}

/** Member → full action name; throws `MeshActionNotFoundError` where the member is no action. */
type ResolveMember = (member: string) => string;

function membersOf(source: ServiceSource): ResolveMember {
  const service = describe(source);
  const names = actionNames(source);
  return (member) => {
    const action = names.get(member);
    if (action === undefined) throw new MeshActionNotFoundError(fullActionName(service, member));
    return fullActionName(service, action);
  };
}

/** What JavaScript itself asks of any object stays undefined: a client is no promise, and has no text or JSON form. */
function methodOf(client: { readonly call: Call }, member: string | symbol, resolve: ResolveMember): ClientMethod | undefined {
  if (typeof member === "symbol" || member === "then" || member === "toJSON" || member in Object.prototype) return undefined;
  return async (args, options) => client.call(resolve(member), args, options);
}
