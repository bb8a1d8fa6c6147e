import { randomInt } from "node:crypto";
import { createServer } from "node:net";
import { RigError } from "./errors.ts";

/** Below what Linux gives to connections (net.ipv4.ip_local_port_range, from 32768): these would take a port at any time. */
const FIRST = 20_000;
const END = 32_000;
const TRIES = 100;
/** By this process, to programs that may not listen yet. */
const given = new Set<number>();

/**
 * A TCP port that is free now. Another process can take it before it is used: for programs that cannot listen on port
 * 0 and say which one they got.
 */
export async function freePort(address = "127.0.0.1"): Promise<number> {
  for (let left = TRIES; left > 0; left -= 1) {
    const port = randomInt(FIRST, END);
    if (given.has(port)) continue;
    given.add(port);
    if (await isFree(port, address)) return port;
  }
  throw new RigError("COMMAND_FAILED", "no TCP port to be had");
}

async function isFree(port: number, address: string): Promise<boolean> {
  const server = createServer();
  const listens = await new Promise<boolean>((resolve) => {
    server.once("error", () => resolve(false)).listen(port, address, () => resolve(true));
  });
  if (listens) await new Promise<void>((resolve) => void server.close(() => resolve()));
  return listens;
}
