import type { Socket } from "node:net";

/**
 * Ends a connection by RST. A socket that was ended but has not sent everything cannot be reset: libuv refuses, Node 24
 * believes it was done, and the process then spins for ever when it exits. Such a one is destroyed.
 */
export function resetSocket(socket: Socket): void {
  if (socket.destroyed) return;
  if (socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}
