import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BufferPool, digestOf, silentLogger, systemClock, type Clock } from "@p2p-mirror/shared";
import type { Test } from "tap";
import { Flight } from "../../src/transfer/flight.ts";
import type { SourceFinder } from "../../src/transfer/source.ts";
import { FileSpool, READ_BYTES, type Spool } from "../../src/transfer/spool.ts";

export const MIB = 1024 * 1024;

/** A real sparse file, as the cache gives it. */
export async function fileSpool(
  t: Test,
  size: number,
): Promise<Spool & { state: { committed: boolean; released: boolean } }> {
  const dir = await mkdtemp(join(tmpdir(), "flight-"));
  const file = await open(join(dir, "ingest"), "w+");
  await file.truncate(size);
  const state = { committed: false, released: false };
  const ingest = {
    file,
    keeps: true,
    commit: () => Promise.resolve(void (state.committed = true)),
    release: async () => {
      if (state.released) return;
      state.released = true;
      await file.close();
    },
  };
  t.teardown(async () => {
    await ingest.release();
    await rm(dir, { recursive: true, force: true });
  });
  const spool = new FileSpool(ingest, new BufferPool(READ_BYTES));
  return Object.assign(spool, { state });
}

/** The spool of a disk that is full after so many bytes. */
export function fullAfter(spool: Spool, bytes: number): Spool {
  let written = 0;
  return {
    base: 0,
    room: Infinity,
    windowed: false,
    inMemory: false,
    write: async (offset, buffers) => {
      written += buffers.reduce((sum, one) => sum + one.length, 0);
      if (written > bytes) throw Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
      await spool.write(offset, buffers);
    },
    writeUnchecked(offset, buffers) {
      return this.write(offset, buffers);
    },
    read: (offset, length) => spool.read(offset, length),
    recycle: (chunk) => spool.recycle(chunk),
    discard: () => undefined,
    forget: () => undefined,
    commit: () => spool.commit(),
    release: () => spool.release(),
  };
}

export function fly(
  t: Test,
  bytes: Buffer,
  spool: Spool,
  finder: SourceFinder,
  { start = 0, clock = systemClock }: { start?: number; clock?: Clock } = {},
): Flight {
  const flight = new Flight(
    { digest: digestOf(bytes), size: bytes.length, start },
    { spool, finder, clock, logger: silentLogger(), received: () => undefined },
  );
  flight.addOrigin({ registry: "registry", repository: "repo" });
  t.teardown(() => flight.close(new Error("the test is over")));
  return flight;
}

export const whole = (bytes: Buffer): { start: number; end: number } => ({ start: 0, end: bytes.length });

/** Gives everybody else a turn. */
export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
