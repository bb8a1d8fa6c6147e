/**
 * A client that reads and throws away, as a process of its own: GETs a URL and prints one line of JSON. Arguments: URL,
 * and for https a JSON file with TLS options. Hashes nothing: it must not be what limits a measurement.
 */
import { readFileSync } from "node:fs";
import { get as httpGet, type IncomingMessage } from "node:http";
import { get as httpsGet } from "node:https";

export interface Drained {
  readonly status: number;
  readonly bytes: number;
  readonly seconds: number;
  /** Milliseconds to the first byte of the body. */
  readonly firstByteMs: number;
}

if (import.meta.main) {
  const [url = "", tlsFile] = process.argv.slice(2);
  const began = performance.now();
  let firstByteMs = 0;
  let bytes = 0;
  const onResponse = (response: IncomingMessage): void => {
    response.on("data", (chunk: Buffer) => {
      if (bytes === 0) firstByteMs = performance.now() - began;
      bytes += chunk.length;
    });
    response.on("end", () => {
      const seconds = (performance.now() - began) / 1000;
      const drained: Drained = { status: response.statusCode ?? 0, bytes, seconds, firstByteMs };
      console.log(JSON.stringify(drained));
    });
  };
  const tls: unknown = tlsFile === undefined ? {} : JSON.parse(readFileSync(tlsFile, "utf8"));
  if (url.startsWith("https:")) httpsGet(url, { ...(tls as object), agent: false }, onResponse);
  else httpGet(url, { agent: false }, onResponse);
}
