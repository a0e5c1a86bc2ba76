// Past output in the browser: the time line, jumps, search, keys, a machine that is away, and exports in a real player.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, readdirSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { World, desktop, logIn, phone, shoot, startBrowser } from "./world.mjs";

let world, browser;
before(async () => {
  [world, browser] = await Promise.all([World.start(), startBrowser()]);
});
after(async () => {
  await browser?.close();
  await world?.stop();
});

const here = dirname(fileURLToPath(import.meta.url));
const idOf = async (name) => JSON.parse(await world.agent("session", "show", name, "--json")).id;
const probe = (page) => page.evaluate(() => window.__claudenest.replay());
/** Waits until a field of what the replay shows has these values. */
const untilReplay = (page, wanted) =>
  page.waitForFunction(
    (wanted) => {
      const now = window.__claudenest?.replay?.();
      return now && Object.entries(wanted).every(([name, value]) => now[name] === value);
    },
    wanted,
    { timeout: 60_000, polling: 50 },
  );
const shows = (page, text) =>
  page.waitForFunction((text) => window.__claudenest?.replay?.().screen.join("\n").includes(text), text, {
    timeout: 60_000,
    polling: 50,
  });

/** A session that prints in three moments with a pause between them, and has ended. */
async function record(name) {
  await world.agent("session", "new", "--mode", "shell", "--name", name, "--dir", world.work, "--", "-c", [
    "stty -echo",
    "printf 'first \\033[31mred\\033[0m line\\r\\n\\033[6n'",
    "sleep 3",
    "printf 'second line with a needle\\r\\n'",
    "sleep 1",
    "printf 'LAST'",
    "exit 4",
  ].join("; "));
  await world.agent("session", "wait", name);
  return idOf(name);
}

test("a recording is played, sought, searched and steered by keys, on desktop and phone", async () => {
  await record("played");
  const page = await logIn(browser, world);
  await page.goto("/sessions/played");
  await page.getByTestId("ended-replay").click();
  await page.waitForURL(/\/sessions\/played\/replay$/);
  await untilReplay(page, { source: "machine", isLoading: false });
  assert.ok(!(await probe(page)).screen.join("\n").includes("needle"), "it begins at the beginning");
  assert.match(await page.getByTestId("replay-source").innerText(), /From the recording on/);

  await page.getByTestId("replay-toggle").click();
  await shows(page, "LAST");
  await untilReplay(page, { isPlaying: false });
  const end = await probe(page);
  assert.deepEqual(end.screen.slice(0, 3), ["first red line", "second line with a needle", "LAST"]);

  // Keys: back to before the last moment, and to the beginning.
  await page.keyboard.press("ArrowDown");
  await untilReplay(page, { position: 0, isLoading: false });
  await page.keyboard.press("ArrowRight");
  await shows(page, "LAST");
  await page.keyboard.press("ArrowDown");
  await untilReplay(page, { position: 0, isLoading: false });
  await page.keyboard.press("+");
  assert.equal(await page.getByTestId("replay-speed").inputValue(), "2");
  await page.keyboard.press(" ");
  await untilReplay(page, { isPlaying: true });
  await page.keyboard.press(" ");
  await untilReplay(page, { isPlaying: false });

  await page.keyboard.press("/");
  await page.getByTestId("replay-query").fill("needle");
  await page.keyboard.press("Enter");
  await page.getByTestId("replay-matches").getByRole("button", { name: /second line with a needle/ }).click();
  await shows(page, "needle");
  const found = await probe(page);
  assert.ok(found.position >= 2_500 && !found.screen.join("\n").includes("LAST"), JSON.stringify(found));
  await shoot(page, "replay");
  await page.setViewportSize(phone);
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= phone.width, `the page is ${width} px wide on a phone`);
  await page.setViewportSize(desktop);
  // The slider is the position.
  await page.getByTestId("replay-slider").focus();
  await page.keyboard.press("End");
  await shows(page, "LAST");
  await page.goto("/sessions/played/replay?t=2");
  await untilReplay(page, { position: 2000, isLoading: false });
  assert.deepEqual(page.errors, []);
  await page.context().close();
});

test("without a copy on the relay, an honest sentence tells how to have one", async () => {
  await record("alone");
  const page = await logIn(browser, world);
  await page.goto("/sessions/alone");
  await page.getByTestId("session-menu").click();
  await page.getByTestId("do-replay").click();
  await untilReplay(page, { source: "machine" });
  await world.do("kill_daemon");
  try {
    await page.reload();
    await page.getByTestId("replay-none").waitFor();
    const text = await page.getByTestId("replay-none").innerText();
    assert.match(text, /is away/);
    assert.match(text, /history = "full"/);
    await shoot(page, "replay-none");
  } finally {
    await world.do("run_daemon");
  }
  assert.deepEqual(page.errors, []);
  await page.context().close();
});

