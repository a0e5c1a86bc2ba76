/**
 * Binary frames: a 32-byte header, little endian, and an opaque payload. Mirrors `shared/src/wire/frame.rs`;
 * the tests of both hold the same golden bytes.
 */
import type { Exit, TermSize } from "@/api/types";

import {
  HEADER_BYTES,
  MAX_COLS,
  MAX_INPUT_BYTES,
  MAX_OUTPUT_BYTES,
  MAX_ROWS,
  MAX_SNAPSHOT_BYTES,
  MIN_COLS,
  MIN_ROWS,
} from "./limits";

export const FrameKind = {
  Output: 1,
  Snapshot: 2,
  Input: 3,
  InputAck: 4,
  Resize: 5,
  Exit: 6,
  Credit: 7,
} as const;
export type FrameKind = (typeof FrameKind)[keyof typeof FrameKind];

/** Snapshot flag: bytes between the viewer's position and this snapshot were not sent. */
export const FLAG_GAP = 1;
/** Input flag: more frames of the same paste follow. */
export const FLAG_MORE = 1;
/** Input-ack flag: the input was not written; the payload is an error code. */
export const FLAG_REFUSED = 1;

export interface Frame {
  kind: FrameKind;
  flags: number;
  channel: number;
  epoch: number;
  /** The 16 bytes of the session's id. */
  session: Uint8Array;
  /** Offset, sequence number or total, by kind. */
  offset: bigint;
  payload: Uint8Array;
}

/** Bytes that are not a frame; the message says why. */
export class FrameError extends Error {
  override name = "FrameError";
}

const MAX_PAYLOAD: Record<FrameKind, number> = {
  [FrameKind.Output]: MAX_OUTPUT_BYTES,
  [FrameKind.Snapshot]: MAX_SNAPSHOT_BYTES + 4,
  [FrameKind.Input]: MAX_INPUT_BYTES,
  [FrameKind.InputAck]: 64,
  [FrameKind.Resize]: 4,
  [FrameKind.Exit]: 2,
  [FrameKind.Credit]: 0,
};

const EMPTY = new Uint8Array(0);

/** Encodes header and payload into one buffer. Throws where the payload is above the limit of its kind. */
export function encodeFrame(
  frame: Omit<Frame, "payload"> & { payload?: Uint8Array },
): Uint8Array<ArrayBuffer> {
  const payload = frame.payload ?? EMPTY;
  if (payload.length > MAX_PAYLOAD[frame.kind]) {
    throw new FrameError(`payload of ${payload.length} bytes is above the limit of kind ${frame.kind}`);
  }
  const bytes = new Uint8Array(HEADER_BYTES + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, frame.kind);
  view.setUint8(1, frame.flags);
  view.setUint16(2, frame.channel, true);
  view.setUint32(4, frame.epoch, true);
  bytes.set(frame.session, 8);
  view.setBigUint64(24, frame.offset, true);
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}

/** Decodes a message; session and payload are views of it, not copies. Throws {@link FrameError}. */
export function decodeFrame(message: ArrayBuffer | Uint8Array): Frame {
  const bytes = message instanceof Uint8Array ? message : new Uint8Array(message);
  if (bytes.length < HEADER_BYTES) {
    throw new FrameError(`a frame of ${bytes.length} bytes is shorter than its header`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const kind = view.getUint8(0) as FrameKind;
  const limit = MAX_PAYLOAD[kind] as number | undefined;
  if (limit === undefined) throw new FrameError(`unknown frame kind ${kind}`);
  const payload = bytes.subarray(HEADER_BYTES);
  if (payload.length > limit) {
    throw new FrameError(`payload of ${payload.length} bytes is above the limit of kind ${kind}`);
  }
  const isWhole =
    kind === FrameKind.Resize
      ? payload.length === 4
      : kind === FrameKind.Exit
        ? payload.length === 2
        : kind !== FrameKind.Snapshot || payload.length >= 4;
  if (!isWhole) throw new FrameError(`malformed payload of kind ${kind}`);
  return {
    kind,
    flags: view.getUint8(1),
    channel: view.getUint16(2, true),
    epoch: view.getUint32(4, true),
    session: bytes.subarray(8, 24),
    offset: view.getBigUint64(24, true),
    payload,
  };
}

/** The size nearest to the wish that lies within the bounds. */
export function clampSize(cols: number, rows: number): TermSize {
  const clamp = (value: number, low: number, high: number) =>
    Math.min(high, Math.max(low, Math.floor(value) || low));
  return { cols: clamp(cols, MIN_COLS, MAX_COLS), rows: clamp(rows, MIN_ROWS, MAX_ROWS) };
}

/** The size in a resize frame or at the start of a snapshot, clamped to the allowed range. */
export function sizeOf(frame: Frame): TermSize {
  const word = (at: number) => (frame.payload[at] ?? 0) | ((frame.payload[at + 1] ?? 0) << 8);
  return clampSize(word(0), word(2));
}

/** Payload of a resize frame: columns and rows, u16 each, little endian. */
export function encodeSize(size: TermSize): Uint8Array {
  return Uint8Array.of(size.cols & 255, size.cols >> 8, size.rows & 255, size.rows >> 8);
}

/** How the child ended, from an exit frame. */
export function exitOf(frame: Frame): Exit {
  const value = frame.payload[1] ?? 0;
  switch (frame.payload[0]) {
    case 0:
      return { kind: "code", code: value };
    case 1:
      return { kind: "signal", signal: value };
    default:
      return { kind: "lost" };
  }
}

/** The 16 bytes of an id as they travel in a frame header. */
export function uuidBytes(id: string): Uint8Array {
  const hex = id.replaceAll("-", "");
  if (!/^[0-9a-f]{32}$/i.test(hex)) throw new FrameError("an id has 32 hexadecimal digits");
  return Uint8Array.from({ length: 16 }, (_, index) => parseInt(hex.slice(index * 2, index * 2 + 2), 16));
}

/** The text form of an id from a frame header. */
export function uuidText(bytes: Uint8Array): string {
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
