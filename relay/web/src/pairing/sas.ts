/**
 * The six digits that machine and browser show, computed here and never taken from the relay.
 * The same transcript and hash as `shared/src/pairing.rs`; WebCrypto is missing on plain http, hence a library.
 */
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex, hexToBytes } from "@noble/hashes/utils.js";

import { uuidBytes } from "@/wire/frame";

const utf8 = new TextEncoder();

/** A domain, then every part behind its length (u32, little endian). */
export function transcript(domain: string, parts: Uint8Array[]): Uint8Array {
  const name = utf8.encode(domain);
  const bytes = new Uint8Array(name.length + 1 + parts.reduce((sum, part) => sum + part.length + 4, 0));
  const view = new DataView(bytes.buffer);
  bytes.set(name, 0);
  let at = name.length + 1;
  for (const part of parts) {
    view.setUint32(at, part.length, true);
    bytes.set(part, at + 4);
    at += part.length + 4;
  }
  return bytes;
}

export interface SasInput {
  pairingId: string;
  /** Hexadecimal, 32 bytes each. */
  publicKey: string;
  agentNonce: string;
  browserNonce: string;
  account: string;
}

/** Six digits, 000000 to 999999. Throws if a part is not hexadecimal. */
export function sasDigits(input: SasInput): string {
  const hash = sha256(
    transcript("claudenest pairing digits v1", [
      uuidBytes(input.pairingId),
      hexToBytes(input.publicKey),
      hexToBytes(input.agentNonce),
      hexToBytes(input.browserNonce),
      utf8.encode(input.account),
    ]),
  );
  const number = new DataView(hash.buffer, hash.byteOffset).getBigUint64(0, true);
  return (number % 1_000_000n).toString().padStart(6, "0");
}

/** True if `agentNonce` is the one that the machine committed to before it knew ours. */
export function isCommitted(publicKey: string, agentNonce: string, commitment: string): boolean {
  const parts = [hexToBytes(publicKey), hexToBytes(agentNonce)];
  if (parts.some((part) => part.length !== 32)) return false;
  return (
    bytesToHex(sha256(transcript("claudenest pairing commitment v1", parts))) === commitment.toLowerCase()
  );
}

/** 32 random bytes, hexadecimal. */
export function newNonce(): string {
  return bytesToHex(crypto.getRandomValues(new Uint8Array(32)));
}
