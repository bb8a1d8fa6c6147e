/**
 * The registry with faults as a process of its own, so that it can live in a network namespace: HOST PORT [MS] as
 * arguments, blobs being redirected by links that live MS milliseconds where that is given. Its faults are set by a POST
 * of their JSON to the next port.
 */
import { once } from "node:events";
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { startOciRegistry, type Fault } from "./oci-registry.ts";

const [, , host = "127.0.0.1", port = "0", lifeMs] = process.argv;
const registry = await startOciRegistry({
  host,
  port: Number(port),
  ...(lifeMs === undefined ? {} : { redirectBlobs: { lifeMs: Number(lifeMs) } }),
});

const parse = (json: string): Fault[] => {
  const faults: unknown = JSON.parse(json);
  return Array.isArray(faults) ? faults : [];
};

const GIVES_BYTES = new Set(["blob", "storage"]);

/** Answers with what was asked of blobs, or of where they lie, since the last change of faults. */
const control = createServer((request, response) => {
  const answer = async (): Promise<void> => {
    const body = await text(request);
    const asked = registry.requests
      .filter(({ kind }) => GIVES_BYTES.has(kind))
      .map(({ status, bytesSent }) => ({ status, bytesSent }));
    if (request.method === "POST") {
      registry.forget();
      registry.faults.set(parse(body));
    }
    response.end(JSON.stringify(asked));
  };
  answer().catch((error: unknown) => response.writeHead(500).end(String(error)));
});
control.listen(Number(port) + 1, host);
await once(control, "listening");
