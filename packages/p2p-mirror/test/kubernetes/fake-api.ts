import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import type { Test } from "tap";
import { createTestCa } from "../upstream/test-ca.ts";

export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly authorization: string;
  readonly contentType: string;
  readonly body: unknown;
}

export type Answer = { readonly status: number; readonly body: unknown } | "silence";

/** An API server as far as HTTP goes: TLS of a CA of its own, and what `answer` says to each request. */
export interface FakeApi {
  readonly host: string;
  readonly port: number;
  /** With `token` and `ca.crt`, as kubelet makes it. */
  readonly accountDir: string;
  readonly asked: Asked[];
  answer: (asked: Asked) => Answer;
}

export async function startFakeApi(t: Test, answer: FakeApi["answer"]): Promise<FakeApi> {
  const ca = await createTestCa();
  const accountDir = await mkdtemp(join(tmpdir(), "p2p-mirror-account-"));
  t.teardown(() => rm(accountDir, { recursive: true }));
  await writeFile(join(accountDir, "ca.crt"), ca.cert);
  await writeFile(join(accountDir, "token"), "a token\n");
  const asked: Asked[] = [];
  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const body = await text(request);
    const one: Asked = {
      method: request.method ?? "",
      path: request.url ?? "",
      authorization: request.headers.authorization ?? "",
      contentType: request.headers["content-type"] ?? "",
      body: body === "" ? undefined : JSON.parse(body),
    };
    asked.push(one);
    const said = api.answer(one);
    if (said === "silence") return;
    response.statusCode = said.status;
    response.end(typeof said.body === "string" ? said.body : JSON.stringify(said.body));
  };
  const server = createServer(await ca.issue(), (request, response) => void serve(request, response));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no TCP");
  t.teardown(async () => {
    server.closeAllConnections();
    const closed = once(server, "close");
    server.close();
    await closed;
  });
  const api: FakeApi = { host: "127.0.0.1", port: address.port, accountDir, asked, answer };
  return api;
}
