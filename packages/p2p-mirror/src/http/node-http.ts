import type * as NodeHttp from "node:http";
import { createRequire } from "node:module";

const nodeHttp: typeof NodeHttp = createRequire(import.meta.url)("node:http");

/**
 * What the program uses of `node:http`. An `import` of that module reads all it exports, and the getters of `WebSocket` and
 * its events load the whole `fetch` of Node.js: 4 MiB of resident memory that nothing here uses (docs/performance.md).
 */
export const { createServer, STATUS_CODES } = nodeHttp;
