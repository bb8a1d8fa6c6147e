import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { constants, mkdtemp, open } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import t, { type Test } from "tap";
import { loneMirror, readyUrls, startChild } from "../packages/p2p-mirror/test/cli/child.ts";
import { until } from "./rig/until.ts";

await t.test("a mirror serves until a signal, and ends with 0 and nothing left", async (t) => {
  const child = startChild(t, loneMirror(t.testdir()));
  const { registry, admin } = await readyUrls(child);
  t.equal((await fetch(`${registry}/v2/`)).status, 200);
  t.equal((await fetch(`${admin}/readyz`)).status, 200);
  const status = startChild(t, ["status", "--admin", admin]);
  t.equal(await status.ended, 0);
  t.match(status.stdout(), /^node 12D3Koo\w+\nready, version \d+\.\d+\.\d+, up \d+ s\n/);
  child.process.kill("SIGTERM");
  t.equal(await child.ended, 0);
  t.match(child.stderr(), /"msg":"closed"}\n$/);
  t.equal(child.stdout(), "", "logs are on stderr");
});

interface SilentServer {
  readonly port: number;
  /** Resolves with the first connection. */
  readonly connected: Promise<unknown>;
}

/** Accepts connections and never answers. */
async function silentServer(t: Test): Promise<SilentServer> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
  });
  const connected = once(server, "connection");
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    return new Promise((resolve) => server.close(resolve));
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no address");
  return { port: address.port, connected };
}

await t.test("a second signal forces the end while the first one drains", async (t) => {
  const { port, connected } = await silentServer(t);
  const args = ["--access=open", `--upstream=silent.example=http://127.0.0.1:${port}`];
  const child = startChild(t, [...loneMirror(t.testdir()), ...args]);
  const { registry } = await readyUrls(child);
  // A request that waits for upstream keeps the drain from being over at once.
  const waiting = fetch(`${registry}/v2/a/manifests/v1?ns=silent.example`).catch(() => undefined);
  await connected;
  child.process.kill("SIGINT");
  await child.saw(/a second signal forces the end/);
  child.process.kill("SIGTERM");
  t.equal(await child.ended, 1);
  t.match(child.stderr(), /p2p-mirror: forced to end\n$/);
  await waiting;
});

/** Three signals to a mirror that waits for its disk; resolves with how it ended. */
async function endByThree(t: Test): Promise<unknown> {
  const dataDir = await mkdtemp(join(t.testdirName, "data-"));
  // A pipe that somebody else holds open and never writes to: whoever reads from it waits in the kernel.
  const key = join(dataDir, "identity.key");
  execFileSync("mkfifo", [key]);
  const child = startChild(t, loneMirror(dataDir));
  const opened = () => open(key, constants.O_WRONLY | constants.O_NONBLOCK);
  const writer = await until("the mirror opens it", opened, { timeoutMs: 60_000 });
  child.process.kill("SIGINT");
  child.process.kill("SIGTERM");
  await child.saw(/p2p-mirror: forced to end\n/);
  child.process.kill("SIGTERM");
  const end = await child.ended;
  await writer.close();
  return end;
}

await t.test("a third signal ends a mirror whose disk never answers", async (t) => {
  t.testdir();
  let end: unknown = 1;
  // When the second one comes between opening and reading, nothing hangs yet, and that one ends it.
  for (let tries = 0; end === 1 && tries < 5; tries += 1) end = await endByThree(t);
  t.equal(end, "SIGTERM");
});

await t.test("a reader that leaves is no error (EPIPE)", async (t) => {
  const child = startChild(t, ["serve", "--help"]);
  child.process.stdout?.destroy();
  t.equal(await child.ended, 0);
  t.equal(child.stderr(), "");
});

await t.test(
  "the exit codes of the process are 0, 1 and 2, and a wrong secret is told in a line",
  async (t) => {
    const dir = t.testdir({ secret: "too short" });
    const short = [...loneMirror(join(dir, "data")), `--cluster-secret-file=${join(dir, "secret")}`];
    const ends: [string[], number, RegExp][] = [
      [["version"], 0, /^$/],
      [
        ["ls", "--admin", "http://127.0.0.1:2"],
        1,
        /^p2p-mirror: no mirror answers [^\n]*ECONNREFUSED[^\n]*\n$/,
      ],
      [["serve", "--cache-size", "x"], 2, /^p2p-mirror: --cache-size: "x" is not valid[^\n]*\n$/],
      [short, 2, /^p2p-mirror: [^\n]*32[^\n]*\n$/],
    ];
    for (const [args, code, text] of ends) {
      const child = startChild(t, args);
      t.equal(await child.ended, code, args.join(" "));
      t.match(child.stderr(), text, args.join(" "));
    }
  },
);

