import { bytesToHex } from "@noble/hashes/utils.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { describe, expect, it } from "vitest";

import { parseCode } from "./code";
import { isCommitted, newNonce, sasDigits, transcript } from "./sas";

const fill = (byte: number) => byte.toString(16).padStart(2, "0").repeat(32);

describe("pairing", () => {
  it("computes the digits that the machine computes", () => {
    // The same value stands in the tests of `shared/src/pairing.rs`.
    const base = {
      pairingId: "01010101-0101-0101-0101-010101010101",
      publicKey: fill(2),
      agentNonce: fill(3),
      browserNonce: fill(4),
      account: "alice@example.com",
    };
    expect(sasDigits(base)).toBe("638252");
    expect(sasDigits({ ...base, browserNonce: fill(5) })).not.toBe("638252");
    expect(sasDigits({ ...base, account: "mallory@example.com" })).not.toBe("638252");
  });

  it("accepts only the nonce that was committed to", () => {
    const commitment = bytesToHex(
      sha256(
        transcript("claudenest pairing commitment v1", [
          new Uint8Array(32).fill(2),
          new Uint8Array(32).fill(3),
        ]),
      ),
    );
    expect(isCommitted(fill(2), fill(3), commitment.toUpperCase())).toBe(true);
    expect(isCommitted(fill(2), fill(4), commitment)).toBe(false);
    expect(isCommitted(fill(9), fill(3), commitment)).toBe(false);
    expect(isCommitted("02", fill(3), commitment)).toBe(false);
  });

  it("makes nonces of 32 bytes that differ", () => {
    expect(newNonce()).toMatch(/^[0-9a-f]{64}$/);
    expect(newNonce()).not.toBe(newNonce());
  });

  it("reads codes as people type them", () => {
    for (const text of ["A7K-M2X", "a7km2x", " A7K M2X ", "a7k\u2013m2x"]) {
      expect(parseCode(text)).toEqual({ code: "A7K-M2X" });
    }
    expect(parseCode("oil-OIL")).toEqual({ code: "011-011" });
    expect(parseCode("A7K")).toEqual({ problem: "length", count: 3 });
    expect(parseCode("A7K-M2XX")).toEqual({ problem: "length", count: 7 });
    expect(parseCode("A7K-M2U")).toEqual({ problem: "character", char: "U" });
    expect(parseCode("A7K-M2é")).toEqual({ problem: "character", char: "é" });
  });
});
