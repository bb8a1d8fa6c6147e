import { readFile } from "node:fs/promises";
import { request, type RequestOptions } from "node:https";
import { join } from "node:path";
import { linkSignal, SourceError } from "@p2p-mirror/shared";

/** Where kubelet puts a Pod's account, unless the Pod mounts it elsewhere. */
export const ACCOUNT_DIR = "/var/run/secrets/kubernetes.io/serviceaccount";

export interface KubernetesApiOptions {
  readonly host: string;
  readonly port: number;
  /** Directory with `token` and `ca.crt`. Default: kubelet's. */
  readonly accountDir?: string;
  /** For one request, in milliseconds. Default 5 s. */
  readonly timeoutMs?: number;
}

/** One request. */
export interface ApiRequest {
  readonly method: "GET" | "POST" | "PATCH";
  /** With its query. */
  readonly path: string;
  /** Of the body; default `application/json`. */
  readonly contentType?: string;
  readonly body?: unknown;
}

/** What of the Kubernetes API this mirror needs: a request, an answer. */
export interface KubernetesApi {
  /** The answer's JSON. @throws SourceError */
  ask(request: ApiRequest, signal: AbortSignal): Promise<unknown>;
}

const SOURCE = "the Kubernetes API";
const TIMEOUT_MS = 5_000;
/** 500 endpoints of a Service have about 300 KiB. */
const MAX_ANSWER_BYTES = 4 * 1024 * 1024;

/**
 * The API server as a Pod reaches it. Three kinds of request by hand, since the official client library takes 52 MiB of
 * memory on every node. Token and CA are read for each request: kubelet renews them.
 */
export class KubernetesApiClient implements KubernetesApi {
  readonly #options: KubernetesApiOptions;

  constructor(options: KubernetesApiOptions) {
    this.#options = options;
  }

  async ask(wanted: ApiRequest, signal: AbortSignal): Promise<unknown> {
    const { host, port, accountDir = ACCOUNT_DIR, timeoutMs = TIMEOUT_MS } = this.#options;
    const [token, ca] = await Promise.all(["token", "ca.crt"].map((file) => read(join(accountDir, file))));
    const body = wanted.body === undefined ? undefined : JSON.stringify(wanted.body);
    using link = linkSignal([signal], timeoutMs);
    const { status, text } = await exchange(
      {
        host,
        port,
        method: wanted.method,
        path: wanted.path,
        ca,
        // A connection each: minutes pass between them.
        agent: false,
        signal: link.signal,
        headers: {
          authorization: `Bearer ${token?.trim()}`,
          accept: "application/json",
          ...(body === undefined
            ? {}
            : {
                "content-type": wanted.contentType ?? "application/json",
                "content-length": Buffer.byteLength(body),
              }),
        },
      },
      body,
    );
    if (status < 200 || status > 299) throw refusal(status);
    try {
      return JSON.parse(text);
    } catch (cause) {
      throw new SourceError("STATUS", SOURCE, { message: "answers no JSON", status, cause });
    }
  }
}

function refusal(status: number): SourceError {
  const code = status === 401 || status === 403 ? "DENIED" : status === 429 ? "RATE_LIMITED" : "STATUS";
  return new SourceError(code, SOURCE, { message: `answers ${status}`, status });
}

async function read(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    throw new SourceError("UNREACHABLE", SOURCE, { message: `${file} cannot be read`, cause });
  }
}

/** @throws SourceError */
function exchange(
  options: RequestOptions,
  body: string | undefined,
): Promise<{ readonly status: number; readonly text: string }> {
  return new Promise((resolve, reject) => {
    const fail = (cause: unknown): void =>
      reject(
        cause instanceof SourceError
          ? cause
          : new SourceError("UNREACHABLE", SOURCE, {
              message: cause instanceof Error ? cause.message : "no answer",
              cause,
            }),
      );
    const sent = request(options, (answer) => {
      const parts: Buffer[] = [];
      let bytes = 0;
      answer.on("data", (part: Buffer) => {
        bytes += part.byteLength;
        if (bytes > MAX_ANSWER_BYTES) {
          fail(new SourceError("STATUS", SOURCE, { message: "answers too much", status: answer.statusCode }));
          answer.destroy();
          return;
        }
        parts.push(part);
      });
      answer.on("error", fail);
      answer.on("end", () =>
        resolve({ status: answer.statusCode ?? 0, text: Buffer.concat(parts).toString("utf8") }),
      );
    });
    sent.on("error", fail);
    sent.end(body);
  });
}
