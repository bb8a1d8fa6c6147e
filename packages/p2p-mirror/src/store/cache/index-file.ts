import type { Logger } from "@p2p-mirror/shared";
import type { TagEntry } from "../catalog.ts";
import type { OciLayout } from "./oci-layout.ts";

/** When upstream said so (ISO 8601): a restored tag must not look newer than what other nodes were told since. */
export const RESOLVED_AT = "io.p2p-mirror.resolved-at";

/** The record of the node that upstream told, where it was not this one: a restored tag must not look like our word. */
export const HEARD = "io.p2p-mirror.heard";

/** Changes come in bursts (an image is a dozen blobs); one rewrite takes them all. */
const SETTLE_MS = 500;

export interface IndexFileDeps {
  readonly layout: OciLayout;
  /** Undefined when that cannot be said now: the file stays as it is. It is what a lost database is restored from. */
  readonly images: () => TagEntry[] | undefined;
  /** A burst of changes is over and written down. */
  readonly onSettled: () => Promise<void>;
  readonly logger: Logger;
}

/**
 * `index.json`, the list of images that other OCI tools read: each held tag with its full name (`registry/repo:tag`) as
 * `org.opencontainers.image.ref.name`. Rewritten some time after a change and at the end.
 */
export class IndexFile {
  readonly #deps: IndexFileDeps;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();
  #closed = false;
  #written: string | undefined;

  constructor(deps: IndexFileDeps) {
    this.#deps = deps;
  }

  /** What is held or tagged has changed. */
  changed(): void {
    if (this.#closed) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#writing = this.#writing.then(() => this.#write());
    }, SETTLE_MS);
  }

  /** Writes now what is due. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writing = this.#writing.then(() => this.#write());
    return this.#writing;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.flush();
  }

  async #write(): Promise<void> {
    const images = this.#deps.images();
    if (images === undefined) return;
    const text = formatIndex(images);
    try {
      await this.#deps.onSettled();
      if (text === this.#written) return;
      await this.#deps.layout.replace(this.#deps.layout.indexPath, text);
      this.#written = text;
    } catch (error) {
      // The old list stays; it is for other tools, the mirror itself asks the database.
      this.#deps.logger.warn({ err: error }, "index.json could not be written");
    }
  }
}

function formatIndex(images: readonly TagEntry[]): string {
  return JSON.stringify({
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.index.v1+json",
    manifests: images.map(({ registry, repository, tag, descriptor, resolvedAt, heard }) => ({
      mediaType: descriptor.mediaType,
      digest: descriptor.digest,
      size: descriptor.size,
      annotations: {
        "org.opencontainers.image.ref.name": `${registry}/${repository}:${tag}`,
        [RESOLVED_AT]: new Date(resolvedAt).toISOString(),
        ...(heard === undefined ? {} : { [HEARD]: heard }),
      },
    })),
  });
}
