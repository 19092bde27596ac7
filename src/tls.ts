import { createPrivateKey, X509Certificate, type KeyObject } from "node:crypto";
import { readFileSync } from "node:fs";
import { createSecureContext } from "node:tls";
import { MeshConfigurationError, toError } from "./errors.js";

/** Each part is PEM text, which begins with `-----BEGIN`, or the path of a PEM file. */
export interface TlsFiles {
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
  readonly ca?: string | undefined;
}

/** The same as PEM texts; parts that were not given are missing. */
export interface TlsTexts {
  readonly cert?: string;
  readonly key?: string;
  readonly ca?: string;
}

export type TlsPart = keyof TlsFiles;

/** How a message calls the option that holds a part. */
export type TlsPartName = (part: TlsPart) => string;

export const TLS_PARTS: readonly TlsPart[] = ["cert", "key", "ca"];

const CERTIFICATES = /-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----.+?-----END (?:X509 |TRUSTED )?CERTIFICATE-----/gs;

/**
 * Reads and checks what `given` names. Throws `MeshConfigurationError` naming the option where a file cannot be read or holds
 * no PEM, and where key and certificate are no pair. What stands for a key is never shown: it may be the key itself.
 */
export function readTls(given: TlsFiles, nameOf: TlsPartName): TlsTexts {
  const texts: Partial<Record<TlsPart, string>> = {};
  for (const part of TLS_PARTS) if (given[part] !== undefined) texts[part] = readPem(nameOf(part), given[part], part === "key");
  const { cert, key, ca } = texts;
  if (ca !== undefined) readCertificates(nameOf("ca"), ca);
  if (cert !== undefined && key !== undefined) checkPair(cert, key, nameOf);
  return texts;
}

/** Whether `error` says that a server's certificate does not prove the server's identity. */
export function isCertificateError(error: unknown): boolean {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" && VERIFICATION_ERROR.test(code);
}

/** Codes of OpenSSL's verification, and of Node's comparison of the name. */
const VERIFICATION_ERROR =
  /^(CERT_|UNABLE_TO_(GET_(ISSUER_CERT|CRL)|VERIFY_LEAF|DECRYPT_C|DECODE_ISSUER)|(DEPTH_ZERO_SELF|SELF)_SIGNED_CERT|INVALID_(CA|PURPOSE)$|PATH_LENGTH_EXCEEDED$|HOSTNAME_MISMATCH$|ERR_TLS_CERT_ALTNAME_)/;

function readPem(name: string, given: string, secret: boolean): string {
  const isText = given.trimStart().startsWith("-----BEGIN");
  const text = isText ? given : readFile(name, given, secret);
  if (text.includes("-----BEGIN ")) return text;
  throw new MeshConfigurationError(`${name} names ${secret ? "a file" : `the file ${given}`} without PEM text, which begins with -----BEGIN`);
}

function readFile(name: string, path: string, secret: boolean): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? "unknown error";
    if (secret) throw new MeshConfigurationError(`${name} is neither PEM text nor the path of a file that can be read: ${code} (its value is not shown: it may be a key)`);
    throw new MeshConfigurationError(`${name} is neither PEM text nor the path of a file that can be read: ${code}: ${path}`, { cause });
  }
}

function readCertificates(name: string, text: string): readonly X509Certificate[] {
  const found = text.match(CERTIFICATES) ?? [];
  if (found.length === 0) throw new MeshConfigurationError(`${name} holds no certificate in PEM form`);
  return found.map((pem) => {
    try {
      return new X509Certificate(pem);
    } catch (cause) {
      throw new MeshConfigurationError(`${name} holds a certificate that cannot be parsed: ${toError(cause).message}`, { cause });
    }
  });
}

function readKey(name: string, text: string): KeyObject {
  try {
    return createPrivateKey(text);
  } catch {
    throw new MeshConfigurationError(`${name} holds no private key in PEM form that can be read without a passphrase`);
  }
}

function checkPair(cert: string, key: string, nameOf: TlsPartName): void {
  const [own] = readCertificates(nameOf("cert"), cert);
  if (own?.checkPrivateKey(readKey(nameOf("key"), key)) !== true) {
    throw new MeshConfigurationError(`${nameOf("key")} holds a key that does not belong to the certificate of ${nameOf("cert")}; the certificate that comes first must be the one of the key`);
  }
  try {
    createSecureContext({ cert, key });
  } catch (cause) {
    throw new MeshConfigurationError(`${nameOf("cert")} and ${nameOf("key")} cannot be used: ${toError(cause).message}`, { cause });
  }
}
