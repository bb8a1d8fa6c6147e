import t from "tap";
import {
  AllSourcesFailedError,
  createLogger,
  SourceError,
  silentLogger,
  type LogLevel,
} from "@p2p-mirror/shared";

/** A logger and what it wrote, line by line. */
function recorded(level: LogLevel) {
  const lines: string[] = [];
  return { logger: createLogger(level, { write: (line) => void lines.push(line) }), lines };
}

await t.test("a line is one JSON object with level, time and message", async (t) => {
  const { logger, lines } = recorded("info");
  logger.info({ digest: "sha256:ab" }, "two\nlines");
  t.equal(lines.length, 1);
  t.match(lines[0], /^[^\n]*\n$/);
  t.match(JSON.parse(lines[0] ?? ""), {
    level: 30,
    time: /^\d{4}-\d\d-\d\dT.*Z$/,
    digest: "sha256:ab",
    msg: "two\nlines",
  });
});

await t.test("levels below the chosen one are not written, and silent is silent", async (t) => {
  const { logger, lines } = recorded("warn");
  logger.info("no");
  logger.warn("yes");
  logger.error("yes");
  t.equal(lines.length, 2);
  const silent = recorded("silent");
  silent.logger.fatal("no");
  silentLogger().fatal("no");
  t.same(silent.lines, []);
});

await t.test("credentials are removed wherever a caller puts them", async (t) => {
  const { logger, lines } = recorded("info");
  const secret = "hunter2";
  logger.info({
    authorization: secret,
    password: secret,
    request: { authorization: secret, password: secret },
  });
  logger.info({ headers: { authorization: secret, cookie: secret } });
  t.notOk(lines.join("").includes(secret));
});

await t.test("an error that was foreseen is its code and its reasons, without a stack", async (t) => {
  const { logger, lines } = recorded("info");
  const cause = new Error("connect ECONNREFUSED", { cause: new Error("inner") });
  logger.warn({ err: new SourceError("UNREACHABLE", "registry.example", { cause }) }, "no answer");
  t.same(JSON.parse(lines[0] ?? "").err, {
    type: "SourceError",
    code: "UNREACHABLE",
    message: "registry.example: unreachable",
    causes: ["connect ECONNREFUSED", "inner"],
  });
});

await t.test(
  "of an error that is several, each is told with its reasons, and none of a URL's secrets",
  async (t) => {
    const { logger, lines } = recorded("info");
    const refused = Object.assign(new AggregateError([new Error("connect ECONNREFUSED ::1:1")]), {
      code: "ECONNREFUSED",
    });
    const inner = [
      new SourceError("UNREACHABLE", "peer", { cause: refused }),
      new SourceError("STATUS", "registry", {
        message: 'cannot get "https://me:hunter2@cdn.test/x?X-Amz-Signature=feed"',
      }),
      "a text",
      ...Array.from({ length: 100 }, () => new Error("more")),
    ];
    logger.info({ err: new AllSourcesFailedError("sha256:ab", inner) }, "declined");
    const { err } = JSON.parse(lines[0] ?? "");
    t.match(err, { code: "ALL_SOURCES_FAILED", message: "no source delivered sha256:ab" });
    t.same(err.errors.slice(0, 3), [
      "peer: unreachable (connect ECONNREFUSED ::1:1)",
      'registry: cannot get "https://…@cdn.test/x?…"',
      "a text",
    ]);
    t.equal(err.errors.length, 8, "bounded");
  },
);

await t.test("any other error keeps its stack", async (t) => {
  const { logger, lines } = recorded("info");
  logger.error({ err: new TypeError("oops") }, "a fault");
  t.match(JSON.parse(lines[0] ?? "").err, { type: "TypeError", message: "oops", stack: /log.test.ts/ });
  logger.error({ err: "a text" }, "odd");
  t.equal(JSON.parse(lines[1] ?? "").err, "a text");
});

await t.test("no error brings a secret along, in its URLs or in what hangs on it", async (t) => {
  const { logger, lines } = recorded("info");
  const cause = new Error("get https://me:hunter2@cdn.test/x?sig=hunter2");
  const fault = Object.assign(new TypeError("no https://me:hunter2@cdn.test/x?sig=hunter2", { cause }), {
    request: { headers: { "x-api-key": "hunter2" } },
  });
  logger.error({ err: fault }, "a fault");
  logger.error({ err: "GET https://me:hunter2@cdn.test" }, "odd");
  t.notMatch(lines.join(""), /hunter2/);
  t.match(JSON.parse(lines[0] ?? "").err, {
    type: "TypeError",
    causes: ["get https://…@cdn.test/x?…"],
    stack: /log.test.ts/,
  });
});
