// The inbox with the real Claude Code: asks come by themselves, the answer of the browser is what Claude follows, and a machine that is away is shown as such.
import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { after, before, test } from "node:test";
import { AxeBuilder } from "@axe-core/playwright";
import { World, focusTerminal, logIn, openSession, phone, shoot, startBrowser, untilScreen } from "./world.mjs";

/** What issue and README promise, from the machine's ask to the page and from the click to Claude. */
const PROMISED_MS = 1_000;

let world, browser, page, terminal, id;
before(async () => {
  [world, browser] = await Promise.all([World.start(), startBrowser()]);
  await world.useClaude("real");
  const write = (file) => ({ content: [{ type: "tool_use", name: "Write", input: { file_path: "${cwd}/" + file, content: "42 eggs\n" } }] });
  await world.do("script_mock", {
    scenario: {
      turns: [
        write("eggs.txt"),
        { content: ["The eggs are written down."] },
        write("denied.txt"),
        { content: ["Then I leave it."] },
        {
          content: [
            {
              type: "tool_use",
              name: "AskUserQuestion",
              input: {
                questions: [
                  {
                    question: "Which nest?",
                    header: "Nest",
                    multiSelect: false,
                    options: [
                      { label: "The old one", description: "on the roof" },
                      { label: "The new one", description: "in the oak" },
                    ],
                  },
                ],
              },
            },
          ],
        },
        { content: ["So be it."] },
        write("later.txt"),
        { content: ["Written after all."] },
      ],
      after: { content: ["Nothing more."] },
    },
  });
  await world.agent("session", "new", "--name", "nest", "--dir", world.work, "--permission-mode", "default");
  page = await logIn(browser, world);
  terminal = await page.context().newPage();
  terminal.errors = page.errors;
  id = await openSession(terminal, world, "nest");
  await untilScreen(terminal, id, "❯");
  await page.goto("/inbox");
  await page.getByTestId("inbox-empty").waitFor();
});
after(async () => {
  await browser?.close();
  await world?.stop();
});

/** Types a prompt as a person does. */
async function prompt(text) {
  await terminal.bringToFront();
  await focusTerminal(terminal);
  await terminal.keyboard.type(text);
  await untilScreen(terminal, id, text);
  await terminal.keyboard.press("Enter");
}

/** Notes in the page when each ask and each tick appears. */
const watchPage = () =>
  page.evaluate(() => {
    window.__seen = {};
    const look = () => {
      for (const ask of document.querySelectorAll("[data-ask]")) window.__seen[ask.dataset.ask] ??= Date.now();
      for (const ask of document.querySelectorAll('[data-ask][data-state="applied"]')) window.__seen[`${ask.dataset.ask} applied`] ??= Date.now();
    };
    new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributes: true });
    look();
  });

const asks = (page) => page.getByTestId("asks").getByTestId("ask");

test("an ask is in the inbox within a second, and Claude goes on within a second of the click", async () => {
  await watchPage();
  await prompt("Write it down.");
  await page.bringToFront();
  const ask = asks(page);
  await ask.waitFor();
  await shoot(page, "inbox-real");
  const shown = await page.evaluate(async () => (await (await fetch("/api/approvals")).json()).approvals[0]);
  assert.equal(shown.tool, "Write");
  assert.match(await ask.innerText(), /eggs\.txt[\s\S]*42 eggs/);
  assert.match(await page.title(), /^\(1\)/);
  const seen = await page.evaluate((id) => window.__seen[id], shown.id);
  assert.ok(seen - shown.created_at <= PROMISED_MS, `visible after ${seen - shown.created_at} ms`);

  const clicked = await page.evaluate(() => {
    document.querySelector('[data-testid="ask-allow"]').click();
    return Date.now();
  });
  await page.waitForFunction((id) => window.__seen[`${id} applied`], shown.id, { timeout: 30_000 });
  const applied = await page.evaluate((id) => window.__seen[`${id} applied`], shown.id);
  await untilScreen(terminal, id, "The eggs are written down.");
  // Claude has gone on when the tool has run; the third tick follows when its hook has said so.
  const ran = Math.round(statSync(`${world.work}/eggs.txt`).mtimeMs) - clicked;
  console.log(`visible after ${seen - shown.created_at} ms; the tool ran ${ran} ms after the click, the third tick came after ${applied - clicked} ms`);
  assert.ok(ran <= PROMISED_MS, `the tool ran ${ran} ms after the click`);
  assert.equal(await world.do("read_file", { path: `${world.work}/eggs.txt` }), "42 eggs\n");
  const answered = page.locator(`[data-testid="answered-ask"][data-ask="${shown.id}"]`);
  assert.match(await answered.innerText(), new RegExp(world.email.replace(".", "\\.")));
});

