// Child processes that say when they are ready: started, read line by line, and stopped with their exit code known.

import { spawn } from "node:child_process";
import { once } from "node:events";
import readline from "node:readline";

import { within } from "./deadline.js";

/** A running child. Its lines are kept, so that a failure can show them. */
export class Child {
  #process;
  #exit;
  #lines = [];
  #waiting = new Set();

  constructor(command, args, options = {}) {
    this.name = [command, ...args].join(" ");
    this.#process = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], ...options });
    const spawned = once(this.#process, "spawn");
    // "close" and not "exit": by then the last line has been read.
    this.#exit = spawned.then(() => once(this.#process, "close")).then(([code, signal]) => signal ?? code);
    this.#exit.catch(() => {});
    this.#exit.then(() => this.#look(), () => this.#look());
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      readline.createInterface({ input: stream }).on("line", (line) => {
        this.#lines.push(line);
        this.#look();
      });
    }
    // A test file that ends early leaves nothing behind.
    const kill = () => this.#process.kill("SIGKILL");
    process.once("exit", kill);
    this.#process.once("close", () => process.off("exit", kill));
  }

  /** Everything it has printed so far, both streams in the order of arrival. */
  get output() {
    return this.#lines.join("\n");
  }

  /** Whether it has not ended yet. */
  get running() {
    return this.#process.exitCode === null && this.#process.signalCode === null;
  }

  /** How many lines have been printed: where a later search with `line` may start. */
  get length() {
    return this.#lines.length;
  }

  /** The first value other than `undefined` that `pick` makes of a line, from the line number `from` on. */
  async line(what, pick, from = 0) {
    return within(
      new Promise((resolve, reject) => {
        let next = from;
        const look = () => {
          for (; next < this.#lines.length; next += 1) {
            const found = pick(this.#lines[next]);
            if (found !== undefined) {
              this.#waiting.delete(look);
              return resolve(found);
            }
          }
        };
        this.#waiting.add(look);
        look();
        this.#exit.then(
          (code) => reject(new Error(`${this.name} ended with ${code} before ${what}:\n${this.output}`)),
          reject,
        );
      }),
      () => `${what} from ${this.name}, which printed:\n${this.output}`,
    );
  }

  /** Its exit code, or the name of the signal that ended it. */
  exited() {
    return within(this.#exit, () => `the end of ${this.name}, which printed:\n${this.output}`);
  }

  /** Asks it to end, and answers with its exit code. */
  stop(signal = "SIGTERM") {
    this.#process.kill(signal);
    return this.exited();
  }

  #look() {
    for (const look of [...this.#waiting]) look();
  }
}
