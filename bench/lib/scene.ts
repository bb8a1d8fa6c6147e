import { rm } from "node:fs/promises";
import { startLine } from "../../packages/p2p-mirror/image/start-line.ts";
import { pullImage } from "../../test/rig/pull.ts";
import { pushImage, type Content } from "../../test/rig/images.ts";
import { startMirror, type Mirror, type MirrorOptions } from "../../test/rig/mirror.ts";
import { startOciRegistry, type OciRegistry } from "../../test/rig/oci-registry.ts";
import { until } from "../../test/rig/until.ts";
import { tempFolder } from "../../test/rig/temp.ts";
import { programOfImage } from "./programs.ts";

export const REGISTRY = "bench.example";
/**
 * As it is started in production. A small young generation is collected often, so that chunks
 * from sockets are free again before V8 resorts to full collections; without threads, since theirs give memory back too
 * late; V8 keeps no pool of free pages (16 MiB after a start). The old generation does not grow while it is collected (20
 * MiB otherwise) and by 60 % between: less costs a full collection, 50 ms, in every hundredth request, more buys nothing.
 * One arena: what the threads of libuv free goes back to the one heap that all allocate from.
 */
export const { flags: V8_FLAGS, env: ENVIRONMENT } = await startLine();

export const MIB = 1024 * 1024;

/** A registry in memory, and mirrors as in production (the image's program, quiet), all removed at the end. */
export class Scene implements AsyncDisposable {
  readonly registry: OciRegistry;
  readonly #program: string;
  readonly #stack: AsyncDisposableStack;

  private constructor(registry: OciRegistry, program: string, stack: AsyncDisposableStack) {
    this.registry = registry;
    this.#program = program;
    this.#stack = stack;
  }

  static async open(): Promise<Scene> {
    await using opening = new AsyncDisposableStack();
    const home = opening.adopt(await tempFolder("bench"), (folder) => rm(folder, { recursive: true }));
    const program = await programOfImage(home);
    const registry = opening.adopt(await startOciRegistry(), (it) => it.close());
    return new Scene(registry, program, opening.move());
  }

  /** A mirror that lives until the end of the scene. `open` access: what is measured is not the verdict. */
  async mirror(name: string, options: MirrorOptions = {}): Promise<Mirror> {
    return this.#stack.use(await this.passing(name, options));
  }

  /** A mirror for a while; the caller disposes of it. */
  passing(name: string, options: MirrorOptions = {}): Promise<Mirror> {
    return startMirror({
      name,
      program: this.#program,
      access: "open",
      logLevel: "warn",
      nodeFlags: V8_FLAGS,
      env: ENVIRONMENT,
      upstreams: { [REGISTRY]: this.registry.url },
      ...options,
    });
  }

  async push(image: Content, repository: string): Promise<void> {
    await pushImage(image, { registry: this.registry.url, repository, tags: ["v1"] });
  }

  use<T extends AsyncDisposable>(thing: T): T {
    return this.#stack.use(thing);
  }

  defer(close: () => Promise<void>): void {
    this.#stack.defer(close);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync();
  }
}

export const blobUrl = (mirror: Mirror, repository: string, digest: string): string =>
  `${mirror.url}/v2/${repository}/blobs/${digest}?ns=${REGISTRY}`;

export async function pullThrough(mirror: Mirror, image: Content, repository: string): Promise<void> {
  await pullImage(image, { url: mirror.url, registry: REGISTRY, repository, reference: "v1" });
}

/** Until a mirror has told the others of at least so many records. */
export async function advertised(mirror: Mirror, records: number): Promise<void> {
  await until(`${records} records are advertised`, async () => {
    return (await mirror.metrics()).sum("p2p_mirror_dht_records_advertised") >= records;
  });
}

export async function connected(mirror: Mirror): Promise<void> {
  await until("the mirror has a peer", async () => (await mirror.metrics()).sum("p2p_mirror_dht_peers") > 0);
}