await t.test(
  "an address nothing can listen at is one line with the field and the fix, exit code 2",
  async (t) => {
    const { port } = await silentServer(t);
    const wrong: [string, string][] = [
      [`127.0.0.1:${port}`, "another program listens there"],
      ["192.0.2.1:0", "the address is not one of this machine"],
    ];
    for (const field of ["registry-listen", "peer-listen", "admin-listen"]) {
      for (const [address, fix] of wrong) {
        const args = loneMirror(t.testdir()).map((arg) =>
          arg === `--${field}=:0` ? `--${field}=${address}` : arg,
        );
        const child = startChild(t, [...args, "--insecure-open-mesh", "--log-level=error"]);
        t.equal(await child.ended, 2, `${field} ${address}`);
        const text = child.stderr();
        t.ok(text.startsWith(`p2p-mirror: ${field}: "${address}" is not valid: ${fix}`), text);
        t.match(text, /^[^\n]*\n$/);
      }
    }
  },
);

await t.test(
  "a data directory that cannot be used is told before anything starts, exit code 2",
  async (t) => {
    const dir = t.testdir({ file: "" });
    const wrong: [string, RegExp][] = [
      [join(dir, "file"), /a file is there/],
      [join(dir, "file", "data"), /part of the path is a file/],
      ["/proc/p2p-mirror", /nothing can be written there/],
    ];
    for (const [path, fix] of wrong) {
      const child = startChild(t, loneMirror(path));
      t.equal(await child.ended, 2, path);
      t.match(child.stderr(), /^p2p-mirror: data-dir: [^\n]*\n$/);
      t.match(child.stderr(), fix);
    }
  },
);

await t.test("a hosts directory that is none is told in a line, exit code 2", async (t) => {
  const dir = t.testdir({ file: "" });
  for (const path of [join(dir, "file"), join(dir, "file", "certs.d")]) {
    const child = startChild(t, [...loneMirror(join(dir, "data")), `--hosts-dir=${path}`]);
    t.equal(await child.ended, 2, path);
    t.equal(
      child.stderr(),
      `p2p-mirror: hosts-dir: "${path}" is not valid: give the directory that containerd's config_path names\n`,
    );
  }
});

await t.test("a mirror does not load Node's own fetch, which would take 4 MiB", async (t) => {
  const tell = `process.on("exit", () => {
    for (const name of process.moduleLoadList) if (/^NativeModule (http|internal.deps.undici)/.test(name)) console.log(name);
  });`;
  const nodeArgs = [
    "--conditions=@p2p-mirror/source",
    `--import=data:text/javascript,${encodeURIComponent(tell)}`,
  ];
  const child = startChild(t, loneMirror(t.testdir()), { nodeArgs });
  await readyUrls(child);
  child.process.kill("SIGTERM");
  t.equal(await child.ended, 0);
  t.match(child.stdout(), /^NativeModule http$/m, "the list is told");
  t.notMatch(child.stdout(), /undici/);
});

await t.test("commands other than serve load none of the daemon's libraries", async (t) => {
  const hooks = `import { registerHooks } from "node:module";
    registerHooks({ resolve: (specifier, context, next) => {
      const found = next(specifier, context);
      process.stderr.write("loaded " + found.url + "\\n");
      return found;
    } });`;
  const nodeArgs = [
    "--conditions=@p2p-mirror/source",
    `--import=data:text/javascript,${encodeURIComponent(hooks)}`,
  ];
  const heavy = /loaded .*\/(?:libp2p|@libp2p|fastify|undici|@grpc|typebox|yaml|pino|daemon\.ts)\b.*/g;
  for (const args of [
    ["--help"],
    ["serve", "--help"],
    ["ls", "--admin", "http://127.0.0.1:2"],
    ["version"],
  ]) {
    const child = startChild(t, args, { nodeArgs });
    await child.ended;
    t.match(child.stderr(), /loaded .*commander/, "the hook works");
    t.same(child.stderr().match(heavy), null, args.join(" "));
  }
});
