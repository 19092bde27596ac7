import { MeshCallError } from "../errors.js";
import { isCertificateError } from "../tls.js";
import { markUndelivered } from "./undelivered.js";

interface CalledPeer {
  readonly nodeId: string;
  readonly advertisedUrl: string;
}

/** With these a server ends a handshake that the client takes for done: in TLS 1.3 it reads the client's certificate last. */
const REFUSED_HANDSHAKE = /^ERR_SSL_\w+_ALERT_(\w*CERTIFICATE\w*|UNKNOWN_CA|ACCESS_DENIED|HANDSHAKE_FAILURE)$/;

/** What failed between this node and a peer, as the error of a call. `sent`: the request may have reached the peer. */
export function connectionFailure({ nodeId, advertisedUrl }: CalledPeer, cause: Error, sent: boolean): MeshCallError {
  const code = (cause as NodeJS.ErrnoException).code ?? "";
  const reason = cause.message || code || cause.name;
  const failed = (what: string): MeshCallError => new MeshCallError(`mesh peer ${nodeId} at ${advertisedUrl} ${what}`, { nodeId, cause });
  if (REFUSED_HANDSHAKE.test(code)) return markUndelivered(failed(`refuses the certificate of this node, or that it shows none (mesh options tls.cert and tls.key): ${reason}`));
  if (sent) return new MeshCallError(`mesh peer ${nodeId} dropped the connection before it answered: ${reason}`, { nodeId, cause });
  if (isCertificateError(cause)) return markUndelivered(failed(`cannot be trusted: its certificate is refused (${code}): ${reason}; mesh option tls.ca names the CA of the peers`));
  return markUndelivered(failed(`cannot be reached: ${reason}`));
}
