import type { Readable } from "node:stream";

/** A byte stream as what it is: iterating a Readable is typed `any`. The stream must not have an encoding or objects. */
export function chunksOf(stream: Readable): AsyncIterable<Buffer> {
  return stream;
}

/**
 * Gives every chunk of a stream to `take`, in order, until the end or until `take` says that it is enough (false). While
 * a promise of `take` is pending the stream is paused. Rejects with the stream's error, or that of `take`. The stream is
 * not destroyed: that is up to the caller.
 *
 * Unlike iterating, which makes one new buffer of all that is buffered, this hands over the chunks as they came: with
 * gigabytes a copy and a lot of garbage less.
 */
export function consume(
  stream: Readable,
  take: (chunk: Buffer) => boolean | Promise<boolean>,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const settle = (end: () => void): void => {
    stream.off("data", onData).off("end", onEnd).off("error", onError).off("close", onClose).pause();
    end();
  };
  const goOn = (more: boolean): void => {
    if (more) stream.resume();
    else settle(resolve);
  };
  const onError = (error: unknown): void =>
    settle(() => reject(error instanceof Error ? error : new Error("the stream failed", { cause: error })));
  const onEnd = (): void => settle(resolve);
  const onClose = (): void => onError(stream.errored ?? new Error("the stream was closed before its end"));
  const onData = (chunk: Buffer): void => {
    try {
      const more = take(chunk);
      if (more === true) return;
      stream.pause();
      if (more === false) settle(resolve);
      else more.then(goOn, onError);
    } catch (error) {
      onError(error);
    }
  };
  if (stream.errored !== null) return Promise.reject(stream.errored);
  stream.on("error", onError).on("close", onClose).on("end", onEnd).on("data", onData);
  return promise;
}
