import { readFile } from "node:fs/promises";
import type { FastifyInstance } from "fastify";
import type { StatusFeed } from "./status-feed.ts";

export interface StatusPageDeps {
  /** Folder with the files of the page, `page/` beside `src/`. */
  readonly folder: URL;
  readonly feed: StatusFeed;
}

const TYPES = { html: "text/html", css: "text/css", js: "text/javascript" } as const;

/** All there is; nothing else of the folder is given out. */
const FILES: Readonly<Record<string, keyof typeof TYPES>> = {
  "index.html": "html",
  "page.css": "css",
  "page.js": "js",
  "sections.js": "js",
  "elements.js": "js",
  "format.js": "js",
};

const HEADERS = {
  // Only what comes from here, and no script or style inside the page: names from peers and registries stay text.
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cache-control": "no-cache",
};

/** `/`, the page that shows the status, and `/events`, what it shows. Files are read when asked for: hardly anybody asks. */
export function addStatusPage(app: FastifyInstance, { folder, feed }: StatusPageDeps): void {
  for (const [name, type] of Object.entries(FILES)) {
    app.get(name === "index.html" ? "/" : `/${name}`, async (_request, reply) =>
      reply
        .headers(HEADERS)
        .type(`${TYPES[type]}; charset=utf-8`)
        .send(await readFile(new URL(name, folder))),
    );
  }
  app.get("/events", { exposeHeadRoute: false }, (_request, reply) => {
    if (!feed.add(reply.raw)) return reply.code(503).send({ error: "too many watch already" });
    return reply.hijack();
  });
}
