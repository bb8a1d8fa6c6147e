import { join } from "node:path";
import t from "tap";
import type { CreateDaemon } from "../../src/cli/serve.ts";
import { run } from "./terminal.ts";

await t.test("help is everywhere, on stdout, with exit code 0", async (t) => {
  const lines: [string[], RegExp][] = [
    [["--help"], /Commands:[\s\S]*serve[\s\S]*ls[\s\S]*status[\s\S]*pull[\s\S]*version/],
    [["help", "serve"], /--registry-listen <HOST:PORT>/],
    [["serve", "--help"], /--cluster-secret-file <FILE>[\s\S]*repeatable/],
    [["ls", "-h"], /--admin <URL>/],
    [["status", "--help"], /--json/],
    [["pull", "--help"], /--all-platforms/],
  ];
  for (const [args, expected] of lines) {
    const { exitCode, stdout, stderr } = await run(args);
    t.equal(exitCode, 0, args.join(" "));
    t.match(stdout, expected, args.join(" "));
    t.equal(stderr, "", args.join(" "));
  }
});

await t.test("the version is told both ways", async (t) => {
  for (const args of [["version"], ["--version"], ["-V"]]) {
    t.same(await run(args), { exitCode: 0, stdout: "1.2.3\n", stderr: "" }, args.join(" "));
  }
});

await t.test("a wrong call is one line on stderr, and exit code 2", async (t) => {
  const dir = t.testdir({ "bad.yaml": "cache_size: 1\npeer_lisen: x\n" });
  const calls: [string[], RegExp][] = [
    [["sevre"], /unknown command 'sevre' \(Did you mean serve\?\)/],
    [["serve", "--cache-siz", "1"], /unknown option '--cache-siz' \(Did you mean --cache-size\?\)/],
    [["serve", "--cache-size"], /option '--cache-size <SIZE>' argument missing/],
    [["serve", "extra"], /too many arguments/],
    [["serve", "--cache-size", "3q"], /--cache-size: "3q" is not valid: give a size/],
    [["serve", "--access", "closed"], /--access: "closed" is not valid: give one of public, open/],
    [["serve", "--peer-listen", "0.0.0.0:1"], /--peer-listen: "0.0.0.0:1" .*--insecure-open-mesh/],
    [["serve", "--config", join(dir, "bad.yaml")], /bad.yaml:2: peer_lisen: .*did you mean "peer_listen"\?/],
    [["status", "--config", join(dir, "bad.yaml")], /bad.yaml:2: peer_lisen: .*did you mean "peer_listen"\?/],
    [["pull", "nginx", "--config", join(dir, "bad.yaml")], /bad.yaml:2: peer_lisen: /],
    [["serve", "--cache-min-free", "100%"], /--cache-min-free: "100%" is not valid: .*less than 100%/],
    [["serve", "--advertise-address", "224.0.0.1"], /--advertise-address: "224.0.0.1" is not valid/],
    [["serve", "--bootstrap", "a:1", "--bootstrap", "b"], /--bootstrap: "b" is not valid/],
    [["pull"], /missing required argument 'REF'/],
    [["pull", "UPPER"], /REF: "UPPER" is not valid/],
    [["pull", "nginx", "--platform", "linux"], /--platform: "linux" is not valid/],
    [["pull", "nginx", "--platform", "a/b", "--all-platforms"], /--platform: "a\/b" is not valid/],
    [["ls", "--admin", "nowhere"], /--admin: "nowhere" is not valid/],
  ];
  for (const [args, expected] of calls) {
    const { exitCode, stdout, stderr } = await run(args);
    t.equal(exitCode, 2, args.join(" "));
    t.match(stderr, expected, args.join(" "));
    t.match(stderr, /^p2p-mirror: [^\n]*\n$/, `${args.join(" ")}: one line`);
    t.equal(stdout, "");
  }
});

await t.test("the environment is as strict as the flags, and an empty call shows the help", async (t) => {
  const wrong = await run(["serve"], { env: { P2P_MIRROR_CACHE_MIN_FREE: "101%" } });
  t.equal(wrong.exitCode, 2);
  t.match(wrong.stderr, /^p2p-mirror: P2P_MIRROR_CACHE_MIN_FREE: "101%" is not valid/);
  const empty = await run([]);
  t.equal(empty.exitCode, 2);
  t.match(empty.stderr, /^Usage: p2p-mirror/);
});

/** A daemon that writes down what happens to it. */
function recordedDaemon(
  log: string[],
  faults: { start?: Error; close?: Error } = {},
): () => Promise<CreateDaemon> {
  return async () => (config, deps) => {
    log.push(`create ${config.cacheSize} ${config.bootstrap.length} ${deps.version}`);
    return {
      registryUrl: "http://127.0.0.1:1",
      adminUrl: "http://127.0.0.1:2",
      start: async () => {
        log.push("start");
        if (faults.start !== undefined) throw faults.start;
      },
      close: async () => {
        log.push("close");
        if (faults.close !== undefined) throw faults.close;
      },
    };
  };
}

