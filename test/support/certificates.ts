import { generateKeyPairSync, randomBytes, sign, type KeyObject } from "node:crypto";

/** X.509 certificates for tests, made at run time: just enough DER for TLS with keys on the curve P-256 (RFC 5280). */
export interface Issued {
  /** PEM, as all of these. */
  readonly cert: string;
  readonly key: string;
}

export interface Subject {
  /** Default: just `localhost`. */
  readonly names?: readonly string[];
  /** IPv4. Default: 127.0.0.1. */
  readonly addresses?: readonly string[];
  /** Default: an hour ago to in a day. */
  readonly valid?: readonly [Date, Date];
}

export interface Authority {
  readonly ca: string;
  issue(subject?: Subject): Issued;
}

const HOUR_MS = 3_600_000;
const ECDSA_WITH_SHA256 = Buffer.from("06082a8648ce3d040302", "hex");
const COMMON_NAME = Buffer.from("0603550403", "hex");
const BASIC_CONSTRAINTS = Buffer.from("0603551d13", "hex");
const ALTERNATIVE_NAMES = Buffer.from("0603551d11", "hex");

export function createAuthority(name = "authority"): Authority {
  const own = newKey();
  const issuer = nameOf(name);
  const self = certificate({ issuer, issuerKey: own.privateKey, subject: issuer, publicKey: own.publicKey, valid: around(), extensions: [constraints(true)] });
  return {
    ca: self,
    issue: ({ names = ["localhost"], addresses = ["127.0.0.1"], valid = around() } = {}) => {
      const { publicKey, privateKey } = newKey();
      const extensions = [constraints(false), alternativeNames(names, addresses)];
      const cert = certificate({ issuer, issuerKey: own.privateKey, subject: nameOf(names[0] ?? "nobody"), publicKey, valid, extensions });
      return { cert, key: privateKey.export({ type: "pkcs8", format: "pem" }) as string };
    },
  };
}

/** Validity that ended an hour ago. */
export function expired(): readonly [Date, Date] {
  return [new Date(Date.now() - 48 * HOUR_MS), new Date(Date.now() - HOUR_MS)];
}

function around(): readonly [Date, Date] {
  return [new Date(Date.now() - HOUR_MS), new Date(Date.now() + 24 * HOUR_MS)];
}

function newKey(): { publicKey: KeyObject; privateKey: KeyObject } {
  return generateKeyPairSync("ec", { namedCurve: "P-256" });
}

interface Contents {
  readonly issuer: Buffer;
  readonly issuerKey: KeyObject;
  readonly subject: Buffer;
  readonly publicKey: KeyObject;
  readonly valid: readonly [Date, Date];
  readonly extensions: readonly Buffer[];
}

function certificate({ issuer, issuerKey, subject, publicKey, valid, extensions }: Contents): string {
  const algorithm = sequence(ECDSA_WITH_SHA256);
  const version = der(0xa0, integer(Buffer.of(2)));
  const serial = integer(Buffer.concat([Buffer.of(1), randomBytes(8)]));
  const spki = publicKey.export({ type: "spki", format: "der" });
  const toSign = sequence(version, serial, algorithm, issuer, sequence(...valid.map(time)), subject, spki, der(0xa3, sequence(...extensions)));
  const signature = der(0x03, Buffer.of(0), sign("sha256", toSign, issuerKey));
  const body = sequence(toSign, algorithm, signature).toString("base64").replace(/.{64}(?=.)/g, "$&\n");
  return `-----BEGIN CERTIFICATE-----\n${body}\n-----END CERTIFICATE-----\n`;
}

function constraints(isAuthority: boolean): Buffer {
  const truth = der(0x01, Buffer.of(0xff));
  return sequence(BASIC_CONSTRAINTS, truth, der(0x04, isAuthority ? sequence(truth) : sequence()));
}

function alternativeNames(names: readonly string[], addresses: readonly string[]): Buffer {
  const dns = names.map((name) => der(0x82, Buffer.from(name)));
  const ip = addresses.map((address) => der(0x87, Buffer.from(address.split(".").map(Number))));
  return sequence(ALTERNATIVE_NAMES, der(0x04, sequence(...dns, ...ip)));
}

function nameOf(text: string): Buffer {
  return sequence(der(0x31, sequence(COMMON_NAME, der(0x0c, Buffer.from(text)))));
}

function time(date: Date): Buffer {
  return der(0x18, Buffer.from(date.toISOString().replace(/\.\d+|[-:T]/g, "")));
}

function integer(bytes: Buffer): Buffer {
  return der(0x02, bytes);
}

function sequence(...parts: readonly Buffer[]): Buffer {
  return der(0x30, ...parts);
}

/** Tag, length, value; lengths of 128 and more are written as a count of bytes and those bytes. */
function der(tag: number, ...parts: readonly Buffer[]): Buffer {
  const value = Buffer.concat(parts);
  if (value.length < 128) return Buffer.concat([Buffer.of(tag, value.length), value]);
  const length = value.length < 256 ? [0x81, value.length] : [0x82, value.length >> 8, value.length & 255];
  return Buffer.concat([Buffer.of(tag, ...length), value]);
}