test("the relay's copy is replayed and searched while the machine is away, in French too", async () => {
  const dir = join(world.home, "config/claudenest-agent");
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, "config.toml"), 'history = "full"\n');
  await world.do("kill_daemon");
  await world.do("run_daemon");
  const id = await record("kept");
  const page = await logIn(browser, world);
  await page.evaluate(() => localStorage.setItem("claudenest.prefs", '{"locale":"fr"}'));
  // The relay tells nobody when history arrives.
  let run = null;
  for (const since = Date.now(); Date.now() - since < 60_000 && !(run?.duration_ms >= 3_900); ) {
    run = await page.evaluate(async (id) => {
      await new Promise((done) => requestAnimationFrame(done));
      return (await (await fetch(`/api/sessions/${id}/history?source=relay`)).json()).runs[0] ?? null;
    }, id);
  }
  await world.do("kill_daemon");
  try {
    await page.goto("/sessions/kept/replay");
    await untilReplay(page, { isLoading: false });
    await page.waitForFunction(() => ["machine", "relay"].includes(window.__claudenest.replay().source));
    // The relay may take a moment to see that the machine is gone.
    for (let turn = 0; turn < 50 && (await probe(page)).source !== "relay"; turn++) {
      await page.reload();
      await untilReplay(page, { isLoading: false });
    }
    assert.equal((await probe(page)).source, "relay");
    assert.match(await page.getByTestId("replay-source").innerText(), /copie de ce relais/);
    await page.keyboard.press("ArrowUp");
    await shows(page, "LAST");
    assert.equal((await probe(page)).offset, run.end, "every byte was shown");
    await page.keyboard.press("/");
    await page.getByTestId("replay-query").fill("needle");
    await page.keyboard.press("Enter");
    await page.getByTestId("replay-matches").getByRole("button", { name: /needle/ }).click();
    await untilReplay(page, { isLoading: false });
    assert.ok(!(await probe(page)).screen.join("\n").includes("LAST"));
    await shoot(page, "replay-relay");
  } finally {
    await world.do("run_daemon");
  }
  assert.deepEqual(page.errors, []);
  await page.context().close();
});

test("a live session whose output is not being recorded says so with what to do, until recording goes on", async () => {
  const go = join(world.work, "go");
  const until = (step) => `until [ -e '${go}${step}' ]; do sleep 0.05; done`;
  const more = "printf 'more\\r\\n'";
  await world.agent("session", "new", "--mode", "shell", "--name", "unkept", "--dir", world.work, "--", "-c", [
    "printf 'begun\r\n'", until(1), more, until(2), more, until(3), "exit 0",
  ].join("; "));
  await world.agent("session", "wait", "unkept", "--for", "running");
  const sessions = join(world.home, "data/sessions");
  const id = await idOf("unkept");
  const entry = readdirSync(sessions, { recursive: true }).find((path) => path.includes(id) && path.endsWith("/recording"));
  const recording = join(sessions, entry);

  const page = await logIn(browser, world);
  await page.goto("/sessions/unkept");
  await page.waitForFunction((id) => window.__claudenest?.sessions[id]?.()?.screen.join("").includes("begun"), id);
  const bar = page.getByTestId("recording-problem");
  assert.equal(await bar.count(), 0);
  renameSync(recording, `${recording}.away`);
  writeFileSync(`${go}1`, "");
  await bar.waitFor();
  assert.match(await bar.innerText(), /not being recorded now.*Make room there, and recording goes on by itself/s);
  await shoot(page, "session-not-recorded");
  renameSync(`${recording}.away`, recording);
  writeFileSync(`${go}2`, "");
  await bar.waitFor({ state: "detached" });
  writeFileSync(`${go}3`, "");
  await world.agent("session", "wait", "unkept");
  assert.deepEqual(page.errors, []);
  await page.context().close();
});

test("exports are played by asciinema's own player and show the same text", async () => {
  await record("exported");
  const bundle = join(here, "node_modules/asciinema-player/dist/bundle");
  const context = await browser.newContext({ viewport: desktop });
  const page = await context.newPage();
  await page.setContent("<!doctype html><div id=player></div>");
  await page.addStyleTag({ content: readFileSync(join(bundle, "asciinema-player.css"), "utf8") });
  await page.addScriptTag({ content: readFileSync(join(bundle, "asciinema-player.min.js"), "utf8") });
  for (const format of ["asciicast-v2", "asciicast-v3"]) {
    const cast = await world.agent("session", "export", "exported", "--format", format);
    const { duration, text } = await page.evaluate(async (data) => {
      const node = document.querySelector("#player");
      node.replaceChildren();
      const player = AsciinemaPlayer.create({ data }, node, { preload: true, cols: 80, rows: 24 });
      await player.play();
      const duration = await player.getDuration();
      await player.pause();
      await player.seek(duration);
      for (let frame = 0; frame < 30; frame++) await new Promise((done) => requestAnimationFrame(done));
      const text = node.innerText;
      player.dispose();
      return { duration, text };
    }, cast);
    assert.ok(duration >= 3.9 && duration < 30, `${format}: ${duration} s`);
    for (const line of ["first red line", "second line with a needle", "LAST"]) {
      assert.ok(text.replaceAll(/\s+/g, " ").includes(line), `${format}: ${JSON.stringify(text)}`);
    }
  }
  await context.close();
});
