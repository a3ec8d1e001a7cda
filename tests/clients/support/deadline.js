// Waiting for something that has to happen: with a deadline, and with an error that names what did not.

import { setTimeout } from "node:timers/promises";

/** Generous, because nothing waits for it unless something is broken. */
export const DEADLINE_MS = 15_000;

/** What `promise` resolves to, or an error that says what was waited for; `what` is asked only then. */
export function within(promise, what, milliseconds = DEADLINE_MS) {
  let timer;
  const deadline = new Promise((_, reject) => {
    timer = globalThis.setTimeout(() => reject(new Error(`waited ${milliseconds} ms for ${what()}`)), milliseconds);
  });
  return Promise.race([promise, deadline]).finally(() => clearTimeout(timer));
}

/** Asks `look` again and again until it answers with something that is true, and returns that. */
export async function until(what, look, milliseconds = DEADLINE_MS) {
  let seen;
  let over = false;
  const found = (async () => {
    while (!over) {
      seen = await look();
      if (seen) return seen;
      await setTimeout(20);
    }
  })();
  try {
    return await within(found, () => `${what}; it was ${JSON.stringify(seen)}`, milliseconds);
  } finally {
    over = true;
  }
}
