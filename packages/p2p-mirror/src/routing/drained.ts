import type { Stream } from "@libp2p/interface";
import { raceSignal } from "@p2p-mirror/shared";

/**
 * Resolves when a stream has room for more; rejects when it is closed before. `stream.onDrain()` waits once in the life of a
 * stream only (@libp2p/utils 7.4: its promise is made once): after that nothing would hold back what is sent. (The streams of
 * the swarm have a bound of their own on what waits, `swarm/libp2p-wire.ts`.)
 */
export async function drained(stream: Stream, signal?: AbortSignal): Promise<void> {
  if (!stream.writableNeedsDrain) return;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onDrain = (): void => resolve();
  const onClose = (): void => reject(new Error("the stream was closed"));
  stream.addEventListener("drain", onDrain);
  stream.addEventListener("close", onClose);
  try {
    await raceSignal(promise, signal);
  } finally {
    stream.removeEventListener("drain", onDrain);
    stream.removeEventListener("close", onClose);
  }
}
