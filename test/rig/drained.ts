import type { EventEmitter } from "node:events";

/** Resolves when the stream wants more, or is gone; leaves no listener behind (`Promise.race` of two `once` would). */
export function drained(stream: EventEmitter): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      stream.off("drain", done).off("close", done);
      resolve();
    };
    stream.once("drain", done).once("close", done);
  });
}
