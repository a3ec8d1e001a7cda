// Waiting for something that has to happen: with a deadline, and with an error that names what did not.

/** Generous, because nothing waits for it unless something is broken. */
export const DEADLINE_MS = 15_000;

/** What `promise` resolves to, or an error that says what was waited for; `what` is asked only then. */
export function within(promise, what, milliseconds = DEADLINE_MS) {
  let timer;
  const deadline = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${milliseconds} ms for ${what()}`)), milliseconds);
  });
  return Promise.race([promise, deadline]).finally(() => clearTimeout(timer));
}
