/** Sizes of the wire format; the same constants, for the same reasons, as `shared/src/wire/limits.rs`. */

export const HEADER_BYTES = 32;
export const MAX_OUTPUT_BYTES = 64 * 1024;
export const MAX_INPUT_BYTES = 64 * 1024;
export const MAX_SNAPSHOT_BYTES = 1024 * 1024;
export const VIEWER_WINDOW_BYTES = 256 * 1024;
export const CREDIT_STEP_BYTES = 32 * 1024;
export const DEFAULT_LAG_LIMIT_BYTES = 512 * 1024;
export const MAX_LAG_LIMIT_BYTES = 64 * 1024 * 1024;
/** First credit of a viewer that wants every byte. */
export const WHOLE_WINDOW_BYTES = 1024 * 1024;
export const INPUT_WINDOW_BYTES = 256 * 1024;
export const MAX_ATTACHMENTS = 64;
export const MIN_COLS = 2;
export const MAX_COLS = 500;
export const MIN_ROWS = 2;
export const MAX_ROWS = 300;
