#!/usr/bin/env node
/**
 * The way into the checkout on a fresh machine: `node test/rig/run.mjs demo|test|bench [arguments]`.
 *
 * Plain JavaScript without dependencies, because it runs on whatever Node (>= 20) and before any package is there. It
 * makes the checkout ready, then hands over to the project's own Node. Exit codes: that of the command; 2 for a wrong
 * call; 1 where the checkout cannot be made ready.
 */
import { existsSync } from "node:fs";
import path from "node:path";
import { launch } from "./launch.mjs";
import { PrepareError, prepareCheckout } from "./prepare.mjs";
import { runTests } from "./run-tests.mjs";

const root = path.resolve(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), "../..");

/** Development and tests run the TypeScript sources of all workspaces, not their builds. */
const NODE_FLAGS = ["--conditions=@p2p-mirror/source", "--disable-warning=ExperimentalWarning"];

const script = (file) => async (node, args) => {
  if (!existsSync(path.join(root, file))) {
    console.error(`${file} does not exist in this checkout.`);
    return 1;
  }
  return launch(node, [...NODE_FLAGS, file, ...args], { root });
};

const COMMANDS = {
  test: (node, args) => runTests({ node, root, args, nodeFlags: NODE_FLAGS }),
  bench: script("bench/main.ts"),
  demo: script("bench/demo.ts"),
};

const [command = "", ...args] = process.argv.slice(2);
if (!Object.hasOwn(COMMANDS, command)) {
  console.error(`usage: node test/rig/run.mjs ${Object.keys(COMMANDS).join("|")} [arguments]`);
  process.exitCode = 2;
} else {
  try {
    const node = await prepareCheckout(root, (line) => console.error(line));
    process.exitCode = await COMMANDS[command](node, args);
  } catch (error) {
    if (!(error instanceof PrepareError)) throw error;
    console.error(error.message);
    process.exitCode = 1;
  }
}
