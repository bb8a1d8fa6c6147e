import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { Test } from "tap";
import { digestOf, MEDIA_TYPES, readRange, type Descriptor, type Digest } from "@p2p-mirror/shared";

/** What a test may do to a request instead of the right answer; true: it has answered. */
export type Fault = (request: IncomingMessage, response: ServerResponse, object: Buffer) => boolean;

/** The registry endpoint's side of a pull: objects by digest, tags, ranges, and faults on order. */
export interface FakeMirror {
  readonly url: string;
  /** `METHOD path?query [range]` of each request. */
  readonly requests: string[];
  fault: Fault | undefined;
  add(bytes: Buffer, mediaType?: string): Descriptor;
  addImage(name: string, layers: readonly Buffer[]): Descriptor;
  tag(name: string, digest: Digest): void;
}

/** Listens until the test ends. */
export async function startFakeMirror(t: Test): Promise<FakeMirror> {
  const objects = new Map<string, { bytes: Buffer; mediaType: string }>();
  const tags = new Map<string, Digest>();
  const requests: string[] = [];
  const server = createServer((request, response) => {
    const { method = "", url = "" } = request;
    requests.push(
      [method, url, ...(request.headers.range === undefined ? [] : [request.headers.range])].join(" "),
    );
    const reference = /^\/v2\/.+\/(?:manifests|blobs)\/([^?]+)/.exec(url)?.[1] ?? "";
    const digest = tags.get(reference) ?? reference;
    const object = objects.get(digest);
    if (object === undefined) {
      response.writeHead(404, { "content-type": "application/json" });
      response.end(
        JSON.stringify({ errors: [{ code: "MANIFEST_UNKNOWN", message: `${reference} is not here` }] }),
      );
      return;
    }
    if (mirror.fault?.(request, response, object.bytes) === true) return;
    const size = object.bytes.length;
    const range = readRange(request.headers.range, size);
    const { start, end } = range.kind === "part" ? range.range : { start: 0, end: size };
    response.writeHead(range.kind === "part" ? 206 : 200, {
      "content-type": object.mediaType,
      "content-length": end - start,
      "docker-content-digest": digest,
      ...(range.kind === "part" ? { "content-range": `bytes ${start}-${end - 1}/${size}` } : {}),
    });
    response.end(method === "HEAD" ? undefined : object.bytes.subarray(start, end));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.teardown(() => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no address");

  const add = (bytes: Buffer, mediaType: string = MEDIA_TYPES.octetStream): Descriptor => {
    const digest = digestOf(bytes);
    objects.set(digest, { bytes, mediaType });
    return { digest, size: bytes.length, mediaType };
  };
  const mirror: FakeMirror = {
    url: `http://127.0.0.1:${address.port}`,
    requests,
    fault: undefined,
    add,
    addImage: (name, layers) => {
      const manifest = {
        schemaVersion: 2,
        mediaType: MEDIA_TYPES.ociManifest,
        config: add(Buffer.from(JSON.stringify({ name }))),
        layers: layers.map((layer) => add(layer)),
      };
      return add(Buffer.from(JSON.stringify(manifest)), MEDIA_TYPES.ociManifest);
    },
    tag: (name, digest) => void tags.set(name, digest),
  };
  return mirror;
}

/** An index of images by platform, `linux/arm/v7`; an undefined one is for no platform. */
export function addIndex(
  mirror: FakeMirror,
  entries: readonly (readonly [string | undefined, Descriptor])[],
): Descriptor {
  const manifests = entries.map(([text, descriptor]) => {
    const [os, architecture, variant] = text?.split("/") ?? [];
    return { ...descriptor, ...(text === undefined ? {} : { platform: { os, architecture, variant } }) };
  });
  const index = { schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests };
  return mirror.add(Buffer.from(JSON.stringify(index)), MEDIA_TYPES.ociIndex);
}
