import { createServer } from "node:http";
import t, { type Test } from "tap";
import { createScreen } from "../../src/cli/screen.ts";
import { SpeedMeter } from "../../src/cli/speeds.ts";
import type { FlightStatus, MirrorStatus } from "../../src/status.ts";
import { DOCTOR, STATUS as FULL } from "./full-status.ts";
import { memoryOutput, run, type Outcome } from "./terminal.ts";

const FLIGHT: FlightStatus = {
  digest: `sha256:${"ab".repeat(32)}`,
  size: 4096,
  received: 1024,
  readers: 1,
  fromUpstream: 1024,
  fromPeers: 0,
  sources: [{ kind: "upstream", id: "r.example/a" }],
};

const STATUS: MirrorStatus = {
  ...FULL,
  peers: [],
  flights: [FLIGHT],
  cache: { blobs: 7, bytes: 1024, maxBytes: 2048, freeBytes: 4096 },
  images: [],
  hosts: [],
  upstreams: [],
};

/** Each look gets the next answer; with the look after the last one the signal comes. Undefined: the mirror is away. */
async function watching(
  t: Test,
  answers: readonly (MirrorStatus | undefined)[],
  options: { readonly args?: readonly string[]; readonly tty?: boolean; readonly rows?: number } = {},
): Promise<Outcome> {
  const controller = new AbortController();
  let looks = 0;
  const server = createServer((request, response) => {
    const answer = answers[looks];
    looks += 1;
    if (looks > answers.length) controller.abort(new DOMException("received SIGINT", "AbortError"));
    if (answer === undefined) request.socket.destroy();
    else response.end(JSON.stringify(answer));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.teardown(() => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no address");
  return run(
    ["status", "--watch", "0.05", `--admin=http://127.0.0.1:${address.port}`, ...(options.args ?? [])],
    { signal: controller.signal, tty: options.tty === true, rows: options.rows },
  );
}

const half = { ...STATUS, flights: [{ ...FLIGHT, received: 2048, fromPeers: 1024 }] };
const idle = { ...STATUS, flights: [] };

await t.test("without a terminal each look is lines, and the signal ends it with 0", async (t) => {
  const { exitCode, stdout, stderr } = await watching(t, [STATUS, half, idle]);
  t.equal(exitCode, 0);
  t.equal(stderr, "");
  const time = String.raw`\d{4}-\d\d-\d\dT[\d:.]+Z`;
  t.match(
    stdout,
    new RegExp(
      [
        `^${time} sha256:abababababab 25% of 4.0 KiB; from upstream 1.0 KiB \\(1 at work\\); from peers 0 B`,
        `${time} sha256:abababababab 50% of 4.0 KiB; [\\d.]+ KiB/s; from upstream 1.0 KiB \\(1 at work\\); from peers 1.0 KiB`,
        `${time} no flights; 0 peers; cache 1.0 KiB\n$`,
      ].join("\n"),
    ),
  );
  t.notOk(stdout.includes("\u001B"), "no escapes");
});

await t.test("with --json each look is a line of JSON, on a terminal, too", async (t) => {
  const { exitCode, stdout } = await watching(t, [STATUS, half], { args: ["--json"], tty: true });
  t.equal(exitCode, 0);
  t.same(
    stdout
      .trimEnd()
      .split("\n")
      .map((line): unknown => JSON.parse(line)),
    [STATUS, half],
  );
});

await t.test("on a terminal it is drawn in place, and the cursor comes back", async (t) => {
  const { exitCode, stdout } = await watching(t, [STATUS, half, idle], { tty: true });
  t.equal(exitCode, 0);
  t.ok(stdout.endsWith("\u001B[?25h"));
  const shown = screenOf(stdout, 24);
  t.match(shown, /^node 12D3KooWexample\n[\s\S]*\nno peers\n\nno flights\n\nno upstreams\n\nno images\n*$/);
  t.notMatch(shown, /sha256/, "what was longer before is gone");
});

await t.test("a terminal shows all that the status says", async (t) => {
  const { stdout } = await watching(t, [idle, { ...FULL, doctor: DOCTOR }], { tty: true, rows: 40 });
  const shown = screenOf(stdout, 40);
  for (const said of [
    /^12D3KooWa +10.0.0.2:24221 +eu-1 +3 ms +up +0.1.0$/m,
    /^sha256:abababababab \[=+ +\] +50% of 2.0 KiB, 2 readers/m,
    /^ {2}coordinated by this node, 3 members/m,
    /^docker.io +rate-limited +0 +2026/m,
    /^ghcr.io +unreachable +2026[^ ]+ +ENOTFOUND$/m,
    /; zone eu-2$/m,
    /^warning: the disk is nearly full /m,
    /^ {2}what to do: set it$/m,
    /^ghcr.io +no +hosts.toml is no TOML$/m,
    /^IMAGE +DIGEST/m,
  ])
    t.match(shown, said);
});

await t.test("a mirror that restarts is watched on", async (t) => {
  const lines = await watching(t, [idle, undefined, half]);
  t.equal(lines.exitCode, 0);
  t.match(lines.stderr, /^p2p-mirror: no mirror answers at [^\n]*\n$/);
  t.match(lines.stdout, /no flights[^\n]*\n[^\n]* 50% of 4.0 KiB/);
  const drawn = await watching(t, [idle, undefined, half, undefined], { tty: true });
  t.equal(drawn.stderr, "");
  t.match(screenOf(drawn.stdout, 24), /^p2p-mirror: no mirror answers/, "it is the last that is shown");
});

await t.test("what does not answer at first is a failure", async (t) => {
  for (const tty of [false, true]) {
    const { exitCode, stdout, stderr } = await run(["status", "--watch", "--admin", "http://127.0.0.1:1"], {
      tty,
    });
    t.equal(exitCode, 1);
    t.equal(stdout, "", "the cursor was not touched");
    t.match(stderr, /^p2p-mirror: no mirror answers/);
  }
});

await t.test("seconds that are none are told", async (t) => {
  for (const text of ["0", "-1", "x", "1e9", "1s", ""]) {
    const { exitCode, stderr } = await run(["status", `--watch=${text}`, "--admin", "http://127.0.0.1:1"]);
    t.equal(exitCode, 2, text);
    t.match(stderr, /^p2p-mirror: --watch: "[^\n]*" is not valid: give seconds[^\n]*\n$/);
  }
});

await t.test("lines that do not fit are cut to the terminal, also after it got smaller", (t) => {
  const output = memoryOutput(true);
  Object.assign(output.stream, { columns: 10, rows: 6 });
  const screen = createScreen(output);
  screen.end();
  t.equal(output.text(), "", "nothing was drawn, nothing is to be undone");
  screen.draw("0123456789ABC\n2\n3\n4\n5\n");
  t.equal(screenOf(output.text(), 6), "0123456789\n2\n3\n4\n5\n");
  screen.draw("1\n2\n3\n4\n5\n6\n7\n");
  t.equal(screenOf(output.text(), 6), "1\n2\n3\n4\n…\n");
  Object.assign(output.stream, { columns: 3 });
  screen.draw("abcdef\nx\n");
  t.equal(screenOf(output.text(), 6), "abc\nx\n\n\n\n");
  screen.draw("y\n");
  t.equal(screenOf(output.text(), 6), "y\n\n\n\n\n");
  t.end();
});

await t.test("speed is what came since the last look", (t) => {
  const meter = new SpeedMeter();
  const looked = (received: number, at: number): number | undefined => {
    return meter.look({ flights: [{ ...FLIGHT, received }] }, at).get(FLIGHT.digest);
  };
  t.equal(looked(1000, 0), undefined, "at first there is none");
  t.equal(looked(1500, 500), 1000);
  t.equal(looked(1500, 1500), 0);
  t.equal(looked(100, 2500), 0, "pieces were thrown away");
  t.equal(looked(200, 2500), undefined, "no time has gone by");
  t.end();
});

/** What stands on a terminal of so many rows in the end; knows the few sequences that are used, and no others. */
function screenOf(written: string, rows: number): string {
  const lines = Array.from({ length: rows }, () => "");
  let [row, column] = [0, 0];
  // `\p{Cc}` is ESC here.
  for (const [token] of written.matchAll(/\p{Cc}\[\??\d*[A-Za-z]|[^]/gu)) {
    const [, number = "", action] = /^\p{Cc}\[(\??\d*)([A-Za-z])$/u.exec(token) ?? [];
    if (token === "\n") [row, column] = [row + 1, 0];
    else if (token === "\r") column = 0;
    else if (action === "A") row -= Number(number);
    else if (action === "H") [row, column] = [0, 0];
    else if (action === "K") lines[row] = (lines[row] ?? "").slice(0, column);
    else if (action === "J" && number === "2") lines.fill("");
    else if (action === "J") {
      lines[row] = (lines[row] ?? "").slice(0, column);
      lines.fill("", row + 1);
    } else if (action === undefined) {
      const line = lines[row] ?? "";
      lines[row] = line.slice(0, column) + token + line.slice(column + 1);
      column += 1;
    } else if (number !== "?25") throw new Error(`unknown sequence ${JSON.stringify(token)}`);
    if (row < 0 || row >= rows) throw new Error(`row ${row} of ${rows}: the terminal would scroll`);
  }
  return lines.join("\n");
}