test("a refusal from the bar above the terminal reaches Claude with its reason, and nothing is written", async () => {
  await prompt("Write another.");
  const bar = terminal.getByTestId("ask-bar");
  await bar.waitFor();
  const covered = await terminal.evaluate(() => {
    const [bar, room] = [document.querySelector('[data-testid="ask-bar"]'), document.querySelector('[data-testid="terminal"]')];
    return bar.getBoundingClientRect().bottom > room.getBoundingClientRect().top + 1;
  });
  assert.equal(covered, false, "the bar has its own room");
  await shoot(terminal, "ask-bar");
  await terminal.getByTestId("ask-bar-open").click();
  // Keys: the card has the focus.
  await terminal.locator('[data-testid="ask"]:focus').waitFor();
  await terminal.keyboard.press("d");
  await terminal.getByTestId("ask-reason").fill("Not this one, please.");
  await terminal.keyboard.press("Control+Enter");
  await bar.waitFor({ state: "detached" });
  await untilScreen(terminal, id, "Then I leave it.");
  await assert.rejects(world.do("read_file", { path: `${world.work}/denied.txt` }));
  const requests = JSON.stringify(await world.do("mock_requests"));
  assert.ok(requests.includes("Not this one, please."), "Claude was told why");
});

test("a question is answered in the inbox", async () => {
  await prompt("Ask me.");
  await page.bringToFront();
  await page.getByTestId("ask-choice").nth(1).check();
  await shoot(page, "inbox-question");
  await page.getByTestId("ask-answer").click();
  await untilScreen(terminal, id, "So be it.");
  const requests = JSON.stringify(await world.do("mock_requests"));
  assert.ok(requests.includes("The new one"), "Claude has the answer");
});

test("while the machine is away its ask is shown as it was and takes no answer; afterwards it does", async () => {
  await prompt("Once more.");
  await page.bringToFront();
  await asks(page).waitFor();
  await world.do("kill_daemon");
  await page.getByTestId("ask-away").waitFor();
  assert.equal(await page.getByTestId("ask-allow").isDisabled(), true);
  await shoot(page, "inbox-away");
  await world.do("run_daemon");
  await page.getByTestId("ask-away").waitFor({ state: "detached" });
  // The keyboard alone: to the first ask, allow it.
  await page.locator("body").click({ position: { x: 2, y: 400 } });
  await page.keyboard.press("j");
  await page.locator('[data-testid="ask"]:focus').waitFor();
  await page.keyboard.press("a");
  await untilScreen(terminal, id, "Written after all.");
  assert.equal(await world.do("read_file", { path: `${world.work}/later.txt` }), "42 eggs\n");
});

