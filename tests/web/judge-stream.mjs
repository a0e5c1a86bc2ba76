// The judge of terminal fidelity as a process: reads cases from its input, writes one JSON line for each.
//
// A message: u32 length; then u8 kind, u16 columns, u16 rows, u32 number of parts, and for each u32 length and bytes.
//   d  parts: output so far, snapshot, then steps. Two terminals get one of the first two and all steps; they are
//      compared before the first step and after each. Answer: {difference}.
//   a  one part: output. Answer: {said, ms}: all that the terminal wanted to send, and the processor time of parsing.
import { difference, newTerminal, state, written } from "./xterm.mjs";

async function differs(cols, rows, [before, snapshot, ...steps]) {
  const early = newTerminal(cols, rows);
  const late = newTerminal(cols, rows);
  await Promise.all([written(early, before), written(late, snapshot)]);
  let found = difference(state(early), state(late));
  let at = "at the cut";
  for (const [index, step] of steps.entries()) {
    if (found) break;
    await Promise.all([written(early, step), written(late, step)]);
    found = difference(state(early), state(late));
    at = `after step ${index + 1}`;
  }
  early.dispose();
  late.dispose();
  return { difference: found && `${at}: ${found}` };
}

async function answers(cols, rows, [bytes]) {
  const terminal = newTerminal(cols, rows);
  const said = [];
  terminal.onData((data) => said.push(data));
  terminal.onBinary((data) => said.push(data));
  // Processor time: what it costs, however busy the machine is with other things.
  const from = process.cpuUsage();
  await written(terminal, bytes);
  const { user, system } = process.cpuUsage(from);
  const ms = (user + system) / 1000;
  terminal.dispose();
  return { said, ms };
}

async function judge(message) {
  const [cols, rows, count] = [message.readUInt16LE(1), message.readUInt16LE(3), message.readUInt32LE(5)];
  const parts = [];
  let at = 9;
  for (let part = 0; part < count; part++) {
    const length = message.readUInt32LE(at);
    parts.push(message.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return message[0] === "d".charCodeAt(0) ? differs(cols, rows, parts) : answers(cols, rows, parts);
}

// An exception while parsing would leave its promise open for ever.
process.on("uncaughtException", (error) => {
  process.stdout.write(JSON.stringify({ error: `xterm.js threw: ${error.message}` }) + "\n");
  process.exit(1);
});

let pending = Buffer.alloc(0);
for await (const chunk of process.stdin) {
  pending = Buffer.concat([pending, chunk]);
  while (pending.length >= 4 && pending.length >= 4 + pending.readUInt32LE(0)) {
    const end = 4 + pending.readUInt32LE(0);
    const answer = await judge(pending.subarray(4, end));
    pending = pending.subarray(end);
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
}
