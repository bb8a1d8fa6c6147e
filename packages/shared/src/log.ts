import { pino, type Logger } from "pino";
import { hideUrlSecrets } from "./url-secrets.ts";

export type { Logger } from "pino";

export const LOG_LEVELS = ["error", "warn", "info", "debug", "trace", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/**
 * JSON lines on stderr. Levels: error = somebody must act; warn = degraded, goes on; info = a few lines per image;
 * debug = one per request. Never a credential: what may hold one is redacted here, whatever the caller passes.
 */
export function createLogger(level: LogLevel, destination: { write(line: string): void }): Logger {
  return pino(
    {
      level,
      base: null,
      serializers: { err: describeError },
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: {
        paths: ["authorization", "*.authorization", "headers.cookie", "password", "*.password"],
        remove: true,
      },
    },
    destination,
  );
}

/** How many reasons behind an error are told, and how many errors that are one together. */
const MAX_CAUSES = 5;
const MAX_ERRORS = 8;
const MAX_MESSAGE = 500;
const MAX_STACK = 4_000;

/** Libraries quote URLs. */
const messageOf = (error: Error): string => hideUrlSecrets(error.message).slice(0, MAX_MESSAGE);

/** The messages behind an error, outermost first; where several failed at once (all addresses of a name), each of them. */
function causesOf(error: Error): string[] {
  const causes: string[] = [];
  let next: unknown = error.cause;
  while (next instanceof Error && causes.length < MAX_CAUSES) {
    const inner: unknown[] = next instanceof AggregateError ? next.errors : [];
    for (const one of [next, ...inner]) {
      if (one instanceof Error && one.message !== "" && causes.length < MAX_CAUSES)
        causes.push(messageOf(one));
    }
    next = next.cause;
  }
  return causes;
}

function summaryOf(error: unknown): string {
  if (!(error instanceof Error)) return hideUrlSecrets(String(error)).slice(0, MAX_MESSAGE);
  const inner: unknown[] = error instanceof AggregateError ? error.errors.slice(0, MAX_ERRORS) : [];
  const behind = [...causesOf(error), ...inner.map((one) => (one instanceof Error ? messageOf(one) : ""))];
  const reasons = behind.filter((text) => text !== "");
  return reasons.length === 0 ? messageOf(error) : `${messageOf(error)} (${reasons.join("; ")})`;
}

/**
 * An error in a log line. One with a code was foreseen: it is its type, code and message, the messages behind it, and for
 * several in one a line each. Any other is a fault of ours and keeps its stack; what else hangs on it (a request, its
 * headers) does not get in.
 */
export function describeError(error: unknown): unknown {
  if (!(error instanceof Error)) return typeof error === "string" ? hideUrlSecrets(error) : error;
  const causes = causesOf(error);
  if (!("code" in error)) {
    return {
      type: error.name,
      message: messageOf(error),
      ...(causes.length > 0 && { causes }),
      stack: hideUrlSecrets(error.stack ?? "").slice(0, MAX_STACK),
    };
  }
  const errors = error instanceof AggregateError ? error.errors.slice(0, MAX_ERRORS).map(summaryOf) : [];
  return {
    type: error.name,
    code: error.code,
    message: messageOf(error),
    ...(errors.length > 0 && { errors }),
    ...(causes.length > 0 && { causes }),
  };
}

/** For tests and tools: says nothing. */
export const silentLogger = (): Logger => pino({ level: "silent" });
