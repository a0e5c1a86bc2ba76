/**
 * What tests and curious people may look at: `window.__claudenest`, behind `?debug` or
 * `localStorage["claudenest.debug"] = "1"`. Off, it costs nothing: no byte is hashed.
 */
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";

import type { AttachmentStatus } from "./attachment";

export interface SessionProbe {
  /** Session id and name. */
  id: string;
  name: string;
  /** Attachment status as the page knows it. */
  status: AttachmentStatus;
  /** Position of the first byte that was hashed, in its epoch. */
  from: { epoch: number; offset: number } | null;
  /** Output bytes received since then. */
  bytes: number;
  /** SHA-256 over them, hexadecimal. */
  sha256: string;
  /** Snapshots received; each starts the hash anew unless it is exactly where the bytes before it ended. */
  snapshots: number;
  /** Bytes typed and not yet acknowledged. */
  pendingInputBytes: number;
  /** The visible screen as text. */
  screen: string[];
  /** Everything including scrollback. */
  history: string[];
  size: { cols: number; rows: number };
  renderer: "webgl" | "dom";
}

declare global {
  interface Window {
    __claudenest?: {
      sessions: Record<string, () => SessionProbe>;
      /** Types bytes as a person would. */
      type: (session: string, text: string) => void;
      /** Pastes text as a person would. */
      paste: (session: string, text: string) => void;
      inputs: Record<string, { type: (text: string) => void; paste: (text: string) => void }>;
      /** What the replay page shows. */
      replay?: () => unknown;
      /** State of the page's socket. */
      link: () => unknown;
      /** Cuts the socket as a network would. */
      cut: () => void;
    };
  }
}

export function isDebug(): boolean {
  try {
    return (
      new URLSearchParams(location.search).has("debug") || localStorage.getItem("claudenest.debug") === "1"
    );
  } catch {
    return false;
  }
}

/** The hook object, made when first asked for; undefined when debugging is off. */
export function debugHook(): NonNullable<Window["__claudenest"]> | undefined {
  if (!isDebug()) return undefined;
  window.__claudenest ??= {
    sessions: {},
    inputs: {},
    type: (session, text) => window.__claudenest?.inputs[session]?.type(text),
    paste: (session, text) => window.__claudenest?.inputs[session]?.paste(text),
    link: () => null,
    cut: () => undefined,
  };
  return window.__claudenest;
}

/** Hash and length of a run of output bytes. */
export class OutputHash {
  from: { epoch: number; offset: number } | null = null;
  bytes = 0;
  snapshots = 0;
  #hash = sha256.create();

  output(bytes: Uint8Array, position: { epoch: number; offset: number }): void {
    if (this.from === null || position.epoch !== this.from.epoch) this.#restart(position);
    this.#hash.update(bytes);
    this.bytes += bytes.length;
  }

  snapshot(position: { epoch: number; offset: number }): void {
    this.snapshots++;
    const isContiguous =
      this.from !== null &&
      this.from.epoch === position.epoch &&
      this.from.offset + this.bytes === position.offset;
    if (!isContiguous) this.#restart(position);
  }

  hex(): string {
    return bytesToHex(this.#hash.clone().digest());
  }

  #restart(position: { epoch: number; offset: number }): void {
    this.from = { ...position };
    this.bytes = 0;
    this.#hash = sha256.create();
  }
}
