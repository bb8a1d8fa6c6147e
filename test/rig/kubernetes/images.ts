import { readFile } from "node:fs/promises";
import type { Component } from "../components.ts";
import { type Content, makeImage } from "../images.ts";

/** Of the image every sandbox is made of, by the name it has in containerd's configuration. */
export const PAUSE = { repository: "pause", tag: "1" } as const;

/** Waits for ever, and reaps what its Pod leaves behind. */
export const pauseImage = async (catatonit: Component): Promise<Content> =>
  makeImage({
    seed: "pause",
    layers: [],
    compression: "gzip",
    files: [{ name: "pause", mode: 0o755, content: await readFile(catatonit.bin("catatonit")) }],
    config: { Entrypoint: ["/pause", "-P"] },
  });

export interface BusyboxOptions {
  /** Same seed, same image. */
  readonly seed: string;
  /** Bytes of layers without use, as for makeImage; default none. */
  readonly layers?: readonly number[];
}

/** An image that runs: `/bin/busybox` with whatever command, by default one that waits and ends on SIGTERM. */
export const busyboxImage = async (busybox: Component, options: BusyboxOptions): Promise<Content> =>
  makeImage({
    seed: options.seed,
    layers: options.layers ?? [],
    compression: "gzip",
    files: [
      { name: "bin/busybox", mode: 0o755, content: await readFile(busybox.bin("busybox")) },
      // Of no use but to make each seed an image of its own.
      { name: "seed", content: Buffer.from(options.seed) },
    ],
    config: { Cmd: ["/bin/busybox", "sh", "-c", "trap exit TERM; while :; do /bin/busybox sleep 1; done"] },
  });
