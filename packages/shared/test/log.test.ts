import t from "tap";
import { createLogger, SourceError, silentLogger, type LogLevel } from "@p2p-mirror/shared";

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

await t.test("any other error keeps its stack", async (t) => {
  const { logger, lines } = recorded("info");
  logger.error({ err: new TypeError("oops") }, "a fault");
  t.match(JSON.parse(lines[0] ?? "").err, { type: "TypeError", message: "oops", stack: /log.test.ts/ });
  logger.error({ err: "a text" }, "odd");
  t.equal(JSON.parse(lines[1] ?? "").err, "a text");
});