test("identical asks of two sessions stand together and are answered together", async () => {
  await world.do("script_mock", {
    scenario: {
      turns: [
        { content: [{ type: "tool_use", name: "Bash", input: { command: "make --version", description: "Which make?" } }] },
        { content: ["So that is it."] },
      ],
      after: { content: ["Nothing more."] },
    },
  });
  await page.goto("/inbox");
  for (const name of ["twin-a", "twin-b"]) {
    await world.agent("session", "new", "--name", name, "--dir", world.work, "--permission-mode", "default", "--prompt", "Look.");
  }
  const ask = asks(page).filter({ hasText: "make --version" });
  await ask.getByText("twin-a").waitFor();
  await ask.getByText("twin-b").waitFor();
  assert.equal(await ask.count(), 1);
  await shoot(page, "inbox-twins");
  await ask.getByTestId("ask-allow").click();
  await page.mouse.move(1, 1);
  const answered = page.getByTestId("answered-ask").filter({ hasText: "make --version" });
  await answered.nth(1).waitFor();
  for (const name of ["twin-a", "twin-b"]) assert.match(await answered.filter({ hasText: name }).innerText(), /alice@example\.com/);
});

test("high risk wants the button held; a click is not enough", async () => {
  await world.do("script_mock", {
    scenario: {
      turns: [
        { content: [{ type: "tool_use", name: "Bash", input: { command: "rm -rf /no-such-nest", description: "Clear the nest" } }] },
        { content: ["Cleared."] },
      ],
      after: { content: ["Nothing more."] },
    },
  });
  await page.goto("/inbox");
  await world.agent("session", "new", "--name", "risky", "--dir", world.work, "--permission-mode", "default", "--prompt", "Clear it.");
  const ask = asks(page).filter({ hasText: "no-such-nest" });
  await ask.waitFor();
  assert.equal(await ask.locator("[data-risk]").getAttribute("data-risk"), "high");
  const allow = ask.getByTestId("ask-allow");
  await allow.click();
  assert.equal(await ask.getAttribute("data-state"), "pending");
  const box = await allow.boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  const pressed = Date.now();
  await page.mouse.down();
  const answered = page.getByTestId("answered-ask").filter({ hasText: "no-such-nest" });
  await answered.waitFor();
  const held = Date.now() - pressed;
  await page.mouse.up();
  assert.ok(held >= 800, `answered after ${held} ms`);
  assert.equal(await answered.getAttribute("data-state"), "applied");
});

test("a lock is taken and given back on the locks page, and other pages follow", async () => {
  await page.goto("/locks");
  const other = await page.context().newPage();
  await other.goto("/locks");
  await page.getByTestId("take-lock").click();
  await page.getByTestId("lock-path").fill("relative.txt");
  await page.getByTestId("lock-submit").click();
  await page.getByTestId("lock-problem").waitFor();
  const path = `${world.work}/mine.txt`;
  await page.getByTestId("lock-path").fill(path);
  await page.getByTestId("lock-reason").fill("I edit it by hand");
  await page.getByTestId("lock-submit").click();
  const mine = (page) => page.getByTestId("lock").filter({ hasText: "mine.txt" });
  await mine(other).waitFor();
  assert.match(await mine(other).innerText(), /I edit it by hand/);
  assert.match(await world.agent("locks", "list"), /mine\.txt/);
  await shoot(page, "locks-real");
  await mine(page).getByTestId("lock-release").click();
  await page.getByTestId("dialog-confirm").click();
  await mine(other).waitFor({ state: "detached" });
  await other.close();
});

test("inbox and locks on a phone, in French, and axe finds nothing", async () => {
  const small = await logIn(browser, world, { viewport: phone, prefs: { locale: "fr" } });
  await small.goto("/");
  await small.waitForURL((url) => url.pathname === "/inbox");
  await small.getByText("Demandes").first().waitFor();
  const found = [];
  for (const [shown, path] of [
    [small, "/inbox"],
    [small, "/locks"],
    [page, "/inbox"],
    [page, "/locks"],
  ]) {
    await shown.goto(path);
    await shown.waitForLoadState("networkidle");
    const { violations } = await new AxeBuilder({ page: shown }).analyze();
    found.push(...violations.flatMap(({ id, nodes }) => nodes.map((node) => `${path} ${id}: ${node.target}`)));
  }
  assert.deepEqual(found, []);
  assert.deepEqual(page.errors, []);
  assert.deepEqual(small.errors, []);
  await small.context().close();
});
