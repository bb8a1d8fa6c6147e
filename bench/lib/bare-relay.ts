import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { open } from "node:fs/promises";
import { createServer, get, type IncomingMessage, type ServerResponse } from "node:http";
import { Agent, get as getByTls } from "node:https";
import { createInterface } from "node:readline";

export interface BareRelay extends AsyncDisposable {
  readonly url: string;
}

/**
 * The least that a relay has to do, as a process of its own: each path is fetched from there at `from` (http or https), hashed,
 * written to `file` (its name goes on with the path), and sent on as it comes. No pieces, no failover, no limits, no second
 * reader.
 * @param netns to run in
 */
export async function startBareRelay(from: string, file: string, netns?: string): Promise<BareRelay> {
  const inside = netns === undefined ? [] : ["ip", "netns", "exec", netns];
  const own = [process.execPath, ...process.execArgv, import.meta.filename, from, file];
  const [command = "", ...args] = [...inside, ...own];
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
  const [port] = (await once(createInterface(child.stdout), "line")) as [string];
  return {
    url: `http://127.0.0.1:${port}/`,
    [Symbol.asyncDispose]: async () => {
      child.kill();
      await once(child, "exit");
    },
  };
}

/** Written at a time; while one write is under way the next one is gathered. */
const BATCH_BYTES = 512 * 1024;

async function relay(source: IncomingMessage, response: ServerResponse, path: string): Promise<void> {
  const file = await open(path, "w");
  const hash = createHash("sha256");
  let batch: Buffer[] = [];
  let gathered = 0;
  const disk: { writing: Promise<unknown> | undefined } = { writing: undefined };
  const write = (): void => {
    const buffers = batch;
    batch = [];
    gathered = 0;
    disk.writing = file.writev(buffers).finally(() => {
      disk.writing = undefined;
      if (gathered >= BATCH_BYTES) write();
      if (!response.writableNeedDrain) source.resume();
    });
  };
  const { connection: _, ...headers } = source.headers;
  response.writeHead(source.statusCode ?? 502, headers);
  response.on("drain", () => {
    if (disk.writing === undefined || gathered < BATCH_BYTES) source.resume();
  });
  source.on("data", (chunk: Buffer) => {
    hash.update(chunk);
    batch.push(chunk);
    gathered += chunk.length;
    if (gathered >= BATCH_BYTES && disk.writing === undefined) write();
    if (!response.write(chunk) || gathered >= BATCH_BYTES) source.pause();
  });
  await once(source, "end");
  while (disk.writing !== undefined) await disk.writing;
  await file.writev(batch);
  await file.close();
  hash.digest();
  response.end();
}

if (import.meta.main) {
  const [from = "", path = ""] = process.argv.slice(2);
  const agent = new Agent({ keepAlive: true, rejectUnauthorized: false });
  const server = createServer(({ method, url = "/", headers: { accept } }, response) => {
    const options = { method, headers: { "user-agent": "bare-relay", ...(accept && { accept }) } };
    const file = `${path}${url.slice(1).replaceAll("/", "-")}`;
    const forward = (source: IncomingMessage): void => void relay(source, response, file);
    const target = new URL(url, from);
    if (target.protocol === "https:") getByTls(target, { ...options, agent }, forward);
    else get(target, options, forward);
  });
  server.listen(0, "127.0.0.1", () => {
    const address = server.address();
    console.log(typeof address === "object" ? address?.port : "");
  });
}
