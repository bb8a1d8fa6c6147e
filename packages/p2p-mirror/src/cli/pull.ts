import {
  InvalidInputError,
  formatReference,
  parseManifest,
  parseReference,
  type Descriptor,
  type Digest,
  type Reference,
} from "@p2p-mirror/shared";
import { ConfigError } from "@p2p-mirror/shared/config";
import { CommandFailure } from "./failure.ts";
import { formatBytes } from "./format.ts";
import { MirrorClient } from "./mirror-client.ts";
import { formatPlatform, readIndex, selectEntries, type Platform } from "./platform.ts";
import { createProgress, type Progress } from "./progress.ts";
import type { Terminal } from "./terminal.ts";

/** As containerd has it by default (max_concurrent_downloads). */
const PARALLEL_BLOBS = 3;
/** Indexes in indexes: real ones have two levels. */
const MAX_DEPTH = 5;
const MAX_MANIFESTS = 2_000;

export interface PullOptions {
  readonly registryUrl: string;
  readonly reference: string;
  /** Undefined: all of them. */
  readonly platform: Platform | undefined;
}

interface Image {
  readonly manifests: Set<Digest>;
  readonly blobs: Map<Digest, Descriptor>;
}

/**
 * Pulls an image through a mirror as containerd would, verifies every byte and keeps nothing: afterwards the mirror has
 * it. @throws CommandFailure, ConfigError, IntegrityError
 */
export async function pull(options: PullOptions, terminal: Terminal, now: () => number): Promise<void> {
  const reference = readReference(options.reference);
  const client = new MirrorClient({
    url: options.registryUrl,
    repository: reference,
    signal: terminal.signal,
  });
  const started = now();
  const digest = reference.digest ?? (await client.resolve(reference.tag ?? "latest"));
  const image: Image = { manifests: new Set(), blobs: new Map() };
  const manifestBytes = await collect(client, options.platform, digest, image, 0);
  const progress = await createProgress(terminal.stderr, now);
  try {
    await readBlobs(client, [...image.blobs.values()], progress);
  } finally {
    progress.end();
  }
  const seconds = Math.max(0.001, (now() - started) / 1000);
  const bytes = [...image.blobs.values()].reduce((sum, blob) => sum + blob.size, manifestBytes);
  terminal.stdout.write(
    `${formatReference({ ...reference, digest })}\n` +
      `${count(image.manifests.size, "manifest")}, ${count(image.blobs.size, "blob")}, ${formatBytes(bytes)} verified in ${seconds.toFixed(1)} s (${formatBytes(bytes / seconds)}/s)\n`,
  );
}

const count = (number: number, noun: string): string => `${number} ${noun}${number === 1 ? "" : "s"}`;

function readReference(text: string): Reference {
  try {
    return parseReference(text);
  } catch (error) {
    if (!(error instanceof InvalidInputError)) throw error;
    throw new ConfigError(
      "REF",
      text.slice(0, 200),
      "give an image, like nginx:1.27 or ghcr.io/owner/name@sha256:…",
      {
        cause: error,
      },
    );
  }
}

/** Gets a manifest and, of an index, those for the platform; fills `image`. Resolves with the bytes that all have. */
async function collect(
  client: MirrorClient,
  platform: Platform | undefined,
  digest: Digest,
  image: Image,
  depth: number,
): Promise<number> {
  if (image.manifests.has(digest)) return 0;
  if (depth > MAX_DEPTH || image.manifests.size >= MAX_MANIFESTS) {
    throw new CommandFailure(
      `the index holds too much: over ${MAX_DEPTH} levels or ${MAX_MANIFESTS} manifests`,
    );
  }
  image.manifests.add(digest);
  const bytes = await client.manifest(digest);
  const index = readIndex(bytes);
  let total = bytes.byteLength;
  if (index === undefined) {
    // Layers with URLs of their own ("foreign") are in no registry.
    const blobs = parseManifest(bytes).blobs.filter(
      ({ mediaType }) => !/foreign|nondistributable/.test(mediaType),
    );
    for (const blob of blobs) image.blobs.set(blob.digest, blob);
    return total;
  }
  const entries = platform === undefined ? index : selectEntries(index, platform);
  if (entries.length === 0 && platform !== undefined) {
    const offered = index.flatMap((entry) =>
      entry.platform === undefined ? [] : [formatPlatform(entry.platform)],
    );
    throw new CommandFailure(
      `there is no image for ${formatPlatform(platform)}; give --platform with one of ${[...new Set(offered)].slice(0, 20).join(", ")}`,
    );
  }
  for (const entry of entries) total += await collect(client, platform, entry.digest, image, depth + 1);
  return total;
}

async function readBlobs(
  client: MirrorClient,
  blobs: readonly Descriptor[],
  progress: Progress,
): Promise<void> {
  const queue = [...blobs];
  const work = async (): Promise<void> => {
    for (let blob = queue.shift(); blob !== undefined; blob = queue.shift()) {
      const item = progress.add(blob.digest, blob.size);
      await client.readBlob(blob, (bytes) => item.advance(bytes));
      item.done();
    }
  };
  const results = await Promise.allSettled(
    Array.from({ length: PARALLEL_BLOBS }, () =>
      work().catch((error: unknown) => {
        // The others finish what they have begun, and begin nothing more.
        queue.length = 0;
        throw error;
      }),
    ),
  );
  const failed = results.find((result) => result.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}
