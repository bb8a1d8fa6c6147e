import { createServer } from "node:net";
import { RigError } from "./errors.ts";

/**
 * A TCP port that is free now. Another process can take it before it is used: for programs that cannot listen on port
 * 0 and say which one they got.
 */
export async function freePort(address = "127.0.0.1"): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject).listen(0, address, resolve);
  });
  const bound = server.address();
  await new Promise<void>((resolve) => void server.close(() => resolve()));
  if (bound === null || typeof bound === "string")
    throw new RigError("COMMAND_FAILED", "no TCP port to be had");
  return bound.port;
}