await t.test("serve runs the daemon with its config until the signal, then closes it", async (t) => {
  const log: string[] = [];
  const controller = new AbortController();
  const args = [
    "serve",
    "--cache-size",
    "1KiB",
    "--bootstrap",
    "a:1",
    "--bootstrap",
    "b:2",
    "--access",
    "open",
  ];
  const running = run(args, {
    signal: controller.signal,
    loadDaemon: async () => {
      const create = await recordedDaemon(log)();
      return (config, deps) => {
        const daemon = create(config, deps);
        return {
          ...daemon,
          start: async (signal) => {
            await daemon.start(signal);
            setImmediate(() => controller.abort());
          },
        };
      };
    },
  });
  const { exitCode, stderr } = await running;
  t.equal(exitCode, 0);
  t.same(log, ["create 1024 2 1.2.3", "start", "close"]);
  const lines = stderr
    .trim()
    .split("\n")
    .map((line): { msg: string; level: number; registry?: string } => JSON.parse(line));
  t.match(lines, [
    { level: 40, msg: /^access is open/ },
    { level: 30, msg: "ready", registry: "http://127.0.0.1:1" },
    { level: 30, msg: /^closing/ },
    { level: 30, msg: "closed" },
  ]);
});

await t.test("a start that fails closes the daemon and is one line, exit code 1", async (t) => {
  const log: string[] = [];
  const taken = Object.assign(new Error("listen EADDRINUSE: address already in use 127.0.0.1:24220"), {
    code: "EADDRINUSE",
  });
  const { exitCode, stderr } = await run(["serve"], { loadDaemon: recordedDaemon(log, { start: taken }) });
  t.equal(exitCode, 1);
  t.equal(stderr, "p2p-mirror: listen EADDRINUSE: address already in use 127.0.0.1:24220\n");
  t.same(log.slice(1), ["start", "close"]);
});

await t.test("what goes wrong while closing after a failed start does not hide why it failed", async (t) => {
  const start = Object.assign(new Error("disk full"), { code: "ENOSPC" });
  const faults = { start, close: new Error("and this too") };
  const { exitCode, stderr } = await run(["serve"], { loadDaemon: recordedDaemon([], faults) });
  t.equal(exitCode, 1);
  t.match(stderr, /"closing after a failed start"[^\n]*\n?p2p-mirror: disk full\n$/);
});

await t.test("an expected error inside plain ones is a line with its reason", async (t) => {
  const full = Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
  const start = new AggregateError(
    [new Error("closing cache failed", { cause: full })],
    "not everything closed",
  );
  const { exitCode, stderr } = await run(["serve"], { loadDaemon: recordedDaemon([], { start }) });
  t.equal(exitCode, 1);
  t.equal(stderr, "p2p-mirror: closing cache failed (ENOSPC: no space left on device, write)\n");
});

await t.test("a signal while starting is no failure", async (t) => {
  const log: string[] = [];
  const controller = new AbortController();
  controller.abort(new DOMException("received SIGTERM", "AbortError"));
  const loadDaemon = recordedDaemon(log, { start: new Error("aborted") });
  const { exitCode, stderr } = await run(["serve", "--log-level", "warn"], {
    signal: controller.signal,
    loadDaemon,
  });
  t.equal(exitCode, 0);
  t.equal(stderr, "");
  t.same(log.slice(1), ["start", "close"]);
});

await t.test("a start that hangs ends with the first signal", async (t) => {
  const log: string[] = [];
  const controller = new AbortController();
  const hang = Promise.withResolvers<void>();
  const started = Promise.withResolvers<void>();
  const running = run(["serve", "--log-level", "warn"], {
    signal: controller.signal,
    loadDaemon: async () => {
      const create = await recordedDaemon(log)();
      return (config, deps) => ({
        ...create(config, deps),
        start: () => {
          started.resolve();
          return hang.promise;
        },
      });
    },
  });
  await started.promise;
  controller.abort(new DOMException("received SIGTERM", "AbortError"));
  t.equal((await running).exitCode, 0);
  t.same(log.slice(1), ["close"]);
});

await t.test("a fault of the program itself keeps its stack", async (t) => {
  const { exitCode, stderr } = await run(["serve"], {
    loadDaemon: recordedDaemon([], { start: new TypeError("oops") }),
  });
  t.equal(exitCode, 1);
  t.match(stderr, /TypeError: oops\n\s+at /);
});

await t.test("nothing is loaded or started when the config is wrong", async (t) => {
  let loads = 0;
  const { exitCode } = await run(["serve", "--log-level", "loud"], {
    loadDaemon: () => {
      loads++;
      return Promise.reject(new Error("not reached"));
    },
  });
  t.equal(exitCode, 2);
  t.equal(loads, 0);
});
