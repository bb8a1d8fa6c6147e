import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { Plugin } from "esbuild";

/** As undici's own index.js puts them together. What the program imports beside these, esbuild reports as an error. */
const PART = `
import Dispatcher from "./lib/dispatcher/dispatcher.js";
import api from "./lib/api/index.js";
Object.assign(Dispatcher.prototype, api);
export { default as Agent } from "./lib/dispatcher/agent.js";
export { default as Pool } from "./lib/dispatcher/pool.js";
export { default as ProxyAgent } from "./lib/dispatcher/proxy-agent.js";
export { default as buildConnector } from "./lib/core/connect.js";
export { default as errors } from "./lib/core/errors.js";
`;

/**
 * undici without fetch, WebSocket, caches and mocks: it loads all of them at once, and they stay in memory (1.7 MiB).
 * @param from a folder that undici is looked for from
 */
export const partOfUndici = (from: string): Plugin => ({
  name: "part of undici",
  setup(build) {
    const home = dirname(createRequire(join(from, "package.json")).resolve("undici"));
    // No path of this machine: what it is called decides the names of what comes out.
    build.onResolve({ filter: /^undici$/ }, () => ({ path: "undici", namespace: "part" }));
    build.onLoad({ filter: /./, namespace: "part" }, () => ({ contents: PART, resolveDir: home }));
  },
});
