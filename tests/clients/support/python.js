// The Python of the virtual environment that tests/setup.sh makes.

import assert from "node:assert/strict";
import fs from "node:fs";
import { fileURLToPath } from "node:url";

/** The interpreter; a missing one is a failure with its remedy. */
export function python() {
  const file = fileURLToPath(new URL("../.venv/bin/python", import.meta.url));
  assert.ok(fs.existsSync(file), `${file} is missing: run \`tests/setup.sh\``);
  return file;
}
