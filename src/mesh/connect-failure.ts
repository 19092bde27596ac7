import { MeshCallError } from "../errors.js";
import { isCertificateError } from "../tls.js";
import { markUndelivered } from "./undelivered.js";

interface CalledPeer {
  readonly nodeId: string;
  readonly advertisedUrl: string;
  /** When the peer last answered anything; -Infinity if never. */
  readonly lastAnswerAt: number;
}

/**
 * With these alerts a server says no to a client's certificate. In TLS 1.3 they come after the handshake as the client sees it,
 * so a request may be on its way already. Some of them may end a connection at any time: from a peer that has answered before,
 * they tell nothing of the request.
 */
const REFUSED_HANDSHAKE = /^ERR_SSL_.*_ALERT_(\w*CERTIFICATE\w*|UNKNOWN_CA|ACCESS_DENIED|HANDSHAKE_FAILURE)$/;
/** Servers of Node say no by closing, which may be anything: so it is a hint, and does not prove that nothing was handled. */
const MAYBE_REFUSED = "; if it asks for client certificates, this is how it refuses one (mesh options tls.cert and tls.key)";

/** What failed between this node and a peer, as the error of a call. `sent`: the request may have reached the peer. */
export function connectionFailure({ nodeId, advertisedUrl, lastAnswerAt }: CalledPeer, cause: Error, sent: boolean): MeshCallError {
  const code = (cause as NodeJS.ErrnoException).code ?? "";
  const reason = cause.message || code || cause.name;
  const failed = (what: string): MeshCallError => new MeshCallError(`mesh peer ${nodeId} at ${advertisedUrl} ${what}`, { nodeId, cause });
  const stranger = lastAnswerAt === -Infinity;
  if (REFUSED_HANDSHAKE.test(code) && (!sent || stranger)) return markUndelivered(failed(`refuses the certificate of this node, or that it shows none (mesh options tls.cert and tls.key): ${reason}`));
  const hint = advertisedUrl.startsWith("https:") && stranger ? MAYBE_REFUSED : "";
  if (sent) return new MeshCallError(`mesh peer ${nodeId} dropped the connection before it answered: ${reason}${hint}`, { nodeId, cause });
  if (isCertificateError(cause)) return markUndelivered(failed(`cannot be trusted: its certificate is refused (${code}): ${reason}; mesh option tls.ca names the CA of the peers`));
  return markUndelivered(failed(`cannot be reached: ${reason}`));
}
