import { spawn } from "node:child_process";
import { once } from "node:events";
import { createReadStream } from "node:fs";
import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { newIdentity } from "../../packages/p2p-mirror/src/trust/identity.ts";
import { clusterSecrets } from "../../packages/p2p-mirror/src/trust/cluster-secret.ts";
import { createPeerTls } from "../../packages/p2p-mirror/src/trust/peer-tls.ts";

export interface PlainServer extends AsyncDisposable {
  readonly url: string;
}

/**
 * What the data plane is compared with: a bare HTTPS server that sends a file, as a process of its own, with the same
 * certificates and ciphers as peers use.
 */
export async function startPlainServer(bytes: Buffer): Promise<PlainServer> {
  const dir = await mkdtemp(join(tmpdir(), "bench-plain-"));
  await writeFile(join(dir, "blob"), bytes);
  const tls = createPeerTls(await newIdentity(), clusterSecrets([])).serverOptions();
  await writeFile(join(dir, "tls.json"), JSON.stringify({ ...tls, requestCert: false }));
  const args = [...process.execArgv, import.meta.filename, join(dir, "blob"), join(dir, "tls.json")];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  const [port] = (await once(createInterface(child.stdout), "line")) as [string];
  return {
    url: `https://127.0.0.1:${port}/`,
    [Symbol.asyncDispose]: async () => {
      child.kill();
      await once(child, "exit");
      await rm(dir, { recursive: true, force: true });
    },
  };
}

if (import.meta.main) {
  const [file = "", tlsFile = ""] = process.argv.slice(2);
  const { size } = await stat(file);
  const { default: options } = (await import(tlsFile, { with: { type: "json" } })) as { default: object };
  const server = createServer(options, (_request, response) => {
    response.writeHead(200, { "content-length": size });
    createReadStream(file, { highWaterMark: 512 * 1024 }).pipe(response);
  });
  server.listen(0, "127.0.0.1", () => {
    const address = server.address();
    console.log(typeof address === "object" ? address?.port : "");
  });
}
