/**
 * The registry with faults as a process of its own, so that it can live in a network namespace: HOST PORT as arguments.
 * Its faults are set by a POST of their JSON to the next port.
 */
import { once } from "node:events";
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { startOciRegistry, type Fault } from "./oci-registry.ts";

const [, , host = "127.0.0.1", port = "0"] = process.argv;
const registry = await startOciRegistry({ host, port: Number(port) });

const parse = (json: string): Fault[] => {
  const faults: unknown = JSON.parse(json);
  return Array.isArray(faults) ? faults : [];
};

/** Statuses of what was asked of blobs since the last change of faults. */
const control = createServer((request, response) => {
  const answer = async (): Promise<void> => {
    const body = await text(request);
    const statuses = registry.requests.filter(({ kind }) => kind === "blob").map(({ status }) => status);
    if (request.method === "POST") {
      registry.forget();
      registry.faults.set(parse(body));
    }
    response.end(JSON.stringify(statuses));
  };
  answer().catch((error: unknown) => response.writeHead(500).end(String(error)));
});
control.listen(Number(port) + 1, host);
await once(control, "listening");
