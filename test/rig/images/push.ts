import { RigError } from "../errors.ts";
import { blobsOf, manifestsOf, type Blob, type Content } from "./content.ts";

export interface PushOptions {
  /** Base URL of the registry, "http://127.0.0.1:5000". */
  readonly registry: string;
  readonly repository: string;
  /** Tags of the content itself; without any it can be pulled by digest only. */
  readonly tags?: readonly string[];
  /** Sent with every request, such as Authorization. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** Pushes by the distribution protocol, plainly: blobs in one request each, then manifests from the leaves up. */
export async function pushImage(content: Content, options: PushOptions): Promise<void> {
  const base = `${options.registry}/v2/${options.repository}`;
  const headers = options.headers ?? {};
  for (const blob of blobsOf(content)) await pushBlob(base, blob, headers);
  for (const manifest of manifestsOf(content)) {
    const names = manifest === content ? (options.tags ?? []) : [];
    for (const name of names.length > 0 ? names : [manifest.descriptor.digest]) {
      await send(`${base}/manifests/${name}`, 201, {
        method: "PUT",
        headers: { ...headers, "content-type": manifest.descriptor.mediaType },
        body: new Uint8Array(manifest.bytes),
      });
    }
  }
}

async function pushBlob(base: string, blob: Blob, headers: Readonly<Record<string, string>>): Promise<void> {
  const { digest } = blob.descriptor;
  const known = await fetch(`${base}/blobs/${digest}`, { method: "HEAD", headers });
  if (known.status === 200) return;
  const begun = await send(`${base}/blobs/uploads/`, 202, { method: "POST", headers });
  const location = begun.headers.get("location");
  if (location === null) throw new RigError("UNEXPECTED_ANSWER", `${base} names no place to upload to`);
  const target = new URL(location, base);
  target.searchParams.set("digest", digest);
  await send(target.href, 201, {
    method: "PUT",
    headers: { ...headers, "content-type": "application/octet-stream" },
    body: new Uint8Array(blob.bytes.buffer, blob.bytes.byteOffset, blob.bytes.length),
  });
}

async function send(url: string, expected: number, init: RequestInit): Promise<Response> {
  const answer = await fetch(url, init);
  const said = await answer.text();
  if (answer.status !== expected) {
    throw new RigError("UNEXPECTED_ANSWER", `${init.method} ${url}: ${answer.status} ${said.slice(0, 500)}`);
  }
  return answer;
}
