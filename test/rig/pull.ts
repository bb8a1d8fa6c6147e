import { createHash } from "node:crypto";
import { RigError } from "./errors.ts";
import { type Content, blobsOf, manifestsOf } from "./images.ts";

export interface PullOptions {
  /** Base URL of the mirror, or of any registry. */
  readonly url: string;
  /** As image names have it; sent as `ns`, as containerd does. */
  readonly registry: string;
  readonly repository: string;
  /** Tag or digest. */
  readonly reference: string;
  readonly signal?: AbortSignal;
  /** Body bytes as they come, by digest. */
  readonly onBytes?: (digest: string, bytes: number) => void;
}

export interface Pulled {
  /** Of the manifest or index the reference stands for. */
  readonly digest: string;
  readonly bytes: number;
}

/**
 * Pulls the whole of a known image as containerd would: HEAD, the manifests by digest, every blob once, three at a time.
 * Checks each byte against the digests. @throws RigError `PULL_FAILED` with what was answered
 */
export async function pullImage(content: Content, options: PullOptions): Promise<Pulled> {
  const head = await request(options, "HEAD", `manifests/${options.reference}`);
  const digest = head.headers.get("docker-content-digest") ?? "";
  if (digest !== content.descriptor.digest) throw failed(`${options.reference} is ${digest}`);
  let bytes = 0;
  for (const manifest of manifestsOf(content).toReversed()) {
    const size = await pullObject(options, "manifests", manifest.descriptor);
    bytes += size;
  }
  const blobs = blobsOf(content).map((blob) => blob.descriptor);
  const worker = async (): Promise<void> => {
    for (let next = blobs.shift(); next !== undefined; next = blobs.shift()) {
      const size = await pullObject(options, "blobs", next);
      bytes += size;
    }
  };
  await Promise.all([worker(), worker(), worker()]);
  return { digest, bytes };
}

async function pullObject(
  options: PullOptions,
  kind: "manifests" | "blobs",
  descriptor: { readonly digest: string; readonly size: number },
): Promise<number> {
  const response = await request(options, "GET", `${kind}/${descriptor.digest}`);
  const hash = createHash("sha256");
  let size = 0;
  for await (const chunk of response.body ?? []) {
    hash.update(chunk);
    size += chunk.length;
    options.onBytes?.(descriptor.digest, chunk.length);
  }
  const found = `sha256:${hash.digest("hex")}`;
  if (found !== descriptor.digest) throw failed(`${descriptor.digest} came as ${found}, ${size} bytes`);
  return size;
}

async function request(options: PullOptions, method: "GET" | "HEAD", path: string): Promise<Response> {
  const url = `${options.url}/v2/${options.repository}/${path}?ns=${encodeURIComponent(options.registry)}`;
  const accept = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "*/*",
  ].join(", ");
  const signal = options.signal ?? null;
  const response = await fetch(url, { method, headers: { accept }, signal });
  if (response.status === 200) return response;
  throw failed(`${method} ${path}: ${response.status} ${(await response.text()).slice(0, 500)}`);
}

const failed = (what: string): RigError => new RigError("PULL_FAILED", what);
