import {
  digestOf,
  algorithmOf,
  Hasher,
  IntegrityError,
  isDigest,
  MAX_MANIFEST_BYTES,
  parseContentRange,
  type Descriptor,
  type Digest,
  type Repository,
} from "@p2p-mirror/shared";
import { CommandFailure } from "./failure.ts";
import { plain } from "./format.ts";
import { ACCEPT_MANIFESTS } from "./platform.ts";

/** containerd's rule too: after so many attempts in a row without a byte of progress a blob is given up. */
const MAX_FRUITLESS = 3;
const MAX_ERROR_BYTES = 16 * 1024;

export interface MirrorClientOptions {
  /** Of the registry endpoint, without a slash at its end. */
  readonly url: string;
  readonly repository: Repository;
  readonly signal: AbortSignal;
}

/** A client of the registry endpoint, as containerd is one: `ns` names the registry, cut bodies are resumed by Range. */
export class MirrorClient {
  readonly #options: MirrorClientOptions;

  constructor(options: MirrorClientOptions) {
    this.#options = options;
  }

  /** @throws CommandFailure */
  async resolve(tag: string): Promise<Digest> {
    const response = await this.#request("HEAD", `manifests/${tag}`, { accept: ACCEPT_MANIFESTS });
    if (!response.ok) throw await this.#failure(response, `tag ${tag}`);
    const digest = response.headers.get("docker-content-digest") ?? "";
    if (!isDigest(digest)) throw new CommandFailure(`the mirror named no digest for tag ${tag}`);
    return digest;
  }

  /** @throws CommandFailure, IntegrityError */
  async manifest(digest: Digest): Promise<Uint8Array> {
    const response = await this.#request("GET", `manifests/${digest}`, { accept: ACCEPT_MANIFESTS });
    if (!response.ok) throw await this.#failure(response, `manifest ${digest}`);
    const bytes = await readBody(response, MAX_MANIFEST_BYTES);
    const found = digestOf(bytes, algorithmOf(digest));
    if (found !== digest) throw new IntegrityError("DIGEST_MISMATCH", digest, found, "the mirror");
    return bytes;
  }

  /**
   * Reads a blob to its end, verifies it and drops the bytes. `onBytes` hears of each chunk.
   * @throws CommandFailure, IntegrityError
   */
  async readBlob(blob: Descriptor, onBytes: (bytes: number) => void): Promise<void> {
    const hasher = new Hasher(algorithmOf(blob.digest));
    let fruitless = 0;
    let lastError: unknown;
    for (;;) {
      const before = hasher.size;
      try {
        await this.#readFrom(blob, hasher, onBytes);
        if (hasher.size === blob.size) break;
      } catch (error) {
        this.#options.signal.throwIfAborted();
        if (error instanceof CommandFailure || error instanceof IntegrityError) throw error;
        // The last byte came, only the end of the answer is missing.
        if (blob.size > 0 && hasher.size === blob.size) break;
        lastError = error;
      }
      fruitless = hasher.size > before ? 0 : fruitless + 1;
      if (fruitless === MAX_FRUITLESS) {
        const text = `blob ${blob.digest} ended after ${hasher.size} of ${blob.size} bytes`;
        throw new CommandFailure(text, { cause: lastError });
      }
    }
    const found = hasher.digest();
    if (found !== blob.digest) throw new IntegrityError("DIGEST_MISMATCH", blob.digest, found, "the mirror");
  }

  async #readFrom(blob: Descriptor, hasher: Hasher, onBytes: (bytes: number) => void): Promise<void> {
    const start = hasher.size;
    const headers: Record<string, string> = start === 0 ? {} : { range: `bytes=${start}-` };
    const response = await this.#request("GET", `blobs/${blob.digest}`, headers);
    if (response.status !== (start === 0 ? 200 : 206))
      throw await this.#failure(response, `blob ${blob.digest}`);
    if (start > 0 && parseContentRange(response.headers.get("content-range") ?? "").range.start !== start) {
      await response.body?.cancel();
      throw new CommandFailure(`the mirror resumed blob ${blob.digest} at another byte than ${start}`);
    }
    for await (const chunk of response.body ?? []) {
      hasher.update(chunk);
      if (hasher.size > blob.size) {
        throw new IntegrityError(
          "SIZE_MISMATCH",
          `${blob.size} bytes`,
          `${hasher.size} or more`,
          "the mirror",
        );
      }
      onBytes(chunk.byteLength);
    }
  }

  async #request(method: "GET" | "HEAD", rest: string, headers: Record<string, string>): Promise<Response> {
    const { url, repository, signal } = this.#options;
    const target = new URL(`${url}/v2/${repository.repository}/${rest}`);
    target.searchParams.set("ns", repository.registry);
    try {
      return await fetch(target, { method, headers: { "accept-encoding": "identity", ...headers }, signal });
    } catch (error) {
      signal.throwIfAborted();
      const text = `no mirror answers at ${url}; start one with p2p-mirror serve, or give --registry URL`;
      throw new CommandFailure(text, { cause: error });
    }
  }

  /** Says what the mirror said. A 404 is its way to send containerd to upstream, so the reason may be access. */
  async #failure(response: Response, what: string): Promise<CommandFailure> {
    const text = await readBody(response, MAX_ERROR_BYTES).then(
      (bytes) => Buffer.from(bytes).toString("utf8"),
      () => "",
    );
    const said = plain(ociMessage(text) ?? response.statusText);
    const hint =
      response.status === 404
        ? "; neither this node, its peers nor upstream gives it to a client without credentials"
        : "";
    return new CommandFailure(`the mirror answered ${response.status} for ${what}: ${said}${hint}`);
  }
}

/** The first message of an OCI error body (distribution spec, "Error Codes"). */
function ociMessage(text: string): string | undefined {
  try {
    const json: unknown = JSON.parse(text);
    if (typeof json !== "object" || json === null || !("errors" in json) || !Array.isArray(json.errors))
      return undefined;
    const [first]: readonly unknown[] = json.errors;
    const has =
      typeof first === "object" && first !== null && "message" in first && typeof first.message === "string";
    return has ? String(first.message).slice(0, 300) : undefined;
  } catch {
    return undefined;
  }
}

async function readBody(response: Response, limit: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.byteLength;
    if (size > limit) throw new CommandFailure(`the mirror sent more than ${limit} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
