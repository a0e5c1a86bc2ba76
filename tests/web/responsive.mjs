// How long a page keeps a person waiting: whether it answers at all, and from a key to its picture.

/** Longest time for which a page may not answer, and from a key to the picture with its echo (issue: every bomb). */
export const ANSWER_MS = 100;
/** An idle page that is later than this is on a busy machine. On a quiet one it is a few milliseconds late. */
const BUSY_MS = 30;

/** Counts, from now on, for how long the page does not answer. */
export const watch = (page) =>
  page.evaluate(() => {
    const channel = new MessageChannel();
    const run = { longest: 0, last: performance.now() };
    window.__answers = run;
    channel.port1.onmessage = () => {
      if (window.__answers !== run) return;
      const now = performance.now();
      run.longest = Math.max(run.longest, now - run.last);
      run.last = now;
      setTimeout(() => channel.port2.postMessage(0), 1);
    };
    channel.port2.postMessage(0);
  });

/** The longest time without an answer since `watch`. */
export const longest = (page) => page.evaluate(() => Math.max(window.__answers.longest, performance.now() - window.__answers.last));

/**
 * Measures something that a page does, beside an idle page in a process of its own. On a quiet machine the idle page is
 * never late, and what was measured counts as it is; on a busy one, what the idle page was late is taken off.
 */
export async function beside(idle, measure) {
  await watch(idle);
  const ms = await measure();
  const late = await longest(idle);
  return { ms, due: Math.max(0, late > BUSY_MS ? ms - late : ms) };
}

/** Makes the page measure from the next press of `key` to the picture in which `isThere(screen)`, a function's text, holds. */
export const awaitKey = (page, session, key, isThere) =>
  page.evaluate(
    ([session, key, isThere]) => {
      const test = new Function("screen", `return (${isThere})(screen)`);
      window.__shown = new Promise((resolve) => {
        const onKey = (event) => {
          if (event.key.toLowerCase() !== key) return;
          removeEventListener("keydown", onKey, true);
          const pressed = event.timeStamp;
          const look = () => {
            if (test(window.__claudenest.sessions[session]().screen)) requestAnimationFrame(() => resolve(performance.now() - pressed));
            else requestAnimationFrame(look);
          };
          look();
        };
        addEventListener("keydown", onKey, true);
      });
    },
    [session, key, `${isThere}`],
  );

/** Milliseconds from that key to that picture. */
export const keyShown = (page) => page.evaluate(() => window.__shown);
