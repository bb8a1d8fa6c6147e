import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { HostPort } from "./addresses.ts";

const CONNECT_TIMEOUT_MS = 1_500;
const PAUSE_MS = 300;
const ATTEMPTS = 3;

async function accepts(address: HostPort, signal: AbortSignal): Promise<boolean> {
  const socket = connect({ host: address.host, port: address.port, signal });
  try {
    return await new Promise<boolean>((resolve) => {
      // A busy event loop runs late timers before it looks at sockets: one more turn, lest the other side is blamed.
      socket.setTimeout(CONNECT_TIMEOUT_MS, () => setImmediate(() => resolve(false)));
      socket.once("connect", () => resolve(true));
      socket.once("error", () => resolve(false));
    });
  } finally {
    socket.destroy();
  }
}

/**
 * Whether something still listens there: a plain TCP connection that is closed at once. libp2p closes connections it has
 * too many of, so a lost one proves nothing, and dialling again by libp2p would only make it close the next.
 */
export async function isListening(address: HostPort, signal: AbortSignal): Promise<boolean> {
  for (let attempt = 0; attempt < ATTEMPTS && !signal.aborted; attempt += 1) {
    if (attempt > 0) await sleep(PAUSE_MS, undefined, { signal }).catch(() => undefined);
    if (await accepts(address, signal)) return true;
  }
  return false;
}
