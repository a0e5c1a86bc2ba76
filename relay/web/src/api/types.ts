/** Short names for the generated types. `npm run gen` makes `schema.ts` from `relay/openapi.json`. */
import type { components } from "./schema";

type Schemas = components["schemas"];

export type TermSize = Schemas["TermSize"];
export type SessionMode = Schemas["SessionMode"];
export type PermissionMode = Schemas["PermissionMode"];
export type CrashPolicy = Schemas["CrashPolicy"];
export type SessionState = Schemas["SessionState"];
export type Exit = Schemas["Exit"];
export type SessionInfo = Schemas["SessionInfo"];
export type StateNote = Schemas["StateNote"];
export type StateWord = Schemas["StateWord"];
export type SessionSpec = Schemas["SessionSpec"];
export type MachineState = Schemas["MachineState"];
export type MachineFacts = Schemas["MachineFacts"];
export type MachineInfo = Schemas["MachineInfo"];
export type Directory = Schemas["Directory"];
export type Risk = Schemas["Risk"];
export type RiskNote = Schemas["RiskNote"];
export type Approval = Schemas["Approval"];
export type ApprovalInfo = Schemas["ApprovalInfo"];
export type ApprovalState = Schemas["ApprovalState"];
export type ApprovalList = Schemas["ApprovalList"];
export type ApprovalName = Schemas["ApprovalName"];
export type Answer = Schemas["Answer"];
export type Remember = Schemas["Remember"];
export type RuleScope = Schemas["RuleScope"];
export type DecidedAll = Schemas["DecidedAll"];
export type Lock = Schemas["Lock"];
export type LockKind = Schemas["LockKind"];
export type LockHolder = Schemas["LockHolder"];
export type AcquireLock = Schemas["AcquireLock"];
export type SessionHistory = Schemas["SessionHistory"];
export type HistoryRun = Schemas["HistoryRun"];
export type HistoryChunk = Schemas["HistoryChunk"];
export type HistoryPart = Schemas["HistoryPart"];
export type HistoryMatch = Schemas["HistoryMatch"];
export type HistoryFound = Schemas["Found"];
export type User = Schemas["User"];
export type Me = Schemas["Me"];
export type LoginAnswer = Schemas["LoginAnswer"];
export type LoginSession = Schemas["BrowserLogin"];
export type PairingState = Schemas["PairingState"];
export type PairingLookup = Schemas["PairingFound"];
export type PairingClaim = Schemas["PairingClaimed"];
export type PairingStatus = Schemas["PairingStatus"];
export type EnrolmentToken = Schemas["EnrolmentToken"];
export type NewEnrolmentToken = Schemas["NewEnrolmentToken"];
export type WsTicket = Schemas["WsTicket"];
export type Health = Schemas["Health"];
export type StreamPosition = Schemas["StreamPosition"];
export type BrowserMessage = Schemas["BrowserMessage"];
export type ServerMessage = Schemas["ServerMessage"];

/** A failure on a wire. The code is open: a newer relay may know more. */
export interface WireError {
  code: string;
  message: string;
}
