import { raceSignal } from "@p2p-mirror/shared";

/** A stream of libp2p, as far as it matters here. */
export interface Drainable {
  readonly writableNeedsDrain: boolean;
  addEventListener(type: "drain" | "close", listener: () => void): void;
  removeEventListener(type: "drain" | "close", listener: () => void): void;
}

/**
 * Resolves when a stream has room for more; rejects when it is closed before. `stream.onDrain()` waits once in the life of a
 * stream only (@libp2p/utils 7.4: its promise is made once): after that nothing would hold back what is sent.
 */
export async function drained(stream: Drainable, signal?: AbortSignal): Promise<void> {
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
